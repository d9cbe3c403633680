import { describe, expect, it } from 'vitest'
import { ackSlots, byUrgency, isUnacknowledged, ownSlot, resetRefusal } from '../src/shared/acks'
import type { Alarm, Person } from '../src/shared/types'

const KEEPER: Person = { id: 'p_li', name: '李', roles: ['keeper'], areas: ['*'] }
const BOTH: Person = { id: 'p_wang', name: '王', roles: ['keeper', 'officer'], areas: ['boiler_room', 'aux_store'] }
const NEITHER: Person = { id: 'p_zhao', name: '赵', roles: ['worker'], areas: ['*'] }

function alarm(changes: Partial<Alarm> = {}): Alarm {
  return {
    id: 'aux_store.th1.humidity.high', point: 'aux_store.th1.humidity', area: 'aux_store', kind: 'hi', state: 'UNACK', priority: 3,
    occurrence: 1, name: '湿度', value: 78, limit: 75, unit: '%RH', raised_at: '2026-11-22T13:00:00.000Z',
    changed_at: '2026-11-22T13:00:00.000Z', count: 1, required_acks: ['keeper', 'officer'], acks: [], rev: 1, ...changes,
  }
}
const given = (role: string, person: string) => ({ role, person, name: person, at: '2026-11-22T13:01:00.000Z' })

describe('which roles may acknowledge', () => {
  it('offers a person the missing roles that are theirs and explains the others', () => {
    expect(ackSlots(alarm(), KEEPER).map((slot) => slot.refusal)).toEqual([null, 'not_your_role'])
    expect(ackSlots(alarm(), NEITHER).map((slot) => slot.refusal)).toEqual(['not_your_role', 'not_your_role'])
    expect(ackSlots(alarm(), null).map((slot) => slot.refusal)).toEqual(['not_your_role', 'not_your_role'])
  })

  it('never offers the second role to whoever gave the first', () => {
    const half = alarm({ acks: [given('keeper', BOTH.id)] })
    expect(ackSlots(half, BOTH).map((slot) => slot.refusal)).toEqual([null, 'distinct_persons'])
    expect(ackSlots(half, BOTH)[0]?.ack?.person).toBe(BOTH.id)
    expect(ownSlot(half, BOTH)).toBeNull()
  })

  it('offers the second role to another person', () => {
    const half = alarm({ acks: [given('keeper', KEEPER.id)] })
    expect(ownSlot(half, BOTH)?.role).toBe('officer')
  })

  it('lets one person give both where the site allows it', () => {
    expect(ownSlot(alarm({ acks: [given('keeper', BOTH.id)], distinct_persons: false }), BOTH)?.role).toBe('officer')
  })

  it('says that the other is awaited after one has acknowledged', () => {
    const half = alarm({ acks: [given('keeper', KEEPER.id)] })
    expect(ackSlots(half, KEEPER).map((slot) => slot.refusal)).toEqual([null, 'waiting'])
  })

  it('needs the area too, for acknowledging and for resetting', () => {
    const elsewhere = alarm({ area: 'sewage_pit' })
    expect(ackSlots(elsewhere, BOTH).map((slot) => slot.refusal)).toEqual(['not_your_area', 'not_your_area'])
    expect(ackSlots(elsewhere, KEEPER).map((slot) => slot.refusal)).toEqual([null, 'not_your_role'])
    expect(ownSlot(elsewhere, BOTH)).toBeNull()
    expect([alarm(), elsewhere].map((one) => resetRefusal(one, BOTH))).toEqual([null, 'not_your_area'])
    expect([KEEPER, null].map((one) => resetRefusal(alarm(), one))).toEqual(['not_your_role', 'not_your_role'])
  })

  it('has one slot for anyone when no role is asked for', () => {
    expect(ownSlot(alarm({ required_acks: [] }), NEITHER)?.role).toBeNull()
  })

  it.each([['UNACK', true], ['RTNUN', true], ['LATU', true], ['ACKED', false], ['LATA', false], ['NORM', false]] as const)(
    'state %s waits for acknowledgement: %s',
    (state, waits) => {
      expect(isUnacknowledged({ state })).toBe(waits)
      expect(ownSlot(alarm({ state }), BOTH) !== null).toBe(waits)
    },
  )
})

it('sorts by acknowledgement, then priority, then the newest', () => {
  const list = [
    alarm({ id: 'acked1', state: 'ACKED', priority: 1 }),
    alarm({ id: 'old3', priority: 3, raised_at: '2026-11-22T12:00:00.000Z' }),
    alarm({ id: 'new3', priority: 3 }),
    alarm({ id: 'unacked2', priority: 2, raised_at: '2026-11-22T11:00:00.000Z' }),
  ]
  expect(list.sort(byUrgency).map(({ id }) => id)).toEqual(['unacked2', 'new3', 'old3', 'acked1'])
})

describe('what lies over an alarm', () => {
  const overlay = { kind: 'shelved', who: 'p_li', why: 'repair', permit: '', one_shot: false, since: '2026-11-22T13:00:00.000Z' } as const

  it('leaves nobody waiting, and puts it last', () => {
    const shelved = alarm({ id: 'a', priority: 1, overlay })
    const acked = alarm({ id: 'b', state: 'ACKED' })
    expect([isUnacknowledged(shelved), isUnacknowledged(alarm())]).toEqual([false, true])
    expect([shelved, acked, alarm({ id: 'c' })].sort(byUrgency).map((one) => one.id)).toEqual(['c', 'b', 'a'])
    expect(ownSlot(shelved, KEEPER)).toBeNull()
  })
})

it('lets a substitute act in the roles and areas of who is away, and there alone', () => {
  const away = { id: 'wang', name: '王', roles: ['officer'], areas: ['store'] }
  const zhao: Person = { id: 'zhao', name: '赵', roles: ['control_room'], areas: ['*'], stands_in_for: [away] }
  const there = { ...alarm(), area: 'store', acks: [], required_acks: ['keeper', 'officer'] } as Alarm
  expect(ackSlots(there, zhao).map((slot) => slot.refusal)).toEqual(['not_your_role', null])
  expect(ackSlots({ ...there, area: 'pit' }, zhao)[1]?.refusal).toBe('not_your_area')
  expect(resetRefusal(there, zhao)).toBeNull()
  expect(resetRefusal(there, { ...zhao, stands_in_for: [] })).toBe('not_your_role')
})
