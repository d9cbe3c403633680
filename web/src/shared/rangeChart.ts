/** A point over a range of time, in buckets: what gateway and headquarters answer, and how it is drawn. */

/** `worst`: 0 good, 1 uncertain, 2 bad; headquarters sends neither it nor `last`. */
export type Bucket = [ms: number, count: number, mean: number | null, low: number | null, high: number | null, bad: number, last?: number | null, worst?: number]

export interface RangeData {
  from: number
  to: number
  width_ms: number
  buckets: Bucket[]
  /** Segments of the history that are not in it yet. */
  behind?: number
}

const DAY_MS = 86_400_000
export const RANGES = { hour: DAY_MS / 24, day: DAY_MS, week: 7 * DAY_MS, month: 30 * DAY_MS, year: 365 * DAY_MS } as const
export type RangeName = keyof typeof RANGES

export interface Span {
  low: number
  high: number
}

/** Lowest and highest of everything that was measured; null where nothing was. */
export function extremes(buckets: Bucket[]): Span | null {
  let low = Infinity
  let high = -Infinity
  for (const [, , , lowest, highest] of buckets) {
    if (lowest === null || highest === null) continue
    low = Math.min(low, lowest)
    high = Math.max(high, highest)
  }
  return low > high ? null : { low, high }
}

/** The vertical scale: never so narrow that noise looks like an event; limits are on it when the values come near them. */
export function chartScale(span: Span, limits: number[], leastSpan: number): Span {
  const size = Math.max(span.high - span.low, leastSpan, Math.abs(span.high) * 1e-6, 1e-9)
  const middle = (span.low + span.high) / 2
  let low = Math.min(span.low, middle - size / 2)
  let high = Math.max(span.high, middle + size / 2)
  for (const limit of limits) {
    if (limit > high && limit - high < size) high = limit
    if (limit < low && low - limit < size) low = limit
  }
  const room = (high - low) * 0.06
  return { low: low - room, high: high + room }
}

/** Buckets with a value, in runs that nothing interrupts: neither silence longer than `gapMs` nor a bucket of bad readings alone. */
export function runsOf(buckets: Bucket[], gapMs: number): Bucket[][] {
  const runs: Bucket[][] = []
  let before: Bucket | null = null
  for (const bucket of buckets) {
    if (bucket[2] === null) {
      before = null
      continue
    }
    if (before !== null && bucket[0] - before[0] <= gapMs) runs.at(-1)?.push(bucket)
    else runs.push([bucket])
    before = bucket
  }
  return runs
}

/** Round numbers inside a span, about `count` of them. */
export function ticksOf(span: Span, count: number): number[] {
  const rough = (span.high - span.low) / Math.max(1, count)
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = power * ([1, 2, 5, 10].find((one) => one * power >= rough) ?? 10)
  const ticks: number[] = []
  for (let n = Math.ceil(span.low / step); n * step <= span.high; n++) ticks.push(Number((n * step).toPrecision(12)))
  return ticks
}

/** Digits after the point that tell these ticks apart. */
export function tickDigits(ticks: number[]): number {
  return Math.min(6, Math.max(0, ...ticks.map((tick) => (String(tick).split('.')[1] ?? '').length)))
}

const two = (n: number): string => String(n).padStart(2, '0')

/** A time on the axis: with the day where the range is longer than one. */
export function axisTime(ms: number, rangeMs: number): string {
  const at = new Date(ms)
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`
  const day = `${two(at.getMonth() + 1)}-${two(at.getDate())}`
  if (rangeMs <= DAY_MS) return time
  if (rangeMs <= 7 * DAY_MS) return `${day} ${time}`
  return rangeMs <= 60 * DAY_MS ? day : `${at.getFullYear()}-${day}`
}

/** The same in full, for the bucket that somebody points at. */
export function bucketTime(ms: number, widthMs: number): string {
  const at = new Date(ms)
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`
  return widthMs < 60_000 ? `${day} ${time}:${two(at.getSeconds())}` : `${day} ${time}`
}

/** The bucket in which, or nearest to which, `ms` lies. */
export function nearest(buckets: Bucket[], ms: number, widthMs: number): Bucket | null {
  let found: Bucket | null = null
  for (const bucket of buckets) {
    if (found === null || Math.abs(bucket[0] + widthMs / 2 - ms) < Math.abs(found[0] + widthMs / 2 - ms)) found = bucket
  }
  return found
}
