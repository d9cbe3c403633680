import { expect, it } from 'vitest'
import { mayShelve, mayUncover, minutesFor } from '../src/control-room/covers'
import type { Alarm, Overlay, Person } from '../src/shared/types'

const alarm = (fields: Partial<Alarm>): Alarm => ({ area: 'pit', overlay: null, ...fields }) as Alarm
const person = (role: string): Person => ({ id: role, name: role, roles: [role], areas: ['*'] })

it('offers to shelve what protects lives to an officer alone, for half an hour at most', () => {
  const gas = alarm({ life_safety: true })
  expect(['keeper', 'officer', 'control_room'].filter((role) => mayShelve(gas, person(role)))).toEqual(['officer'])
  expect(minutesFor(gas)).toEqual([15, 30])
})

it('offers other alarms to keeper, officer and control room, for up to eight hours', () => {
  expect(['keeper', 'officer', 'control_room', 'it'].filter((role) => mayShelve(alarm({}), person(role)))).toEqual(['keeper', 'officer', 'control_room'])
  expect(minutesFor(alarm({})).at(-1)).toBe(480)
})

it('lets a keeper end the shelf of an alarm that protects lives', () => {
  const gas = alarm({ life_safety: true, overlay: { kind: 'shelved' } as Overlay })
  expect(mayUncover(gas, person('keeper'))).toBe(true)
})
