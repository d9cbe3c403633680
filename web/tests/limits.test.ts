import { describe, expect, it } from 'vitest'
import { barRange, limitBar, marker, violated } from '../src/shared/limits'
import type { Limits } from '../src/shared/types'

const point = (limits: Limits, low: number | null = null, high: number | null = null) => ({ limits, low, high })
const HUMIDITY = point({ hi: 75, hihi: 85 }, 0, 100)
const OXYGEN = point({ lo: 19.5, hi: 23.5 }, 0, 30)

describe('range of the bar', () => {
  it('begins at zero and leaves room above when there are upper limits only', () => {
    expect(barRange(point({ hi: 35, hihi: 40 }, -40, 80))).toEqual([0, 46])
    expect(barRange(HUMIDITY)).toEqual([0, 97.75])
  })

  it('stays around the limits when they are on both sides', () => {
    const [low, high] = barRange(OXYGEN)!
    expect(low).toBeCloseTo(18.1)
    expect(high).toBeCloseTo(24.9)
  })

  it('never leaves what the device can measure', () => {
    const [low] = barRange(point({ lo: 0.3, hi: 1, hihi: 1.1 }, 0.1, 1.6))!
    expect(low).toBe(0.1)
  })

  it('leaves room even where the last limit is the end of the device', () => {
    const [low, high] = barRange(point({ hi: 100 }, 0, 100))!
    expect(low).toBe(0)
    expect(high).toBeGreaterThan(100)
  })

  it('is mirrored for lower limits only', () => {
    const [low, high] = barRange(point({ lolo: -40, lo: -35 }, -80, 40))!
    expect(low).toBeCloseTo(-46)
    expect(high).toBeCloseTo(0)
  })

  it('handles an upper limit below zero', () => {
    const [low, high] = barRange(point({ hi: -18 }))!
    expect(low).toBeLessThan(-18)
    expect(high).toBeGreaterThan(-18)
  })

  it('is the device range without limits, and nothing without either', () => {
    expect(barRange(point({}, 0, 10))).toEqual([0, 10])
    expect(limitBar(point({}))).toBeNull()
    expect(limitBar(point({ hi: null }))).toBeNull()
  })
})

describe('zones', () => {
  it.each([
    ['upper', HUMIDITY, ['normal', 'warn', 'severe']],
    ['both', OXYGEN, ['warn', 'normal', 'warn']],
    ['all four', point({ lolo: 1, lo: 2, hi: 8, hihi: 9 }, 0, 10), ['severe', 'warn', 'normal', 'warn', 'severe']],
    ['highest only', point({ hihi: 9 }, 0, 10), ['normal', 'severe']],
    ['lower', point({ lolo: 1, lo: 2 }, 0, 10), ['severe', 'warn', 'normal']],
    ['none', point({}, 0, 10), ['normal']],
  ] as const)('%s', (_, scale, kinds) => {
    const bar = limitBar(scale)!
    expect(bar.zones.map((zone) => zone.kind)).toEqual(kinds)
    expect(bar.zones[0]!.from).toBe(0)
    expect(bar.zones.at(-1)!.to).toBe(1)
    bar.zones.slice(1).forEach((zone, i) => expect(zone.from).toBe(bar.zones[i]!.to))
  })

  it('puts each tick where its zone changes', () => {
    const bar = limitBar(HUMIDITY)!
    expect(bar.ticks.map((tick) => tick.at)).toEqual(bar.zones.slice(1).map((zone) => zone.from))
  })
})

it('keeps the marker on the bar and says on which side the value left it', () => {
  const bar = limitBar(HUMIDITY)!
  expect(marker(bar, 0)).toEqual({ at: 0, beyond: null })
  expect(marker(bar, 99)).toEqual({ at: 1, beyond: 'high' })
  expect(marker(bar, -1)).toEqual({ at: 0, beyond: 'low' })
  expect(marker(bar, 75).at).toBe(bar.ticks[0]!.at)
})

it.each([[50, null], [75, 'hi'], [84.9, 'hi'], [85, 'hihi'], [null, null]] as const)('value %s violates %s', (value, limit) => {
  expect(violated(HUMIDITY.limits, value)).toBe(limit)
})

it('names low limits too', () => {
  const limits = { lolo: 10, lo: 20 }
  expect([9, 10, 15, 20, 21].map((value) => violated(limits, value))).toEqual(['lolo', 'lolo', 'lo', 'lo', null])
})
