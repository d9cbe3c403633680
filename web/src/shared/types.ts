/** What the gateway and headquarters say over `/api/v1`. */

export type Role = string
export type Quality = 'good' | 'uncertain' | 'bad'
export type AlarmState = 'UNACK' | 'ACKED' | 'RTNUN' | 'LATU' | 'LATA' | 'NORM'
export type AlarmKind = 'hihi' | 'hi' | 'lo' | 'lolo' | 'stale' | 'quality'
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
  rev: number
}

export interface AlarmEvent {
  seq: number
  kind: string
  at: string | { utc?: string }
  actor: string
  actor_name?: string
  reason?: string
  alarm: Alarm
}

export interface UnitStatus {
  device: string
  state: 'ok' | 'fault' | 'breaker'
  why: string
}

export interface Status {
  time: string
  clock: string
  uptime_s: number
  link: {
    state: 'up' | 'down' | 'off'
    since: string | null
    backlog_records: number
    backlog_segments: number
    last_ok: string | null
  }
  broker: { state: string; since: string | null }
  buses: { id: string; state: string; units: UnitStatus[] }[]
  deliveries: { pending: number; failing: number }
  journal: { seq: number; epoch: string }
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

export interface FleetSite {
  gateway: string
  site: Named & { id: string }
  last_contact: string | null
  contact_age_s: number | null
  state: 'online' | 'late' | 'silent' | 'never'
  version: string | null
  /** `records`: number of the last record received. */
  journal: StreamAck & { records: number }
  history: StreamAck
  quarantined: number
  open_alarms: Alarm[]
}
