import { computed, ref, shallowRef } from 'vue'
import { get } from '../shared/api'
import { setServerTime } from '../shared/clock'
import { openLive, type Live } from '../shared/live'
import { askSession, people } from '../shared/session'
import { showDone } from '../shared/toasts'
import type { Alarm, Person, Point, PointValue, Site, Status } from '../shared/types'
import { fetchAlarms, forgetAlarms, forgetSeq, takeEvent } from './alarms'
import { news } from './news'
import { fetchNotices, forgetNotices } from './notices'
import { fetchTrends, forgetValues, keepValues, takeValues } from './values'

export const site = shallowRef<Site | null>(null)
export const status = shallowRef<Status | null>(null)
export const staff = shallowRef<Map<string, Person>>(new Map())
export const lineState = ref<Live['state']['value']>('connecting')
export const lostSinceMs = ref(0)
export const lost = computed(() => lineState.value === 'lost')
export const points = computed(() => new Map<string, Point>(site.value?.areas.flatMap((area) => area.points.map((p) => [p.id, p]))))

/** So many points that they are looked at by scrolling, each in a small card. */
const MANY = 120
export const dense = computed(() => points.value.size > MANY)

/** `status` comes every 5 s: when even that stays away the line is dead. */
const SILENCE_MS = 15_000
/** The live stream tells what changed; this catches whatever it could not tell. */
const RECONCILE_MS = 15_000
const RETRY_MS = 2000

let live: Live | null = null
let timer = 0
let fetches = 0
let everLost = false

/** Everything anew: after opening the stream the page must not depend on what it missed. */
async function fetchAll(): Promise<void> {
  clearTimeout(timer)
  const mine = ++fetches
  try {
    const [fresh, told] = await Promise.all([get<Site>('/site'), get<{ points: PointValue[] }>('/points'), fetchAlarms(), fetchNotices()])
    if (mine !== fetches) return // asked again meanwhile: that answer is the newer one
    site.value = fresh
    keepValues(new Set(points.value.keys()))
    takeValues(told.points)
    status.value = await get<Status>('/status')
    setServerTime(status.value.time)
    timer = window.setTimeout(reconcile, RECONCILE_MS)
  } catch {
    if (live && mine === fetches) timer = window.setTimeout(fetchAll, RETRY_MS)
  }
}

async function reconcile(): Promise<void> {
  if (!lost.value) {
    const [told] = await Promise.all([get<{ points: PointValue[] }>('/points'), fetchAlarms(), fetchNotices()]).catch(() => [null])
    if (told && live) takeValues(told.points)
  }
  if (live) timer = window.setTimeout(reconcile, RECONCILE_MS)
}

async function opened(): Promise<void> {
  if (everLost) showDone('back')
  everLost = false
  forgetSeq()
  await fetchAll()
  fetchStaff()
  if (site.value) await fetchTrends([...points.value.keys()])
}

function fetchStaff(): void {
  void people().then((list) => (staff.value = new Map(list.map((p) => [p.id, p])))).catch(() => undefined)
}

/** The gateway has another configuration: points and people come and go, and so may this person's roles. */
async function changed(): Promise<void> {
  const before = points.value
  await askSession()
  await fetchAll()
  fetchStaff()
  await fetchTrends([...points.value.keys()].filter((id) => !before.has(id)))
}

/** Begin to follow the gateway; `stop` ends it and forgets what belongs to the session. */
export function start(): void {
  const handlers = {
    hello: (data: unknown) => setServerTime((data as { time: string }).time),
    values: (data: unknown) => takeValues((data as { points: PointValue[] }).points),
    alarm: (data: unknown, event: { lastEventId: string }) => {
      const { kind, alarm } = data as { kind: string; alarm: Alarm }
      takeEvent(Number(event.lastEventId) || 0, kind, alarm)
    },
    status: (data: unknown) => {
      status.value = data as Status
      setServerTime(status.value.time)
    },
    site: () => void changed(),
    ladders: () => {
      news.ladders.value++
      void Promise.all([fetchAlarms(), fetchNotices()]).catch(() => undefined)
    },
    deliveries: () => news.deliveries.value++,
    proof: () => news.proof.value++,
    plans: () => news.plans.value++,
  }
  const onLost = (): void => {
    everLost = true
    lostSinceMs.value = live?.lostSinceMs.value ?? performance.now()
    lineState.value = 'lost'
    void askSession()
  }
  const onOpen = (): void => {
    lineState.value = 'open'
    void opened()
  }
  live = openLive('/api/v1/live', handlers, { silenceMs: SILENCE_MS, onOpen, onLost })
}

export function stop(): void {
  live?.close()
  live = null
  clearTimeout(timer)
  everLost = false
  lineState.value = 'connecting'
  site.value = null
  status.value = null
  forgetValues()
  forgetAlarms()
  forgetNotices()
}
