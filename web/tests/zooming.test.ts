import { expect, test } from 'vitest'
import { limited, stepped } from '../src/shared/plan/zooming'

test('buttons take the next step, also from between two of them, and end at the ends', () => {
  expect([1, 1.5, 2.5, 8].map((factor) => stepped(factor, 1))).toEqual([1.5, 2, 3, 8])
  expect([1, 1.5, 2.5, 8].map((factor) => stepped(factor, -1))).toEqual([1, 1, 2, 6])
})

test('nothing is magnified below the whole or above eight times', () => {
  expect([0.2, 3.3, 90].map(limited)).toEqual([1, 3.3, 8])
})
