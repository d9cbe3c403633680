import type { pagesZh } from './pages-zh'

export type Words<T> = { [K in keyof T]: T[K] extends string ? string : Words<T[K]> }

export const pagesEn: Words<typeof pagesZh> = {
  page: {
    room: 'Overview', history: 'Alarm history', statistics: 'Statistics', ladders: 'Escalation', deliveries: 'Notices', proof: 'Proof test', plan: 'Plan', more: 'More',
    empty: 'Nothing fits', failed: 'The data could not be read', updated: 'updated {time}', refresh: 'Refresh', csv: 'Export CSV', print: 'Print', all: 'All', older: 'Older', newer: 'Newer', newest: 'Newest',
    cancel: 'Cancel', frozen: 'Disconnected: this is not the newest data',
  },
  cover: {
    open: 'Shelve…', tab: 'Shelved', none: 'Nothing is shelved, suppressed or out of service', title: 'Shelve or take out of service', titleShelve: 'Shelve the alarm', lifeSafety: ' (protects lives: at most 30 minutes)', shelve: 'Shelve', takeOut: 'Out of service', unshelve: 'Unshelve', putBack: 'Put back',
    shelved: 'Shelved', out_of_service: 'Out of service', by_design: 'Suppressed by design', until: 'until {time}', left: '{time} left', since: 'since {time}', by: '{name}', permit: 'permit {permit}', oneShot: 'ends when normal',
    minutes: 'For', m15: '15 min', m30: '30 min', m60: '1 h', m120: '2 h', m240: '4 h', m480: '8 h',
    why: 'Reason (required, at least 4 characters)', why1: 'Sensor under repair', why2: 'Process change, field is aware', why3: 'Fault reported, waiting for parts', oneShotLabel: 'End earlier, when it returns to normal',
    permitLabel: 'Number of the permit (required)', told: 'It is judged and recorded as before, but nobody is told; the safety officer is told that it was shelved.', toldOut: 'It is judged and recorded as before, but nobody is told until an officer puts it back.',
    doShelve: 'Shelve it', doTakeOut: 'Take it out', firstOut: 'First', firstOutTip: 'The first alarm of its group',
  },
  ladder: {
    title: 'Climbing', none: 'Nothing is escalating', next: 'Next', nextAt: '{time} {what}', inTime: 'in {time}', due: 'due now', top: 'last step done', step: 'step {n} of {of}', since: 'since {time}',
    paused: { acked: 'paused: acknowledged', returned: 'paused: back to normal', suppressed: 'paused: shelved' },
    basis: { open: 'climbs until it is closed', unacked: 'climbs until it is acknowledged', condition: 'climbs until it is normal' },
    colour: { red: 'red', yellow: 'yellow' },
    kind: { alarm: 'Alarm', hazard: 'Hazard', approval: 'Approval', permit: 'Permit' },
    tell: 'tell {who}', add: { sms: 'SMS', siren: 'siren', every: 'every channel', mail: 'e-mail', speech: 'loudspeaker', wecom: 'WeCom', dingtalk: 'DingTalk', feishu: 'Feishu' }, via: 'use {what}', turn: 'turn {colour}', freeze: 'freeze work, deviation report', steps: 'All steps', done: 'done', skipped: 'to come', allowed: 'Never blocked: ventilation, lighting, exits, suspending, signing out, closing',
  },
  freeze: {
    title: 'Freezes', none: 'Nothing is frozen', holds: 'Frozen', released: 'Released', permit: 'Permit {what}', work: '{area}: {what}', any: 'all work', since: 'since {time}', why: 'because of {name}', by: 'to be released by: {roles}',
    release: 'Release…', releaseTitle: 'Release a freeze', reason: 'Reason (required: what was done, and why work may go on)', doRelease: 'Release it', releasedBy: 'released by {name} at {time}: {reason}', history: 'Released freezes',
  },
  deviation: { title: 'Deviation reports', none: 'No deviation reports', opened: 'opened {time}', open: 'Open', closed: 'Closed', close: 'Close…', closeTitle: 'Close a deviation report', cause: 'Root cause (required)', measure: 'Measure (required: what was done so that it does not come again)', doClose: 'Close it', closedBy: 'closed by {name} ({role}) at {time}', causeWas: 'Cause: {text}', measureWas: 'Measure: {text}', frozen: 'release the freeze first', by: 'to be closed by: {roles}' },
  history: {
    span: 'Time', spans: { h24: 'Last 24 hours', d7: 'Last 7 days', d30: 'Last 30 days', d90: 'Last 90 days', any: 'Any time', custom: 'From … to' }, from: 'From', to: 'To', area: 'Area', priority: 'Priority', kind: 'Kind', change: 'Change', person: 'By', text: 'Name', filter: 'Filter',
    find: 'Find', clear: 'Clear', time: 'Time', alarm: 'Alarm', what: 'Change', value: 'Value', who: 'By', state: 'After it', textHint: 'part of a name or id',
  },
  statistics: {
    position: 'Position', positions: { control_room: 'Control room (all areas)' }, number: 'Number', value: 'Value', goal: 'Goal', verdict: 'Verdict', says: 'Definition', source: 'Source: {source}',
    verdicts: { met: 'met', near: 'near', missed: 'missed' }, noGoal: 'no goal', priorities: 'Priorities', goalMark: 'tick: goal (about)', top: 'Ten most frequent alarms', share: '{n}% of all', profile: 'Alarms in each 10 minutes',
    profileNote: 'Dashed: 10, more is a flood; over longer times each bar is its busiest 10 minutes.', profileText: 'at most {peak}; {busy} periods with more than 10', floods: 'Floods', floodsNone: 'No floods', flood: '{count} alarms, first: {name}', lasts: 'for {age}',
    chattering: 'Chattering', standing: 'Standing', nothing: 'none', none: 'No alarms in this time', median: '—', perPosition: 'Per operating position, never an average of the plant; 30 days or more are advised.', priorityUnit: 'Priority {n}',
  },
  delivery: {
    none: 'No notices yet', state: 'State', states: { PENDING: 'waiting', SENDING: 'being sent', RETRY: 'trying again', ACCEPTED: 'accepted', DELIVERED: 'delivered', DEAD: 'not delivered', FAILING: 'late' }, channel: 'Channel', person: 'Person',
    kind: { raised: 'Alarm', reraised: 'Raised again', reopened: 'Again', repeated: 'Reminder', shelved: 'Shelved', out_of_service: 'Out of service', step: 'Escalation', set: 'Freeze', released: 'Release', opened: 'Deviation', clear: 'Clear', alarm: '【测试】 Test, nothing to acknowledge' },
    attempts: '{n} attempts', attempt: 'no. {n}', outcome: { accepted: 'accepted', delivered: 'delivered', later: 'later', failed: 'failed', refused: 'refused', sending: 'being sent', interrupted: 'interrupted, may have arrived' }, resent: 'sent again', late: 'late', unreached: 'no way is left',
    why: { closed: 'alarm closed', told: 'told together', acked: 'acknowledged', released: 'released' }, thing: 'device or group', digest: 'in a digest', summary: '{done} of {of} accepted', number: 'alarm no. {n}', uncertain: 'may have arrived', step: 'escalation step',
  },
  proof: {
    what: 'A test value goes through the whole chain of an alarm: rules, journal, SMS, siren, pages, MQTT, headquarters. Each step has a verdict and its seconds. It is in no list of alarms, history or statistics.', point: 'Point', choose: 'Choose a point', begin: 'Begin a proof test…', beginTitle: 'Begin a proof test?', doBegin: 'Begin it',
    warn1: 'Everybody who is told of this alarm gets a message that begins with 【测试】. Nothing is to be acknowledged.', warn2: 'The siren sounds shortly; red and green flash slowly together. Tell the people on site first.', warn3: 'A real alarm of priority 1 or 2 ends the test at once.', notMine: 'A safety officer, the control room or an administrator may begin one',
    none: 'There has been no proof test yet', runs: 'Last tests', run: 'No. {n}', seconds: '{n} s', by: 'begun by {name}', week: 'scheduled', total: 'took {n} s', waiting: 'waiting', problems: '{n} failed',
    schedule: 'Every {day} at {time}', noSchedule: 'No weekly test ([proof] of site.toml)', next: 'next {time}', refusedNow: "Today's test is put off: {why}", missed: 'The test of {day} was missed: {why}', off: 'the gateway was off', anyone: 'device',
    part: { source: 'Source', alarm: 'Alarm', journal: 'Journal', recipients: 'Recipients', accepted: 'Accepted', delivered: 'Delivered', sounded: 'Sounded', page: 'Page', mqtt: 'MQTT', cloud: 'Headquarters' },
    says: { source: "the point's readings come", alarm: 'the rules raised it after their delay', journal: 'the record was read back', recipients: 'everybody is told who must be', accepted: "the receiver's system took it", delivered: 'the network says the phone has it', sounded: 'siren and lamps were read back', page: 'sent to every open page', mqtt: "the plant's broker has it", cloud: 'headquarters has it' },
    verdict: { passed: 'passed', failed: 'failed', not_there: 'not there', left_out: 'left out' },
    result: { running: 'under way', passed: 'passed', failed: 'failed', incomplete: 'incomplete', overridden: 'ended by a real alarm', interrupted: 'interrupted' },
  },
}
