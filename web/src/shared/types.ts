/** What the gateway and headquarters say over `/api/v1`: short names for the schemas of their contracts (types.mjs). */

import type { components as cloud } from '../generated/cloud'
import type { components as edge } from '../generated/edge'

type Edge = edge['schemas']
type Cloud = cloud['schemas']

export type Ack = Edge['Ack']
export type Alarm = Edge['Alarm']
export type AlarmEvent = Edge['AlarmEvent']
export type AlarmKind = Edge['AlarmKind']
export type AlarmState = Edge['AlarmState']
export type Area = Edge['Area']
export type Attempt = Edge['Attempt']
export type ChannelStatus = Edge['ChannelStatus']
export type Definition = Edge['Definition']
export type Deliveries = Edge['Deliveries']
export type DeliveryRow = Edge['DeliveryRow']
export type Deviation = Edge['Deviation']
export type Disk = Edge['Disk']
export type Freeze = Edge['Freeze']
export type HistoryPage = Edge['HistoryPage']
export type LadderView = Edge['LadderView']
export type Ladders = Edge['Ladders']
export type Listed = Edge['Listed']
export type Limits = Edge['Limits']
export type Message = Edge['Message']
export type Named = Edge['Named']
export type Numbers = Edge['Numbers']
export type Overlay = Edge['Overlay']
export type Person = Edge['Person']
export type Point = Edge['Point']
export type PointValue = Edge['PointValue']
export type Proof = Edge['Proof']
export type ProofResult = Edge['ProofResult']
export type ProofRun = Edge['ProofRun']
export type ProofSchedule = Edge['ProofSchedule']
export type ProofStep = Edge['ProofStep']
export type ProofVerdict = Edge['ProofVerdict']
export type Quality = Edge['Quality']
export type Role = Edge['Role']
export type Rung = Edge['Rung']
export type Session = Edge['Session']
export type Site = Edge['Site']
export type Statistics = Edge['Statistics']
export type Status = Edge['Status']
export type Subject = Edge['Subject']
export type Trend = Edge['Trend']
export type UnitStatus = Edge['UnitStatus']
export type LimitName = keyof Limits

export type JournalEpoch = Cloud['JournalEpoch']
export type DeclaredGap = Cloud['DeclaredGap']

export interface StreamAck {
  epoch: string | null
  ack: number | null
}

export interface Fleet {
  time: string
  cloud?: Named
  sites: FleetSite[]
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
