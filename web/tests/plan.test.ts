import { describe, expect, it } from 'vitest'
import { cornerAdded, cornerMoved, cornerRemoved, labelPlace, newItem, shifted, type PlanItem } from '../src/shared/plan/plan'

const zone: PlanItem = { id: 'z', kind: 'zone', ref: '', name: '', name_en: '', angle: 0, at: [[0.1, 0.1], [0.5, 0.1], [0.5, 0.5]] }

describe('things on a plan', () => {
  it('move as a whole and stay on the picture in one piece', () => {
    expect(shifted(zone, 0.2, 0).at).toEqual([[0.3, 0.1], [0.7, 0.1], [0.7, 0.5]])
    expect(shifted(zone, 9, -9).at).toEqual([[0.6, 0], [1, 0], [1, 0.4]])
  })

  it('have corners that move, come and go, but never too few', () => {
    expect(cornerMoved(zone, 1, 0.9, 0.1).at[1]).toEqual([1, 0.2])
    const more = cornerAdded(zone, 2)
    expect(more.at).toHaveLength(4)
    expect(more.at[3]).toEqual([0.3, 0.3])
    expect(cornerRemoved(more, 3)).toEqual(zone)
    expect(cornerRemoved(zone, 0)).toEqual(zone)
  })

  it('are named by what they show, and each has a name of its own', () => {
    const first = newItem('point', 'a.b.c', { name: '湿度' }, new Set(), [0.5, 0.5])
    expect([first.id, first.at]).toEqual(['a.b.c', [[0.5, 0.5]]])
    expect(newItem('zone', '', { name: '' }, new Set(['zone', 'zone.2']), [0, 0.5]).id).toBe('zone.3')
    expect(newItem('zone', '', { name: '' }, new Set(), [0, 0.5]).at[0]).toEqual([0, 0.42])
  })

  it('carry their label where it is seen', () => {
    expect(labelPlace({ ...zone, at: [[0, 0], [1, 0], [1, 1], [0, 1]] })).toEqual([0.5, 0.5])
    expect(labelPlace({ ...zone, kind: 'fence' })).toEqual([0.5, 0.1])
  })
})
