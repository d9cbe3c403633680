import { computed, ref, shallowRef } from 'vue'
import { get } from '../shared/api'
import { monoMs, setServerTime, utcMs } from '../shared/clock'
import { openLive, type Live } from '../shared/live'
import type { Fleet, FleetSite, Named } from '../shared/types'
import type { Row } from './order'
import { standingOf, wholeAlarm } from './standing'

export const sites = shallowRef<FleetSite[] | null>(null)
/** What this headquarters is called. */
export const cloud = shallowRef<Named | null>(null)
export const refreshedMs = ref(0)
export const lost = ref(false)
export const lostSinceMs = ref(0)
/** Page's monotonic moment of the last answer: ages count on from it. */
export const seenMs = ref(0)

const REFRESH_MS = 10_000
const RETRY_MS = 2000
let live: Live | null = null
let timer = 0
let running = false
let asking = false
let askAgain = false

/** Seconds since a gateway was heard of, counted on since the last answer; null: it never was. */
export const contactS = (site: FleetSite): number | null =>
  site.contact_age_s === null ? null : site.contact_age_s + Math.max(0, monoMs.value - seenMs.value) / 1000

/** Every site and how it stands now. */
export const rows = computed<Row[]>(() => (sites.value ?? []).map((site) => ({ site, standing: standingOf(site, contactS(site), utcMs.value) })))

/** One answer of the server at a time; a change that comes meanwhile asks once more. */
export async function refresh(): Promise<void> {
  if (asking) {
    askAgain = true
    return
  }
  asking = true
  clearTimeout(timer)
  try {
    const answer = await get<Fleet>('/sites')
    if (!running) return
    setServerTime(answer.time)
    sites.value = answer.sites.map((site) => ({ ...site, open_alarms: site.open_alarms.map(wholeAlarm) }))
    cloud.value = answer.cloud ?? null
    seenMs.value = performance.now()
    refreshedMs.value = utcMs.value
    lost.value = false
  } catch {
    if (!lost.value) lostSinceMs.value = performance.now()
    lost.value = true
  } finally {
    asking = false
    const again = askAgain
    askAgain = false
    if (again) void refresh()
    else if (running) timer = window.setTimeout(refresh, lost.value ? RETRY_MS : REFRESH_MS)
  }
}

export function start(): void {
  running = true
  lost.value = false
  // The server is quiet while nothing changes; whether it answers at all is told by the regular refresh.
  live = openLive('/api/v1/live', { changed: () => void refresh() }, { silenceMs: 0, onOpen: () => void refresh(), onLost: () => undefined })
  void refresh()
}

export function stop(): void {
  running = false
  live?.close()
  live = null
  clearTimeout(timer)
  sites.value = null
  cloud.value = null
}
