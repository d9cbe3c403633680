/** English of the pop-ups, of zooming in trends, and of the site plan. */
import type { planZh } from './plan-zh'

export const planEn: typeof planZh = {
  mustSee: {
    title: 'Needs action now', count: '{n} need action now', seen: 'Seen (hide here for 15 minutes)', next: '{n} more', go: 'Deal with it', open: 'Show full screen again',
    kind: { freeze: 'Work is frozen', escalation: 'Escalated, and nobody has reacted' }, since: 'since {time}', lasts: 'lasting', step: 'at step {n} of {of}', by: '{roles} may release it', notAck: '“Seen” acknowledges nothing and stops no escalation',
  },
  strip: { areas: 'Areas', points: '{n} points', silent: '{n} without valid data' },
  zoom: {
    in: 'Zoom in', out: 'Zoom out', left: 'Earlier', right: 'Later', live: 'Back to now', hint: 'Drag to choose a stretch, wheel to zoom; keys: + − ← → 0', frozen: 'stands at the chosen time', alarms: 'Alarms of this time', alarm: '{time} {name} (priority {priority})', none: 'No alarm in this time', shown: '{from} to {to}', more: 'only the last {n} alarms are marked',
  },
}
