import { expect, it } from 'vitest'
import type { Line, LineEnds } from '../src/shared/line'
import { Sharing, type Told } from '../src/shared/sharing'

const lines: { path: string; ends: LineEnds; closed: boolean }[] = []
let nowMs = 0

function open(path: string, _names: readonly string[], _silenceMs: number, ends: LineEnds): Line {
  const line = { path, ends, closed: false }
  lines.push(line)
  return { close: () => (line.closed = true) }
}

function page(): { told: Told[]; postMessage(told: Told): void } {
  const told: Told[] = []
  return { told, postMessage: (message) => told.push(message) }
}

const join = { kind: 'join', path: '/live', names: ['values'], silenceMs: 0 } as const

it('opens one stream for all tabs, tells each of them, and ends it with the last', () => {
  lines.length = 0
  const sharing = new Sharing(open, () => nowMs)
  const [one, two] = [page(), page()]
  sharing.take(one, { ...join, names: [...join.names] })
  lines[0]?.ends.onOpen()
  sharing.take(two, { ...join, names: [...join.names] })
  expect(lines).toHaveLength(1)
  expect(two.told).toEqual([{ kind: 'joined' }, { kind: 'open' }])
  lines[0]?.ends.onEvent('values', '{}', '7')
  expect(one.told.at(-1)).toEqual({ kind: 'event', name: 'values', text: '{}', id: '7' })
  expect(two.told.at(-1)).toEqual({ kind: 'event', name: 'values', text: '{}', id: '7' })
  sharing.take(one, { kind: 'bye' })
  expect(lines[0]?.closed).toBe(false)
  sharing.take(two, { kind: 'bye' })
  expect(lines[0]?.closed).toBe(true)
})

it('says to a tab that joins a lost stream that it is lost, and not twice that it joined', () => {
  lines.length = 0
  const sharing = new Sharing(open, () => nowMs)
  const [one, two] = [page(), page()]
  sharing.take(one, { ...join, names: [...join.names] })
  lines[0]?.ends.onLost()
  sharing.take(two, { ...join, names: [...join.names] })
  sharing.take(two, { ...join, names: [...join.names] })
  expect(two.told).toEqual([{ kind: 'joined' }, { kind: 'lost' }, { kind: 'joined' }])
})

it('forgets a tab that crashed, and takes it in again when it was only asleep', () => {
  lines.length = 0
  nowMs = 0
  const sharing = new Sharing(open, () => nowMs)
  const [one, two] = [page(), page()]
  sharing.take(one, { ...join, names: [...join.names] })
  sharing.take(two, { ...join, names: [...join.names] })
  lines[0]?.ends.onOpen()
  nowMs = 100_000
  sharing.take(one, { ...join, names: [...join.names] })
  nowMs = 200_000
  sharing.forgetGone()
  two.told.length = 0
  lines[0]?.ends.onEvent('values', '{}', '')
  expect(two.told).toEqual([])
  sharing.take(two, { ...join, names: [...join.names] })
  expect(two.told).toEqual([{ kind: 'joined' }, { kind: 'open' }])
  nowMs = 900_000
  sharing.forgetGone()
  expect(lines[0]?.closed).toBe(true)
})
