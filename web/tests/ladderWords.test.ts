import { expect, it } from 'vitest'
import { added } from '../src/control-room/ladderKinds'

it('says of a rung what this site has: no SMS where there is no modem', () => {
  const rung = { add: ['sms', 'mail', 'siren', '*'] }
  expect(added(rung, new Set(['wecom', 'mail']))).toEqual(['mail', 'siren', '*'])
  expect(added(rung, null)).toEqual(rung.add)
})
