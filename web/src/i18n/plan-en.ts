/** English of the pop-ups, of zooming in trends, and of the site plan. */
import type { planZh } from './plan-zh'

export const planEn: typeof planZh = {
  mustSee: {
    title: 'Needs action now', count: '{n} need action now', seen: 'Seen (hide here for 15 minutes)', next: '{n} more', go: 'Deal with it', open: 'Show full screen again',
    kind: { freeze: 'Work is frozen', escalation: 'Escalated, and nobody has reacted' }, since: 'since {time}', lasts: 'lasting', step: 'at step {n} of {of}', by: '{roles} may release it', notAck: '“Seen” acknowledges nothing and stops no escalation',
  },
  strip: { none: 'No points here', areas: 'Areas', points: '{n} points', silent: '{n} without valid data' },
  plan: {
    title: 'Site plan', none: 'There is no site plan yet', noneHint: 'A safety officer or administrator imports a drawing (PNG, JPEG, SVG, PDF) and drags points, checkpoints, zones, fences and cameras into place.', view: 'The plan: arrow keys scroll', zoom: 'Zoom', corner: 'Corner {n}: drag it or use the arrow keys; double click adds one, Delete removes it', noPicture: 'No drawing yet', broken: 'The drawing could not be read', unknown: 'not in the configuration',
    kind: { point: 'Point', checkpoint: 'Checkpoint', zone: 'Zone', fence: 'Fence', camera: 'Camera' }, edit: 'Edit', add: 'New plan', saved: 'saved {time} by {name}', offNote: 'Alarms that are not on the plan', version: 'Version', versions: 'Take an old version…', versionOf: '{time} {name}, {n} items',
    editing: 'Editing the plan', save: 'Save', cancel: 'Discard', discard: 'Changes were not saved. Discard them?', undo: 'Undo', picture: 'Import a drawing…', page: 'Page (PDF)', pages: 'of {n}', importing: 'Importing…', name: 'Name in Chinese', nameEn: 'Name in English', put: 'Put on the plan', pointsLeft: 'Points not placed yet', allPlaced: 'Every point has its place', find: 'Find', item: 'Selected', ref: 'Shows', refNone: 'nothing else', angle: 'Looks to (degrees)', remove: 'Take off the plan', moreCorner: 'One corner more', removePlan: 'Delete this plan…', removeSure: 'Delete “{name}”? Its records stay, but no page shows it.',
    hint: 'Drag, or use the arrow keys (Shift: small steps); Delete takes off, Ctrl+Z undoes.', changed: 'not saved yet', changedElse: 'Somebody has saved a newer version meanwhile',
  },
  zoom: {
    in: 'Zoom in', out: 'Zoom out', left: 'Earlier', right: 'Later', live: 'Back to now', hint: 'Drag to choose a stretch, wheel to zoom; keys: + − ← → 0', frozen: 'stands at the chosen time', alarms: 'Alarms of this time', alarm: '{time} {name} (priority {priority})', none: 'No alarm in this time', shown: '{from} to {to}', more: 'only the last {n} alarms are marked',
  },
}
