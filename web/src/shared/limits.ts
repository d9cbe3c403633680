import type { LimitName, Limits, Point } from './types'

/** A stretch of the limit bar, in fractions 0..1 of its width. */
export interface Zone {
  kind: 'normal' | 'warn' | 'severe'
  from: number
  to: number
}

export interface LimitBar {
  low: number
  high: number
  zones: Zone[]
  /** Limits as ticks, in fractions 0..1. */
  ticks: { name: LimitName; value: number; at: number }[]
}

export interface Marker {
  at: number
  /** The value lies beyond the bar's end. */
  beyond: 'low' | 'high' | null
}

const ORDER: LimitName[] = ['lolo', 'lo', 'hi', 'hihi']
const LOWER: ReadonlySet<LimitName> = new Set(['lolo', 'lo'])

type Scale = Pick<Point, 'limits' | 'low' | 'high'>

function given(limits: Limits): [LimitName, number][] {
  return ORDER.flatMap((name) => {
    const value = limits[name]
    return value === null || value === undefined ? [] : [[name, value] as [LimitName, number]]
  })
}

/**
 * The stretch of values that the bar shows: around the limits, inside what the device can measure.
 *
 * With limits on one side only, the bar begins (or ends) at zero or at the device's range, whichever is nearer.
 */
export function barRange(point: Scale): [number, number] | null {
  const values = given(point.limits)
  const lowest = values[0]
  const highest = values.at(-1)
  const floor = point.low ?? -Infinity
  const ceiling = point.high ?? Infinity
  if (!lowest || !highest) {
    return Number.isFinite(floor) && Number.isFinite(ceiling) && ceiling > floor ? [floor, ceiling] : null
  }
  const hasLower = LOWER.has(lowest[0])
  const hasUpper = !LOWER.has(highest[0])
  if (hasLower && hasUpper) {
    const pad = Math.max((highest[1] - lowest[1]) * 0.35, Number.EPSILON)
    return [Math.max(floor, lowest[1] - pad), Math.min(ceiling, highest[1] + pad)]
  }
  if (hasUpper) return oneSided(lowest[1], highest[1], floor, ceiling)
  const [low, high] = oneSided(-highest[1], -lowest[1], -ceiling, -floor)
  return [-high, -low]
}

/** Range with upper limits only; mirrored by the caller for lower limits only. */
function oneSided(first: number, last: number, floor: number, ceiling: number): [number, number] {
  const start = first > 0 ? 0 : first - Math.max(Math.abs(first), last - first, 1) * 2
  const low = Math.max(floor, start)
  const high = Math.min(ceiling, last + Math.max((last - low) * 0.15, last - first))
  return high > last ? [low, high] : [low, last + (last - low) * 0.15]
}

const clamp = (value: number): number => Math.min(1, Math.max(0, value))

/** Geometry of the bar that shows where a value lies between its limits; null when there is nothing to show. */
export function limitBar(point: Scale): LimitBar | null {
  const range = barRange(point)
  if (!range || range[1] <= range[0]) return null
  const [low, high] = range
  const at = (value: number): number => clamp((value - low) / (high - low))
  const { lolo, lo, hi, hihi } = Object.fromEntries(given(point.limits)) as Partial<Record<LimitName, number>>
  const edges: [number | undefined, Zone['kind']][] = [
    [lolo, 'severe'],
    [lo, 'warn'],
    [hi ?? hihi ?? high, 'normal'],
    [hi === undefined ? undefined : (hihi ?? high), 'warn'],
    [hihi === undefined ? undefined : high, 'severe'],
  ]
  const zones: Zone[] = []
  let from = 0
  for (const [value, kind] of edges) {
    if (value === undefined) continue
    const to = at(value)
    if (to > from) zones.push({ kind, from, to })
    from = Math.max(from, to)
  }
  return { low, high, zones, ticks: given(point.limits).map(([name, value]) => ({ name, value, at: at(value) })) }
}

/** Where the value sits on the bar. */
export function marker(bar: LimitBar, value: number): Marker {
  const at = (value - bar.low) / (bar.high - bar.low)
  return { at: clamp(at), beyond: at < 0 ? 'low' : at > 1 ? 'high' : null }
}

/** The worst limit that a value violates, or null. */
export function violated(limits: Limits, value: number | null): LimitName | null {
  if (value === null) return null
  const { lolo, lo, hi, hihi } = limits
  if (hihi != null && value >= hihi) return 'hihi'
  if (lolo != null && value <= lolo) return 'lolo'
  if (hi != null && value >= hi) return 'hi'
  if (lo != null && value <= lo) return 'lo'
  return null
}
