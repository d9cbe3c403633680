/** What the gateway and headquarters say over `/api/v1`. */

export type Role = string
export type Quality = 'good' | 'uncertain' | 'bad'
export type AlarmState = 'UNACK' | 'ACKED' | 'RTNUN' | 'LATU' | 'LATA' | 'NORM'
/** `hihi`, `hi`, `roc`, `stale` …: table B of the alarm kinds, and those of the system itself. */
export type AlarmKind = string
export type LimitName = 'lolo' | 'lo' | 'hi' | 'hihi'

/** Anything with a name in both languages. */
export interface Named {
  name: string
  name_en?: string
}

export interface Person extends Named {
  id: string
  roles: Role[]
  /** Ids of the areas that the person answers for; `*` is all of them. */
  areas: string[]
  /** Who are away, and in whose roles and areas this person may act now. */
  stands_in_for?: Person[]
}

export interface Session {
  person: Person
  csrf: string
}

export type Limits = Partial<Record<LimitName, number | null>>

export interface Point extends Named {
  id: string
  unit: string
  quantity: string
  decimals: number
  low: number | null
  high: number | null
  stale_s: number
  limits: Limits
}

export interface Area extends Named {
  id: string
  points: Point[]
}

export interface Site {
  site: Named & { id: string }
  gateway: { id: string; version: string }
  areas: Area[]
}

export interface PointValue {
  id: string
  v: number | null
  q: Quality
  why: string
  ts: string
  age_s: number
}

export interface Trend {
  id: string
  samples: [utcMs: number, value: number | null][]
}

export interface Ack extends Partial<Named> {
  role: Role
  person: string
  at: string
}

export interface Alarm extends Named {
  id: string
  point: string
  area: string
  /** null in records of an alarm that was never raised. */
  kind: AlarmKind | null
  state: AlarmState
  priority: number
  occurrence: number
  /** What raised it, made it worse or brought it back; a return does not change it. */
  value: number | null
  limit: number | null
  unit: string
  raised_at: string
  changed_at: string
  count: number
  required_acks: Role[]
  acks: Ack[]
  /** Each role must be answered by another person; absent means so too. */
  distinct_persons?: boolean
  missing_roles?: Role[]
  first_out?: boolean
  /** Shelved by an officer alone, and for half an hour at most. */
  life_safety?: boolean
  overlay?: Overlay | null
  /** Only the list brings it; live events leave it as it was. */
  ladder?: LadderView | null
  rev: number
}

/** Why nobody is told of an alarm for now. `until` is null where a person or a rule ends it. */
export interface Overlay {
  kind: 'shelved' | 'by_design' | 'out_of_service'
  who: string
  who_name?: string
  who_name_en?: string
  why: string
  permit: string
  one_shot: boolean
  since: string
  until?: string | null
}

export interface Rung {
  at_s: number
  at: string
  to: Role[]
  add: string[]
  colour: '' | 'yellow' | 'red'
  action: '' | 'freeze'
}

export interface Subject extends Named {
  kind: string
  id: string
  occurrence: number
  area: string
  priority: number
}

export interface LadderView {
  subject: Subject
  plan: string
  basis: string
  since: string
  climbed: number
  rungs: Rung[]
  colour: '' | 'yellow' | 'red'
  paused: string
  next: Rung | null
}

export interface Freeze {
  id: string
  scope: 'permit' | 'work'
  what: string
  area: string
  why: Subject
  since: string
  by: Role[]
  released: (Named & { person: string; reason: string; at: string }) | null
  /** The person who asks may release it. */
  mine: boolean
}

export interface Deviation {
  id: string
  seq: number
  /** When it was opened. */
  at: string
  subject: Subject
  closed: (Named & { person: string; role: Role; cause: string; measure: string; at: string }) | null
  by: Role[]
  /** The person who asks may close it. */
  mine: boolean
  /** Its work must be released before it is closed. */
  frozen: boolean
}

export interface Ladders {
  time: string
  ladders: LadderView[]
  freezes: Freeze[]
  deviations: Deviation[]
}

export interface HistoryPage {
  events: AlarmEvent[]
  older: number | null
  newer: number | null
}

export interface Definition extends Named {
  says: string
  says_en: string
  unit: string
  goal: string
  source: string
}

export interface Numbers {
  position: string
  annunciated: number
  per_10_min: number
  peak: number
  busy_periods_pct: number
  flood_pct: number
  floods: number
  top_ten_pct: number
  top: { alarm: string; count: number }[]
  chattering: string[]
  fleeting: number
  standing: string[]
  priority_pct: Record<string, number>
  acknowledged_s: number | null
  covered: number
  system: number
  verdicts: Record<string, '' | 'met' | 'near' | 'missed'>
  profile: number[]
  flood_list: { from: string; to: string; count: number; first_out: string }[]
}

export interface Statistics {
  from: string
  to: string
  period_s: number
  definitions: Record<string, Definition>
  priority_goals: Record<string, number>
  known_positions: string[]
  positions: Numbers[]
  names: Record<string, Named>
}

export interface Attempt {
  n: number
  at: string
  outcome: string
  detail: string
  uncertain: boolean
  digest: string
}

export interface DeliveryRow extends Named {
  key: string
  person: string
  mentions: (Named & { person: string })[]
  role: Role
  channel: string
  step: number
  state: string
  failing: boolean
  unreached: string[]
  resent: boolean
  born: string
  ended: string
  why: string
  error: string
  attempts: Attempt[]
}

export interface Message extends Named {
  seq: number
  at: string
  kind: string
  priority: number
  about: string
  occurrence: number
  rows: DeliveryRow[]
}

export interface Deliveries {
  messages: Message[]
  older: number | null
  channels: { id: string; kind: string }[]
}

export type ProofVerdict = 'passed' | 'failed' | 'not_there' | 'left_out'
export type ProofResult = 'running' | 'passed' | 'failed' | 'incomplete' | 'overridden' | 'interrupted'

export interface ProofStep {
  part: string
  key: string
  channel: string
  kind: string
  person: string
  person_name: string
  person_name_en: string
  verdict: ProofVerdict
  seconds: number | null
  detail: string
  detail_zh: string
}

export interface ProofRun {
  run: number
  point: string
  area: string
  /** Day of the weekly schedule; empty when a person began it. */
  day: string
  by: string
  by_name: Named
  at: string
  result: ProofResult
  seconds?: number | null
  why?: string
  why_zh: string
  steps: ProofStep[]
}

export interface ProofSchedule {
  point: string
  weekly: boolean
  /** 0 is Monday; `hour` and `minute` of the site's clock. */
  weekday: number
  hour: number
  minute: number
  next_day?: string
  refused?: string
  missed_day?: string
  missed?: string
}

export interface Proof {
  running: boolean
  schedule: ProofSchedule | null
  /** The person who asks may begin a test. */
  mine: boolean
  runs: ProofRun[]
}

export interface AlarmEvent {
  seq: number
  kind: string
  at: string | { utc?: string }
  actor: string
  actor_name?: string
  actor_name_en?: string
  reason?: string
  alarm: Alarm
}

export interface UnitStatus {
  device: string
  state: 'ok' | 'fault' | 'breaker'
  why: string
}

/** A way by which people are told. `fault` is empty while it works. */
export interface ChannelStatus {
  id: string
  kind: string
  fault: '' | 'offline' | 'refusing' | 'silent'
  error: string
  error_zh: string
  accepted: number
  delivered: number
  failed: number
  facts: { operator?: string; registration?: string; signal_dbm?: number; signal_bars?: number; left?: number }
}

export interface Status {
  gateway?: string
  time: string
  clock: string
  uptime_s: number
  link: {
    state: 'up' | 'down' | 'off'
    since: string | null
    backlog_records: number
    backlog_segments: number
    /** How many send with this gateway's key; more than one: a clone. */
    machines?: number
    last_ok: string | null
    /** A word of why it is down. */
    reason?: string
    /** While headquarters does not know this gateway. */
    enrolment?: { state: string; code: string; fingerprint: string; left_s: number; error: string } | null
  }
  broker: { state: string; since: string | null }
  buses: { id: string; state: string; units: UnitStatus[] }[]
  deliveries: { pending: number; failing: number }
  channels: ChannelStatus[]
  journal: { seq: number; epoch: string }
  /** Since when the disk takes nothing; null while everything is recorded. */
  not_recorded?: { since: string; why: string; records: number } | null
  /** Null until the gateway has looked. */
  disk?: Disk | null
}

/** What of the gateway's disk is left, and what is fullest. */
export interface Disk {
  level: 'enough' | 'short' | 'refusing'
  about: string
  pct: number
  free_bytes: number
  dropped_segments: number
}

export interface StreamAck {
  epoch: string | null
  ack: number | null
}

export interface Fleet {
  time: string
  cloud?: Named
  sites: FleetSite[]
}

export interface JournalEpoch {
  epoch: string
  /** Number of the newest record that came. */
  records: number
  since: string
  last: string
  /** Empty for the first one. */
  reason: string
  predecessor: string | null
  at: string | null
}

export interface DeclaredGap {
  epoch: string
  first: number
  last: number
  readings: number
  why: string
  from: string | null
  to: string | null
}

export interface WitnessFork {
  epoch: string
  size: number
  at: string
  why: string
}

export interface FleetSite {
  gateway: string
  site: Named & { id: string }
  last_contact: string | null
  contact_age_s: number | null
  state: 'online' | 'late' | 'silent' | 'never'
  version: string | null
  /** `records`: number of the last record received; `newest`: its time. */
  journal: StreamAck & { records: number; newest: string | null }
  /** `newest`: time of the newest reading that charts know. */
  history: StreamAck & { newest: string | null }
  quarantined: number
  witness: { last: { epoch: string; records: number; at: string } | null; forks: WitnessFork[] } | null
  snapshot?: { as_of: string; open: number; seq: number; records_behind: number | null; health: Record<string, unknown> } | null
  open_alarms: (Alarm & { epoch?: string })[]
  /** Two machines send with this gateway's key. */
  cloned?: boolean
  epochs: JournalEpoch[]
  gaps: DeclaredGap[]
  gap_count: number
  gap_readings: number
}

export interface SetAside {
  id: number
  stream: string
  epoch: string
  n: number
  seq: number | null
  at: string
  reason: string
  bytes: number | null
}

/** One site with all that is known of it. */
export interface SiteDetails {
  time: string
  site: FleetSite
  epochs: (JournalEpoch & { alive: boolean })[]
  gaps: DeclaredGap[]
  checkpoints: { epoch: string; records: number; at: string }[]
  quarantine: SetAside[]
  evidence: { count: number; bytes: number; wanted: number; unfinished: number }
}
