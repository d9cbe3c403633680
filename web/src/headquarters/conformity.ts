import { shallowRef } from 'vue'
import { get } from '../shared/api'

export interface Sensor {
  type: string
  state: 'ok' | 'missing' | 'silent'
  points: string[]
}
export interface RoomReport {
  area: string
  name: string
  name_en: string
  room: string
  room_en: string
  sensors: Sensor[]
  equipment: { id: string; name: string; name_en: string }[]
}
export interface Report {
  revision: number
  state: 'none' | 'trial' | 'confirmed' | 'refused' | 'rolled_back'
  rooms: RoomReport[]
  missing: number
  silent: number
  tightened: { point: string; key: string; site: number | string | null; now: number | string }[]
  problems: { zh: string; en: string }[]
  no_kind: string[]
}
export interface Conformity {
  revision: number
  made: string | null
  name: string
  name_en: string
  problems: string[]
  sites: { gateway: string; name: string; name_en: string; reported: string | null; report: Report | null }[]
}

export const conformity = shallowRef<Conformity | null>(null)

/** Sites where something is wrong come first. */
export function weight(report: Report | null, newest: number): number {
  if (!report) return 1
  const failed = report.state === 'refused' || report.state === 'rolled_back' ? 1000 : 0
  return failed + report.missing * 10 + report.silent * 5 + report.problems.length + (report.revision < newest ? 1 : 0)
}

export async function fetchConformity(): Promise<void> {
  conformity.value = await get<Conformity>('/conformity').catch(() => conformity.value)
}
