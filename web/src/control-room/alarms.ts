import { computed, ref, shallowRef } from 'vue'
import { byUrgency, isUnacknowledged, ownSlot, type AckSlot } from '../shared/acks'
import { get, post } from '../shared/api'
import { person, standInFor } from '../shared/session'
import { silence as silencePage, updateHorn } from '../shared/sound'
import { showDone, showError } from '../shared/toasts'
import type { Alarm, AlarmEvent, Person } from '../shared/types'
import { coveredAtRest, uncover } from './covers'
import { news } from './news'

/** The open alarms, most urgent first. */
export const alarms = shallowRef<Alarm[]>([])
export const unacknowledged = computed(() => alarms.value.filter(isUnacknowledged))
export const alarmOfPoint = computed(() => {
  const worst = new Map<string, Alarm>()
  for (const alarm of alarms.value) if (!worst.has(alarm.point)) worst.set(alarm.point, alarm)
  return worst
})

/** Acknowledgements under way, so that a second click does nothing. */
export const busy = ref(new Set<string>())

export const history = shallowRef<AlarmEvent[] | null>(null)
export const historyEnds = ref(false)

/** This page's horn and what sounds in the plant where the person answers for it; nothing sounding there is no error. */
export function silence(): void {
  silencePage()
  if (person.value) post('/silence', {}).catch(() => undefined)
}

const PAGE = 50
let seenSeq = 0

/** Replace everything by what the gateway says now; asks again when a live event has overtaken the answer. */
export async function fetchAlarms(tries = 3): Promise<void> {
  const answer = await get<{ alarms: Alarm[]; covered: Alarm[]; seq: number; stands_in_for: Person[] }>('/alarms')
  if (answer.seq < seenSeq && tries > 1) return fetchAlarms(tries - 1)
  seenSeq = answer.seq
  standInFor(answer.stands_in_for)
  alarms.value = answer.alarms.filter((alarm) => alarm.state !== 'NORM').sort(byUrgency)
  coveredAtRest.value = answer.covered ?? []
  updateHorn(alarms.value)
}

/** One alarm's newest object; an older revision than the one on the page changes nothing. */
export function takeAlarm(told: Alarm, kind = ''): void {
  const known = [...alarms.value, ...coveredAtRest.value].find((other) => other.id === told.id)
  if (known && known.rev > told.rev) return
  const same = known?.occurrence === told.occurrence
  const alarm = told.ladder === undefined && same ? { ...told, ladder: known?.ladder ?? null } : told
  const others = alarms.value.filter((other) => other.id !== alarm.id)
  const atRest = coveredAtRest.value.filter((other) => other.id !== alarm.id)
  alarms.value = (alarm.state === 'NORM' ? others : [...others, alarm]).sort(byUrgency)
  coveredAtRest.value = alarm.state === 'NORM' && alarm.overlay ? [alarm, ...atRest] : atRest
  updateHorn(alarms.value, { kind, alarm })
}

/** A committed record of the gateway; replayed ones that the page has already are dropped. */
export function takeEvent(seq: number, kind: string, alarm: Alarm): void {
  if (seq > 0 && seq <= seenSeq) return
  seenSeq = Math.max(seenSeq, seq)
  takeAlarm(alarm, kind)
  news.alarms.value++
  if (history.value) void fetchHistory().catch(() => undefined)
}

/** The gateway may have come back with a new journal, whose numbers begin again. */
export function forgetSeq(): void {
  seenSeq = 0
}

export function forgetAlarms(): void {
  forgetSeq()
  alarms.value = []
  coveredAtRest.value = []
  history.value = null
  updateHorn([])
}

export const slotKey = (alarm: Alarm, slot: AckSlot): string => `${alarm.id}#${slot.role ?? 'any'}`

/** One command at a time for each key; true when it was done. */
export async function command(key: string, ask: () => Promise<{ alarm: Alarm }>, done: string, name: string): Promise<boolean> {
  if (busy.value.has(key)) return false
  busy.value.add(key)
  try {
    takeAlarm((await ask()).alarm)
    showDone(done, name)
    return true
  } catch (error) {
    showError(error)
    void fetchAlarms().catch(() => undefined)
    return false
  } finally {
    busy.value.delete(key)
  }
}

async function change(key: string, path: string, body: unknown, done: string, name: string): Promise<void> {
  await command(key, () => post(path, body), done, name)
}

/** End what lies over an alarm. */
export function endCover(alarm: Alarm, name: string): Promise<boolean> {
  const done = alarm.overlay?.kind === 'shelved' ? 'unshelved' : 'putBack'
  return command(`${alarm.id}#cover`, () => uncover(alarm), done, name)
}

export function acknowledge(alarm: Alarm, slot: AckSlot, name: string): Promise<void> {
  const path = `/alarms/${encodeURIComponent(alarm.id)}/ack`
  return change(slotKey(alarm, slot), path, { occurrence: alarm.occurrence, role: slot.role }, 'acked', name)
}

/** What Enter does on a focused alarm: acknowledge in the role that this person has and that is missing. */
export async function acknowledgeOwn(alarm: Alarm, name: string): Promise<void> {
  const slot = ownSlot(alarm, person.value)
  if (slot) await acknowledge(alarm, slot, name)
}

export function reset(alarm: Alarm, name: string): Promise<void> {
  const path = `/alarms/${encodeURIComponent(alarm.id)}/reset`
  return change(`${alarm.id}#reset`, path, { occurrence: alarm.occurrence }, 'reset', name)
}

/** The newest page of the history; entries that were loaded further back stay. */
export async function fetchHistory(): Promise<void> {
  const { events } = await get<{ events: AlarmEvent[] }>(`/alarms/history?limit=${PAGE}`)
  const oldest = events.at(-1)?.seq ?? 0
  const further = (history.value ?? []).filter((event) => event.seq < oldest)
  if (history.value === null) historyEnds.value = events.length < PAGE
  history.value = [...events, ...further]
}

export async function fetchOlder(): Promise<void> {
  const before = history.value?.at(-1)?.seq
  if (before === undefined) return
  const { events } = await get<{ events: AlarmEvent[] }>(`/alarms/history?limit=${PAGE}&before=${before}`)
  historyEnds.value = events.length < PAGE
  history.value = [...(history.value ?? []), ...events]
}
