import { describe, expect, it } from 'vitest'
import { axisTime, chartScale, extremes, nearest, runsOf, tickDigits, ticksOf, type Bucket } from '../src/shared/rangeChart'

const bucket = (ms: number, mean: number | null, bad = 0): Bucket => [ms, mean === null ? 0 : 1, mean, mean === null ? null : mean - 1, mean === null ? null : mean + 1, bad]

describe('a chart of a range', () => {
  it('draws nothing across silence and across buckets in which everything was bad', () => {
    const runs = runsOf([bucket(0, 1), bucket(10, 2), bucket(20, null, 3), bucket(30, 4), bucket(60, 5)], 15)
    expect(runs.map((run) => run.map(([ms]) => ms))).toEqual([[0, 10], [30], [60]])
  })

  it('spans lows and highs, not means, and knows when there was nothing', () => {
    expect(extremes([bucket(0, 10), bucket(1, 20), bucket(2, null)])).toEqual({ low: 9, high: 21 })
    expect(extremes([bucket(0, null, 1)])).toBeNull()
  })

  it('shows a limit that the values come near, and is not stretched by one that is far away', () => {
    const span = { low: 50, high: 60 }
    expect(chartScale(span, [65], 0).high).toBeGreaterThan(65)
    expect(chartScale(span, [200], 0).high).toBeLessThan(62)
    expect(chartScale(span, [45], 0).low).toBeLessThan(45)
  })

  it('does not make an event of noise, and survives a value that never moves', () => {
    const noisy = chartScale({ low: 20, high: 20.1 }, [], 10)
    expect(noisy.high - noisy.low).toBeGreaterThan(10)
    const flat = chartScale({ low: 0, high: 0 }, [], 0)
    expect(flat.high).toBeGreaterThan(flat.low)
  })

  it('has round numbers on its axis', () => {
    expect(ticksOf({ low: 0.03, high: 0.97 }, 5)).toEqual([0.2, 0.4, 0.6, 0.8])
    expect(ticksOf({ low: -130, high: 420 }, 5)).toEqual([0, 200, 400])
    expect(tickDigits([0.2, 0.25])).toBe(2)
    expect(tickDigits([])).toBe(0)
  })

  it('finds the bucket that is pointed at by its middle', () => {
    const all = [bucket(0, 1), bucket(100, 2)]
    expect(nearest(all, 90, 10)?.[0]).toBe(100)
    expect(nearest(all, 20, 10)?.[0]).toBe(0)
    expect(nearest([], 20, 10)).toBeNull()
  })

  it('writes the day where a range is longer than one', () => {
    const ms = new Date(2026, 10, 3, 4, 5).getTime()
    expect(axisTime(ms, 3_600_000)).toBe('04:05')
    expect(axisTime(ms, 7 * 86_400_000)).toBe('11-03 04:05')
    expect(axisTime(ms, 365 * 86_400_000)).toBe('2026-11-03')
  })
})
