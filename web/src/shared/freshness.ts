import type { Point, PointValue } from './types'

/** What a page may say of a value: silence is never shown as a good value. */
export type Freshness = 'live' | 'uncertain' | 'stale' | 'bad' | 'none'

/** A value with the moment (page's monotonic clock) at which its age was told. */
export interface SeenValue extends PointValue {
  seenMs: number
}

/** Seconds since the value was measured, by the gateway's age and this page's own monotonic clock. */
export function ageS(value: Pick<SeenValue, 'age_s' | 'seenMs'>, nowMs: number): number {
  return Math.max(0, value.age_s + (nowMs - value.seenMs) / 1000)
}

/** Staleness wins over quality: an old good value is not good any more. */
export function freshness(point: Pick<Point, 'stale_s'>, value: SeenValue | undefined, nowMs: number): Freshness {
  if (!value || (value.v === null && !value.ts)) return 'none'
  if (value.q === 'bad' || value.v === null) return 'bad'
  if (ageS(value, nowMs) > point.stale_s) return 'stale'
  return value.q === 'uncertain' ? 'uncertain' : 'live'
}
