import type { headquartersZh } from './headquarters-zh'
import type { Words } from './pages-en'

/** English of headquarters. */
export const headquartersEn: Words<typeof headquartersZh> = {
  hq: {
    sites: 'Sites', bundles: 'Import USB', back: 'All sites', open: 'Open {name}', notFound: 'There is no gateway {id}', details: 'Details', since: 'since {time}', more: '{n} more: see details',
    list: {
      find: 'Find', findHint: 'Site or gateway', show: 'Show', sort: 'Sort by', none: 'No site fits', of: '{n} of {all} sites', up: 'Ascending', down: 'Descending', clear: 'Clear',
      which: { all: 'All', trouble: 'Needs somebody', alarms: 'With alarms', away: 'Not online' },
      by: { urgency: 'Most urgent first', name: 'Name', contact: 'Last contact', lag: 'Lag', backlog: 'Backlog', clock: 'Clock offset', disk: 'Disk', alarms: 'Open alarms', quarantine: 'Quarantine', version: 'Version' },
    },
    fact: {
      contact: 'Last contact', lag: 'Newest record', reading: 'reading {age} ago', backlog: 'Backlog', clock: 'Clock', disk: 'Disk', witness: 'Witness', quarantine: 'Quarantine', gaps: 'Gaps', rate: '{n} kbit/s', unknown: 'not reported', asOf: 'The gateway said so at {time}', version: 'Version', journal: 'Journal received',
      nothing: 'nothing waits', waits: '{what} {n} {unit}', oldest: 'oldest {age} ago', offset: '{n} s', pct: '{what} {n}%', free: '{size} free',
      countersigned: 'up to #{n}', never: 'not yet', batches: '{n} set aside', pieces: '{n}', alive: '{n} alive',
    },
    lane: { journal: 'journal', history: 'history', blobs: 'evidence' },
    unit: { journal: 'records', history: 'segments', blobs: 'files' },
    clockState: { synced: 'in step', unsynced: 'nobody sets it: not trusted', stepped: 'just stepped: not trusted' },
    trouble: {
      silent: 'silent for {age}', late: 'late for {age}', never: 'never connected', fork: 'witness mismatches: {n}', cloned: 'two machines use its key', notRecorded: 'nothing is recorded', diskRefusing: 'disk nearly full: {n}%', diskShort: 'disk is short: {n}%', clockOff: 'clock is off by {n} s', clockUntrusted: 'nobody sets the clock',
      backlog: 'backlog for {age}', quarantine: 'in quarantine: {n}', devices: 'devices not answering: {n}', evidence: 'evidence damaged or refused: {n}', deliveries: 'messages not getting through: {n}',
    },
    alarms: 'Open alarms', noAlarms: 'No open alarms', history: 'Alarm records', charts: 'Charts', evidence: 'Evidence', evidenceHas: 'Kept here: {n} files, {size}', evidenceMore: '{unfinished} unfinished, {wanted} lost and asked for',
    epoch: {
      title: 'Epochs', what: 'Whenever a journal begins anew it begins an epoch, which names the one before.', first: 'The first one', alive: 'alive', ended: 'ended', records: 'received up to #{n}', span: '{from} to {to}', before: 'before it: {epoch}', name: 'Epoch {epoch}',
      twin: 'Two machines send with the same key: one is a clone. Stop the wrong one, and give it a key of its own.',
      reason: { cloned: 'the data was copied to another machine', moved: 'the disk is in another machine', restored: 'brought back from a backup', fork: 'not what headquarters had received', cloud_ahead: 'older than what headquarters has: an old backup', damaged: 'the journal was damaged, and begun anew after a rescue' },
    },
    witness: {
      title: 'Witness', what: 'Headquarters compares the checkpoints that a gateway signs and countersigns what agrees: from then on nobody alters these records unseen.', none: 'No checkpoint was countersigned yet', signed: 'countersigned up to record #{n}', fork: 'Mismatch: the checkpoint of {n} records contradicts what is kept here: {why}', proof: 'The contradicting checkpoint, signed by the gateway, is kept as evidence. Run sitewarden verify on the gateway.',
      why: { chain: 'the record kept here has another chain value', root: 'as many records, another Merkle root', witnessed: 'as many records, but another root was witnessed before' },
    },
    gap: { title: 'Declared gaps', what: 'History that the gateway itself says it dropped: not silently missing, but which and why.', none: 'No gaps', batches: 'segments {first} to {last}', batch: 'segment {first}', readings: '{n} readings', unknownTime: 'time not known', span: '{from} to {to}', total: '{n} in all, {readings} readings', why: { budget: 'the history was as large as it may be', disk: 'the disk was full', kept_out: 'older than what is kept, and lost here since' } },
    quarantine: { title: 'Quarantine', what: 'Batches that arrived and cannot be used: kept as they came; what follows them is not held up.', none: 'Nothing in quarantine', batch: '{stream} batch {n}', record: '{stream} batch {n}, record {seq}', download: 'Download', support: 'Downloading, for support, takes the role IT or admin', },
    bundle: {
      title: 'Import from a USB stick', what: 'For sites without a link: on the gateway, sitewarden bundle export writes .swx files. Import them here, and carry the answer back. The same file may be imported twice.', choose: 'Choose a .swx file', drop: 'or drop it here', limit: 'At most {size}; what is here already is skipped', notYours: 'Importing takes the role officer, manager, IT or admin',
      sending: 'Uploading {name}', taking: 'Checking and taking in', progress: '{n}%', sentOf: '{done} of {of}', batchesOf: '{done} of {of} batches', cancel: 'Cancel', again: 'Import the next file', waiting: 'Waiting…',
      done: 'The data of {gateway} was taken in', partly: 'Only part of the data of {gateway} was taken in', failed: 'Nothing was imported', answer: 'Download the answer {name}', answerWhat: 'Carry the answer back on the stick, and run on the gateway: sitewarden bundle import {name}. It then knows what has arrived.', config: 'The answer brings baseline revision {n}', noConfig: 'The answer brings no configuration', more: 'This is not the last file: import the next one of the same export (…-2.swx).',
      taken: '{n} new batches', known: '{n} known batches', takenBlobs: '{n} new files', knownBlobs: '{n} known files', quarantined: '{n} set aside', refusedBlobs: '{n} not taken', upTo: 'now up to batch {n}', nothing: 'The file holds no data',
      problem: { gap: 'batches before these are missing: import the earlier file first', fork: 'another history than the one kept here: carry the answer back, the gateway then begins a new epoch', too_large: 'a file is larger than allowed', quota: 'the evidence quota of this site is used up', unavailable: 'the store is away for a moment: import it again', wrong_content: 'a file is not what its name says, and was not kept', damaged: 'the rest of the file is damaged: copy it again' },
      refused: {
        damaged: 'The file is damaged, or no .swx bundle: copy it from the gateway again', wrong_key: 'Signed by a key that is not this gateway’s', bad_signature: 'The signature does not fit: the file was altered', not_for_here: 'This is an answer: import it at its gateway', unknown_gateway: 'This gateway has no key here yet', disk_full: 'Headquarters’ disk is too full: tell IT', too_large: 'The file is larger than allowed', not_your_role: 'You have no role that may import',
        busy: 'Others are importing: try again later', offset: 'The upload broke off: choose the file again', not_found: 'The upload has expired: choose the file again', network: 'The connection broke: choose the file again', unavailable: 'Headquarters cannot take it in just now: import it again', empty: 'The file is empty', broken: 'The answer broke off: import it again, nothing is stored twice',
      },
    },
  },
}
