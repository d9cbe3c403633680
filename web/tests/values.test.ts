import { describe, expect, it } from 'vitest'
import { ageParts, clockText, counter, limitText, plainText, valueText } from '../src/shared/format'
import { ageS, freshness, type SeenValue } from '../src/shared/freshness'
import { addSample, BUCKET_MS, outside, trendFrom, trendPath, trendScale, type Sample } from '../src/shared/trend'

describe('ages', () => {
  it.each([
    [-3, [[0, 's']]],
    [59.9, [[59, 's']]],
    [60, [[1, 'm']]],
    [75, [[1, 'm'], [15, 's']]],
    [3600, [[1, 'h']]],
    [3725, [[1, 'h'], [2, 'm']]],
    [86_400 * 7, [[7, 'd']]],
    [86_400 + 7200, [[1, 'd'], [2, 'h']]],
    [Number.NaN, [[0, 's']]],
  ])('%s s', (seconds, parts) => expect(ageParts(seconds)).toEqual(parts))

  it.each([[0, '00:00'], [83, '01:23'], [3725, '1:02:05'], [90_061, '1:01:01:01']])('counts %s s as %s', (seconds, text) =>
    expect(counter(seconds)).toBe(text),
  )
})

it('writes values with their decimals and limits without idle zeros', () => {
  expect(valueText(58.3, 1)).toBe('58.3')
  expect(valueText(0.35, 3)).toBe('0.350')
  expect(valueText(null, 1)).toBe('–')
  expect(valueText(Number.NaN, 1)).toBe('–')
  expect(limitText(0.5)).toBe('0.5')
  expect(limitText(null)).toBe('–')
  expect([plainText(82, '%RH'), plainText(0.455, 'MPa'), plainText(1250, 'ppm'), plainText(null, '')]).toEqual(['82.0', '0.455', '1250', '–'])
})

it('shows the date when it is not today', () => {
  const now = new Date(2026, 10, 22, 13, 6, 31).getTime()
  expect(clockText(now, now)).toBe('13:06:31')
  expect(clockText(now - 86_400_000, now)).toBe('11-21 13:06:31')
  expect(clockText(null, now)).toBe('–')
})

describe('freshness', () => {
  const POINT = { stale_s: 60 }
  const seen = (changes: Partial<SeenValue> = {}): SeenValue => ({
    id: 'a.b.c', v: 1, q: 'good', why: '', ts: '2026-11-22T13:00:00.000Z', age_s: 2, seenMs: 1000, ...changes,
  })

  it('counts on from the age that the gateway told', () => expect(ageS(seen(), 11_000)).toBe(12))

  it.each([
    ['live', seen(), 1000],
    ['live', seen(), 59_000],
    ['stale', seen(), 59_001],
    ['stale', seen({ age_s: 61 }), 1000],
    ['stale', seen({ q: 'uncertain' }), 90_000],
    ['uncertain', seen({ q: 'uncertain' }), 1000],
    ['bad', seen({ q: 'bad', v: null }), 1000],
    ['bad', seen({ q: 'bad' }), 1000],
    ['bad', seen({ v: null }), 1000],
    ['none', seen({ v: null, ts: '' }), 1000],
    ['none', undefined, 1000],
  ] as const)('%s', (expected, value, now) => expect(freshness(POINT, value, now)).toBe(expected))
})

describe('trend', () => {
  it('keeps the newest sample of a bucket and half an hour in all', () => {
    const samples: Sample[] = []
    expect(addSample(samples, 0, 1)).toBe(true)
    expect(addSample(samples, 900, 2)).toBe(false)
    expect(addSample(samples, 100, 9)).toBe(false)
    expect(samples).toEqual([[900, 2]])
    for (let i = 1; i < 500; i++) addSample(samples, i * BUCKET_MS, i)
    expect(samples.length).toBe(180)
    expect(samples.at(-1)).toEqual([499 * BUCKET_MS, 499])
  })

  it.each([[5, false], [2, false], [1.9, true], [9.1, true], [null, false]])('sees at once that %s leaves the range: %s', (value, leaves) =>
    expect(outside([[0, 2], [1, null], [2, 9]], value)).toBe(leaves),
  )

  it('never widens noise beyond the least span', () => {
    expect(trendScale([[0, 10], [1, 10.2]], 4)).toEqual({ low: 10.1 - 2.4, high: 10.1 + 2.4 })
    expect(trendScale([[0, null]], 4)).toBeNull()
  })

  it('begins with its first sample, between three and thirty minutes ago', () => {
    const minute = 60_000
    expect(trendFrom([[0, 1], [10 * minute, 2]])).toBe(0)
    expect(trendFrom([[0, 1], [50 * minute, 2]])).toBe(20 * minute)
    expect(trendFrom([[9 * minute, 1], [10 * minute, 2]])).toBe(7 * minute)
  })

  it('draws a gap for a missing value and for a silence', () => {
    const view = { fromMs: 0, toMs: 100, width: 100, height: 10 }
    const path = trendPath([[0, 0], [10, 10], [20, null], [30, 5], [90, 5]], { low: 0, high: 10 }, view, 20)
    expect(path).toBe('M0.0 10.0L10.0 0.0M30.0 5.0M90.0 5.0')
  })
})
