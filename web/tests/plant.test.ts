import { afterEach, expect, it, vi } from 'vitest'

vi.mock('../src/shared/sound', () => ({ updateHorn: () => undefined }))
vi.mock('../src/shared/toasts', () => ({ showDone: () => undefined, showError: () => undefined }))

const listeners = new Map<string, (event: { data: string; lastEventId: string }) => void>()
let pointIds = ['store.th1.humidity', 'store.th2.humidity']
let asked: string[] = []

class Source {
  static readonly CLOSED = 2
  onopen: (() => void) | null = null
  onerror: (() => void) | null = null
  addEventListener(name: string, listen: (event: { data: string; lastEventId: string }) => void): void {
    listeners.set(name, listen)
  }
  close(): void {}
}

const point = (id: string): object => ({ id, name: id, name_en: id, unit: '%RH', decimals: 1, stale_s: 60, limits: {} })
const value = (id: string): object => ({ id, v: 58, q: 'good', why: '', ts: '2026-11-22T13:00:00.000Z', age_s: 1 })

function answer(path: string): unknown {
  if (path === '/site') return { site: {}, gateway: {}, areas: [{ id: 'store', points: pointIds.map(point) }] }
  if (path === '/points') return { points: pointIds.map(value) }
  if (path === '/alarms') return { alarms: [], seq: 0 }
  if (path === '/notices') return { notices: [] }
  if (path === '/people') return [{ id: 'li', name: '李', name_en: 'Li', roles: [] }]
  if (path === '/session') return { person: { id: 'li', roles: ['keeper'], areas: [] }, csrf: 'x' }
  if (path.includes('/trend')) return { samples: [[1, 58]] }
  return { time: '2026-11-22T13:00:00.000Z' }
}

afterEach(() => vi.unstubAllGlobals())

it('follows another configuration: what was taken out is forgotten, what is new is fetched', async () => {
  vi.stubGlobal('window', globalThis)
  vi.stubGlobal('EventSource', Source)
  vi.stubGlobal('fetch', (url: string) => {
    const path = url.replace('/api/v1', '')
    asked.push(path)
    return Promise.resolve(new Response(JSON.stringify(answer(path))))
  })
  const plant = await import('../src/control-room/plant')
  const { trends, values } = await import('../src/control-room/values')
  const session = await import('../src/shared/session')
  plant.start()
  listeners.get('hello')?.({ data: JSON.stringify({ time: '2026-11-22T13:00:00.000Z' }), lastEventId: '' })
  await vi.waitFor(() => expect([...trends.keys()].sort()).toEqual(pointIds))
  asked = []
  pointIds = ['store.th1.humidity', 'store.th3.humidity']
  listeners.get('site')?.({ data: '{"revision":"r2"}', lastEventId: '' })
  await vi.waitFor(() => expect(asked).toContain('/points/store.th3.humidity/trend?minutes=30'))
  await vi.waitFor(() => expect([...trends.keys()].sort()).toEqual(pointIds))
  expect([...values.keys()].sort()).toEqual(pointIds)
  expect([...plant.points.value.keys()]).toEqual(pointIds)
  expect(asked).not.toContain('/points/store.th1.humidity/trend?minutes=30')
  expect(session.person.value?.roles).toEqual(['keeper'])
  await vi.waitFor(() => expect(plant.staff.value.size).toBe(1))
  plant.stop()
})
