import { describe, expect, it } from 'vitest'
import { asQuery, everything, fromQuery, toParameters, type Filter } from '../src/control-room/historyFilter'

const NOW_MS = Date.parse('2026-11-22T12:00:00Z')
const filter = (changes: Partial<Filter>): Filter => ({ ...everything(), ...changes })

describe('the filter of the history', () => {
  it('asks for nothing when nothing is chosen', () => {
    expect(toParameters(everything(), NOW_MS)).toBe('')
    expect(asQuery(everything()).toString()).toBe('')
  })

  it('turns a span into the time that it means now', () => {
    expect(toParameters(filter({ span: 'h24' }), NOW_MS)).toBe(`from=${NOW_MS - 86_400_000}`)
    expect(toParameters(filter({ span: 'd90' }), NOW_MS)).toBe(`from=${NOW_MS - 90 * 86_400_000}`)
  })

  it('takes the times of a custom span alone, as far as they are filled in', () => {
    const times = { from: '2026-11-01T08:00', to: '' }
    expect(toParameters(filter({ span: 'custom', ...times }), NOW_MS)).toBe(`from=${Date.parse('2026-11-01T08:00')}`)
    expect(toParameters(filter({ span: 'any', ...times }), NOW_MS)).toBe('')
  })

  it('keeps everything in the address and finds it there again', () => {
    const chosen = filter({ span: 'd7', area: 'aux_store', priority: '1', text: '湿度 & 50%' })
    expect(fromQuery(new URLSearchParams(asQuery(chosen).toString()))).toEqual(chosen)
    expect(new URLSearchParams(toParameters(chosen, NOW_MS)).get('text')).toBe('湿度 & 50%')
  })

  it('does not believe an address that says nonsense', () => {
    expect(fromQuery(new URLSearchParams('span=never&planet=mars'))).toEqual(everything())
  })
})
