import { shallowReactive } from 'vue'
import { get } from '../shared/api'
import type { SeenValue } from '../shared/freshness'
import { addSample, outside, TREND_MINUTES, type Sample } from '../shared/trend'
import type { PointValue, Trend } from '../shared/types'

/** The newest value of each point, and its short trend. */
export const values = shallowReactive(new Map<string, SeenValue>())
export const trends = new Map<string, Sample[]>()
/** Counts up when a trend has a new bucket: what a sparkline draws from. */
export const trendRevision = shallowReactive(new Map<string, number>())

const FETCHES_AT_ONCE = 4

function touch(id: string): void {
  trendRevision.set(id, (trendRevision.get(id) ?? 0) + 1)
}

export function takeValues(points: PointValue[]): void {
  const seenMs = performance.now()
  for (const point of points) {
    values.set(point.id, { ...point, seenMs })
    const utc = Date.parse(point.ts)
    if (Number.isNaN(utc)) continue
    let samples = trends.get(point.id)
    if (!samples) trends.set(point.id, (samples = []))
    const value = point.q === 'bad' ? null : point.v
    const news = outside(samples, value)
    if (addSample(samples, utc, value) || news) touch(point.id)
  }
}

async function fetchTrend(id: string): Promise<void> {
  const trend = await get<Trend>(`/points/${encodeURIComponent(id)}/trend?minutes=${TREND_MINUTES}`)
  const samples: Sample[] = []
  for (const [utc, value] of trend.samples) addSample(samples, utc, value)
  // What arrived live while the answer was under way is newer.
  for (const [utc, value] of trends.get(id) ?? []) if (utc > (samples.at(-1)?.[0] ?? 0)) addSample(samples, utc, value)
  trends.set(id, samples)
  touch(id)
}

/** Fill the trends from the gateway's history; a trend that fails is simply filled by live values. */
export async function fetchTrends(ids: string[]): Promise<void> {
  const queue = [...ids]
  const worker = async (): Promise<void> => {
    for (let id = queue.shift(); id !== undefined; id = queue.shift()) await fetchTrend(id).catch(() => undefined)
  }
  await Promise.all(Array.from({ length: FETCHES_AT_ONCE }, worker))
}

/** Forget every other point: a device that was taken out leaves nothing on the page. */
export function keepValues(ids: ReadonlySet<string>): void {
  for (const known of [values, trends, trendRevision]) {
    for (const id of [...known.keys()]) if (!ids.has(id)) known.delete(id)
  }
}

export function forgetValues(): void {
  values.clear()
  trends.clear()
  trendRevision.clear()
}
