import { describe, expect, it } from 'vitest'
import type { Bucket } from '../src/shared/rangeChart'
import { columnsOf, dragged, moved, zoomed } from '../src/shared/trendData'

const HOUR = 3_600_000
const NOW = 100 * HOUR
const bucket = (ms: number, mean: number): Bucket => [ms, 1, mean, mean - 1, mean + 1, 0]

describe('columns', () => {
  it('leave a gap between runs and know what stands alone', () => {
    const columns = columnsOf([[bucket(0, 5), bucket(1000, 6)], [bucket(60_000, 7)]], 1000)
    expect(columns.times).toEqual([0.5, 1.5, 60, 60.5])
    expect(columns.mean).toEqual([5, 6, null, 7])
    expect(columns.high).toEqual([6, 7, null, 8])
    expect(columns.alone).toEqual([3])
  })
})

describe('a window', () => {
  const window = { from: 90 * HOUR, to: 94 * HOUR }

  it('zooms around the place that is pointed at', () => {
    expect(zoomed(window, 0.5, 0.25, NOW)).toEqual({ from: 90.5 * HOUR, to: 92.5 * HOUR })
    expect(zoomed(window, 1e-9, 0.5, NOW).to - zoomed(window, 1e-9, 0.5, NOW).from).toBe(60_000)
  })

  it('never goes past now', () => {
    expect(zoomed(window, 4, 0.5, NOW)).toEqual({ from: 84 * HOUR, to: NOW })
    expect(moved(window, 2, NOW)).toEqual({ from: 96 * HOUR, to: NOW })
    expect(moved(window, -1, NOW)).toEqual({ from: 86 * HOUR, to: 90 * HOUR })
  })

  it('is what was dragged in either direction, and nothing for a click', () => {
    expect(dragged(92 * HOUR, 91 * HOUR, NOW)).toEqual({ from: 91 * HOUR, to: 92 * HOUR })
    expect(dragged(92 * HOUR, 92 * HOUR + 10, NOW)).toBeNull()
  })
})
