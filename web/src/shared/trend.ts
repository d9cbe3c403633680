/** A short trend: one sample per bucket, so that a card costs the same however fast its point is polled. */
export type Sample = [utcMs: number, value: number | null]

export const TREND_MINUTES = 30
const LEAST_MINUTES = 3
export const BUCKET_MS = 10_000
const KEEP = (TREND_MINUTES * 60_000) / BUCKET_MS

/** Put a sample into its bucket; the newest of a bucket stays. Returns whether a bucket was begun. */
export function addSample(samples: Sample[], utcMs: number, value: number | null): boolean {
  const last = samples.at(-1)
  const bucket = Math.floor(utcMs / BUCKET_MS)
  if (last && Math.floor(last[0] / BUCKET_MS) >= bucket) {
    if (utcMs >= last[0]) samples[samples.length - 1] = [utcMs, value]
    return false
  }
  samples.push([utcMs, value])
  if (samples.length > KEEP) samples.splice(0, samples.length - KEEP)
  return true
}

/** Whether a value lies outside everything that the trend has seen: worth drawing at once. */
export function outside(samples: Sample[], value: number | null): boolean {
  return value !== null && samples.every(([, seen]) => seen === null || seen < value) !== samples.every(([, seen]) => seen === null || seen > value)
}

export interface Scale {
  low: number
  high: number
}

/** The vertical scale of a trend: its own values, but never so narrow that noise looks like an event. */
export function trendScale(samples: Sample[], minSpan: number): Scale | null {
  let low = Infinity
  let high = -Infinity
  for (const [, value] of samples) {
    if (value === null) continue
    low = Math.min(low, value)
    high = Math.max(high, value)
  }
  if (low > high) return null
  const span = Math.max(high - low, minSpan, Number.EPSILON)
  const middle = (low + high) / 2
  return { low: middle - span * 0.6, high: middle + span * 0.6 }
}

/** Where a short trend begins: with its first sample, but half an hour ago at the earliest and a few minutes at the latest. */
export function trendFrom(samples: Sample[]): number {
  const toMs = samples.at(-1)?.[0] ?? 0
  const firstMs = samples[0]?.[0] ?? toMs
  return Math.max(toMs - TREND_MINUTES * 60_000, Math.min(firstMs, toMs - LEAST_MINUTES * 60_000))
}

export interface Window {
  fromMs: number
  toMs: number
  width: number
  height: number
}

/** An SVG path of the samples; a missing value or a long silence leaves a gap, never a line across it. */
export function trendPath(samples: Sample[], scale: Scale, view: Window, gapMs: number): string {
  const x = (utc: number): number => ((utc - view.fromMs) / (view.toMs - view.fromMs)) * view.width
  const y = (value: number): number => (1 - (value - scale.low) / (scale.high - scale.low)) * view.height
  const parts: string[] = []
  let before: number | null = null
  for (const [utc, value] of samples) {
    if (value === null) {
      before = null
      continue
    }
    if (utc < view.fromMs) continue
    const joined = before !== null && utc - before <= gapMs
    parts.push(`${joined ? 'L' : 'M'}${x(utc).toFixed(1)} ${y(value).toFixed(1)}`)
    before = utc
  }
  return parts.join('')
}
