import { isUnacknowledged } from '../shared/acks'
import type { Alarm, FleetSite } from '../shared/types'

/** What of one lane waits at the gateway; ages in seconds. */
export interface Lane {
  name: 'journal' | 'history' | 'blobs'
  waiting: number
  bytes: number
  oldestS: number | null
}
export interface DiskShare {
  name: 'journal' | 'history' | 'blobs'
  bytes: number
  pct: number
}
export type TroubleName =
  | 'silent' | 'late' | 'never' | 'fork' | 'cloned' | 'notRecorded' | 'diskRefusing' | 'diskShort' | 'clockOff' | 'clockUntrusted' | 'backlog' | 'quarantine' | 'devices'
  | 'evidence' | 'deliveries'
/** Why somebody should look. `n` is what the words count; `ageS` what they say in time. */
export interface Trouble {
  name: TroubleName
  n: number
  ageS: number
}
export interface Standing {
  contactS: number | null
  /** Age of the newest record, and of the newest reading, that headquarters has. */
  recordS: number | null
  readingS: number | null
  /** How far headquarters is behind: age of the oldest record or segment that waits at the gateway, 0 when none does. */
  lagS: number | null
  lanes: Lane[] | null
  backlogBytes: number | null
  rateKbit: number | null
  clock: string
  clockOffsetS: number | null
  disk: DiskShare[] | null
  diskPct: number | null
  diskFree: number | null
  asOf: string | null
  troubles: Trouble[]
}

/** A clock that is off by more makes times of records hard to compare. */
export const CLOCK_OFF_S = 5
const BACKLOG_S = 15 * 60
const WEIGHTS: Record<TroubleName, number> = {
  fork: 100, cloned: 90, notRecorded: 85, silent: 80, diskRefusing: 60, quarantine: 40, backlog: 30, deliveries: 28, clockUntrusted: 25, clockOff: 24, evidence: 22, devices: 20, diskShort: 15, late: 10, never: 5,
}

/** An offset in seconds with its sign; the first decimal where it says something. */
export const offsetText = (offset: number): string => `${offset > 0 ? '+' : ''}${Math.abs(offset) < 10 ? offset.toFixed(1) : Math.round(offset)}`

type Fields = Record<string, unknown>
const fields = (value: unknown): Fields => (typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {})
const number = (value: unknown): number | null => (typeof value === 'number' && Number.isFinite(value) ? value : null)
const text = (value: unknown): string => (typeof value === 'string' ? value : '')

function ageS(utc: unknown, nowMs: number): number | null {
  const at = Date.parse(text(utc))
  return Number.isNaN(at) ? null : Math.max(0, (nowMs - at) / 1000)
}

/** `behind`: records that the gateway knew when it spoke and that are not here; what has come since waits no more. */
function lanesOf(health: Fields, behind: number | null, nowMs: number): Lane[] | null {
  const streams = fields(health.streams)
  const evidence = fields(health.evidence)
  const found: Lane[] = []
  for (const name of ['journal', 'history'] as const) {
    const one = fields(streams[name])
    const said = number(one.waiting)
    const waiting = said !== null && name === 'journal' && behind !== null ? Math.min(said, Math.max(0, behind)) : said
    if (waiting !== null) found.push({ name, waiting, bytes: waiting ? (number(one.bytes) ?? 0) : 0, oldestS: waiting ? ageS(one.oldest, nowMs) : null })
  }
  const waiting = number(evidence.waiting)
  if (waiting !== null) found.push({ name: 'blobs', waiting, bytes: number(evidence.bytes) ?? 0, oldestS: null })
  return found.length ? found : null
}

function diskOf(use: Fields): DiskShare[] | null {
  const found = (['journal', 'history', 'blobs'] as const).flatMap((name) => {
    const one = fields(use[name])
    const [bytes, most] = [number(one.bytes), number(one.most)]
    return bytes === null || !most ? [] : [{ name, bytes, pct: Math.round((100 * bytes) / most) }]
  })
  return found.length ? found : null
}

/**
 * How a site stands, from what headquarters has and from what the gateway says of itself, which may be anything.
 *
 * `contactS`: age of the last contact, seconds; null: there was none.
 */
export function standingOf(site: FleetSite, contactS: number | null, nowMs: number): Standing {
  const health = fields(site.snapshot?.health)
  const use = fields(health.disk_use)
  const lanes = lanesOf(health, site.snapshot?.records_behind ?? null, nowMs)
  const oldest = (lanes ?? []).flatMap((lane) => (lane.oldestS === null ? [] : [lane.oldestS]))
  const standing: Standing = {
    contactS,
    recordS: ageS(site.journal.newest, nowMs),
    readingS: ageS(site.history.newest, nowMs),
    lagS: lanes ? Math.max(0, ...oldest) : null,
    lanes,
    backlogBytes: lanes ? lanes.reduce((sum, lane) => sum + lane.bytes, 0) : null,
    rateKbit: number(health.kbit_s),
    clock: text(health.clock),
    clockOffsetS: number(health.clock_offset_s),
    disk: diskOf(use),
    diskPct: number(use.pct),
    diskFree: number(use.free_bytes) ?? number(health.disk_free),
    asOf: site.snapshot?.as_of ?? null,
    troubles: [],
  }
  standing.troubles = troublesOf(site, standing, health)
  return standing
}

function troublesOf(site: FleetSite, standing: Standing, health: Fields): Trouble[] {
  const found: Trouble[] = []
  const add = (when: unknown, name: TroubleName, n = 0, age = 0): void => {
    if (when) found.push({ name, n, ageS: age })
  }
  const evidence = fields(health.evidence)
  const spoilt = (number(evidence.damaged) ?? 0) + (number(evidence.refused) ?? 0)
  const [devices, failing] = [number(health.silent) ?? 0, number(fields(health.deliveries).failing) ?? 0]
  const offset = standing.clockOffsetS ?? 0
  const forks = site.witness?.forks.length ?? 0
  if (site.state !== 'online') add(true, site.state, 0, standing.contactS ?? 0)
  add(forks, 'fork', forks)
  add(site.cloned, 'cloned')
  add(health.not_recorded, 'notRecorded')
  add(health.disk === 'refusing', 'diskRefusing', Math.round(standing.diskPct ?? 0))
  add(health.disk === 'short', 'diskShort', Math.round(standing.diskPct ?? 0))
  add(standing.clock && standing.clock !== 'synced', 'clockUntrusted')
  add(Math.abs(offset) > CLOCK_OFF_S, 'clockOff', offset)
  add((standing.lagS ?? 0) > BACKLOG_S, 'backlog', 0, standing.lagS ?? 0)
  add(site.quarantined, 'quarantine', site.quarantined)
  add(spoilt, 'evidence', spoilt)
  add(devices, 'devices', devices)
  add(failing, 'deliveries', failing)
  return found.sort((a, b) => WEIGHTS[b.name] - WEIGHTS[a.name])
}

/** Higher is more urgent: open alarms by priority, unacknowledged ones first, then what is wrong with the site itself. */
export function urgency(site: FleetSite, standing: Standing): number[] {
  const worst = Math.min(99, ...site.open_alarms.map((alarm) => alarm.priority + (isUnacknowledged(alarm) ? 0 : 10)))
  const troubles = standing.troubles.map((trouble) => WEIGHTS[trouble.name])
  return [-worst, Math.max(0, ...troubles), troubles.reduce((sum, weight) => sum + weight, 0)]
}

/** An alarm that can be shown, of whatever a gateway of another version sent: one site must not blank the whole page. */
export function wholeAlarm<T extends Partial<Alarm>>(said: T): T & Alarm {
  const list = (value: unknown): never[] => (Array.isArray(value) ? (value as never[]) : [])
  const id = text(said.id)
  return {
    ...said,
    id,
    name: text(said.name) || id,
    name_en: text(said.name_en) || text(said.name) || id,
    unit: text(said.unit),
    kind: said.kind ?? null,
    priority: number(said.priority) ?? 4,
    value: number(said.value),
    limit: number(said.limit),
    required_acks: list(said.required_acks),
    acks: list(said.acks),
  } as T & Alarm
}

/** How many open alarms there are of each priority that has some. */
export function byPriority(site: FleetSite): { priority: number; n: number; waiting: number }[] {
  return [1, 2, 3, 4]
    .map((priority) => {
      const own = site.open_alarms.filter((alarm) => alarm.priority === priority)
      return { priority, n: own.length, waiting: own.filter(isUnacknowledged).length }
    })
    .filter(({ n }) => n > 0)
}
