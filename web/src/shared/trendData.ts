/** Buckets of a point's history as the columns that the chart library draws, and where a zoomed window lies. */
import type { Bucket } from './rangeChart'

export interface TrendColumns {
  /** Seconds since 1970; between runs stands a moment without values, so that no line crosses a gap. */
  times: number[]
  mean: (number | null)[]
  low: (number | null)[]
  high: (number | null)[]
  /** Places of values with nothing on either side: a line alone would not show them. */
  alone: number[]
}

export function columnsOf(runs: Bucket[][], widthMs: number): TrendColumns {
  const columns: TrendColumns = { times: [], mean: [], low: [], high: [], alone: [] }
  const add = (ms: number, mean: number | null, low: number | null, high: number | null): void => {
    columns.times.push(ms / 1000)
    columns.mean.push(mean)
    columns.low.push(low)
    columns.high.push(high)
  }
  for (const run of runs) {
    const first = run[0]
    if (!first) continue
    if (columns.times.length) add(first[0], null, null, null)
    if (run.length === 1) columns.alone.push(columns.times.length)
    for (const [ms, , mean, low, high] of run) add(ms + widthMs / 2, mean, low, high)
  }
  return columns
}

export interface TimeWindow {
  from: number
  to: number
}

const LEAST_MS = 60_000
const MOST_MS = 366 * 86_400_000

/** `factor` < 1 zooms in around `at` (a fraction of the window); never shorter than a minute, never past `nowMs`. */
export function zoomed({ from, to }: TimeWindow, factor: number, at: number, nowMs: number): TimeWindow {
  const span = Math.min(MOST_MS, Math.max(LEAST_MS, (to - from) * factor))
  const centre = from + (to - from) * at
  return kept({ from: centre - span * at, to: centre + span * (1 - at) }, nowMs)
}

/** The window moved by a part of its own length. */
export function moved({ from, to }: TimeWindow, part: number, nowMs: number): TimeWindow {
  const step = (to - from) * part
  return kept({ from: from + step, to: to + step }, nowMs)
}

/** What two ends that were dragged enclose; null when they are too near to each other to mean anything. */
export function dragged(one: number, other: number, nowMs: number): TimeWindow | null {
  const [from, to] = one < other ? [one, other] : [other, one]
  return to - from < LEAST_MS ? null : kept({ from, to }, nowMs)
}

function kept({ from, to }: TimeWindow, nowMs: number): TimeWindow {
  const over = Math.max(0, to - nowMs)
  return { from: Math.floor(from - over), to: Math.floor(to - over) }
}
