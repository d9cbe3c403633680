import type { FleetSite } from '../shared/types'
import { urgency, type Standing } from './standing'

export const SORTS = ['urgency', 'name', 'contact', 'lag', 'backlog', 'clock', 'disk', 'alarms', 'quarantine', 'version'] as const
export type Sort = (typeof SORTS)[number]
export const WHICH = ['all', 'trouble', 'alarms', 'away'] as const
export type Which = (typeof WHICH)[number]
export interface Row {
  site: FleetSite
  standing: Standing
}

/** Worst first; what nobody knows comes behind what is known. */
const KEYS: Record<Exclude<Sort, 'urgency' | 'name' | 'version'>, (row: Row) => number | null> = {
  contact: ({ standing }) => standing.contactS,
  lag: ({ standing }) => standing.lagS ?? standing.recordS,
  backlog: ({ standing }) => standing.backlogBytes,
  clock: ({ standing }) => (standing.clockOffsetS === null ? null : Math.abs(standing.clockOffsetS)),
  disk: ({ standing }) => (standing.disk ? Math.max(...standing.disk.map((share) => share.pct)) : standing.diskPct),
  alarms: ({ site }) => site.open_alarms.length,
  quarantine: ({ site }) => site.quarantined,
}

function byNumbers(a: number[], b: number[]): number {
  const at = a.findIndex((value, index) => value !== b[index])
  return at < 0 ? 0 : b[at]! - a[at]!
}

function compare(a: Row, b: Row, sort: Sort): number {
  if (sort === 'urgency') return byNumbers(urgency(a.site, a.standing), urgency(b.site, b.standing))
  if (sort === 'name') return 0
  if (sort === 'version') return (a.site.version ?? '').localeCompare(b.site.version ?? '', 'en', { numeric: true })
  return (KEYS[sort](b) ?? -1) - (KEYS[sort](a) ?? -1)
}

/** Sorted; equal ones by the name of their gateway. `turned`: the other way round. */
export function sortRows(rows: readonly Row[], sort: Sort, turned = false): Row[] {
  const way = turned ? -1 : 1
  return [...rows].sort((a, b) => way * compare(a, b, sort) || (sort === 'name' ? way : 1) * a.site.gateway.localeCompare(b.site.gateway, 'en', { numeric: true }))
}

export function filterRows(rows: readonly Row[], text: string, which: Which): Row[] {
  const words = text.trim().toLowerCase().split(/\s+/).filter(Boolean)
  return rows.filter(({ site, standing }) => {
    const said = `${site.gateway} ${site.site.name} ${site.site.name_en ?? ''}`.toLowerCase()
    if (!words.every((word) => said.includes(word))) return false
    if (which === 'trouble') return standing.troubles.length > 0 || site.open_alarms.length > 0
    if (which === 'alarms') return site.open_alarms.length > 0
    return which === 'all' || site.state !== 'online'
  })
}
