import { computed, ref } from 'vue'
import type { Alarm } from './types'
import { isUnacknowledged } from './acks'
import { preference } from './prefs'

/**
 * The horn. Browsers make no sound before a click, so it is armed by one, and the page always shows whether it is:
 * `off` (the person's choice), `blocked` (wanted, but this page has not been clicked yet), `armed`.
 */
const wanted = preference('sound', ['on', 'off'] as const, 'on')
const running = ref(false)
export const soundState = computed(() => (wanted.value === 'off' ? 'off' : running.value ? 'armed' : 'blocked'))

/** Alarm occurrences that someone silenced here; silencing is not acknowledging. */
const silenced = ref(new Set<string>())
const sounding = ref<Alarm[]>([])
export const hornOn = computed(() => sounding.value.length > 0)

const REPEAT_MS = 2000
const LOUD_EVENTS: ReadonlySet<string> = new Set(['alarm.raised', 'alarm.reraised', 'alarm.reopened', 'alarm.repeated'])
let context: AudioContext | null = null

const key = (alarm: Alarm): string => `${alarm.id}#${alarm.occurrence}`

function tone(at: number, frequency: number, lengthS: number): void {
  if (!context) return
  const oscillator = context.createOscillator()
  const gain = context.createGain()
  oscillator.type = 'square'
  oscillator.frequency.value = frequency
  gain.gain.setValueAtTime(0, at)
  gain.gain.linearRampToValueAtTime(0.12, at + 0.01)
  gain.gain.setValueAtTime(0.12, at + lengthS - 0.02)
  gain.gain.linearRampToValueAtTime(0, at + lengthS)
  oscillator.connect(gain).connect(context.destination)
  oscillator.start(at)
  oscillator.stop(at + lengthS)
}

/** The higher the priority, the more beeps and the higher their pitch. */
function beep(): void {
  const worst = Math.min(...sounding.value.map((alarm) => alarm.priority))
  if (!context || soundState.value !== 'armed' || !Number.isFinite(worst)) return
  const beeps = worst <= 1 ? 5 : worst === 2 ? 3 : 2
  for (let i = 0; i < beeps; i++) tone(context.currentTime + i * 0.22, i % 2 ? 740 : 980 - worst * 60, 0.15)
}

async function resume(): Promise<void> {
  context ??= new AudioContext()
  await context.resume().catch(() => undefined)
  running.value = context.state === 'running'
}

export async function toggleSound(): Promise<void> {
  if (soundState.value === 'armed') {
    wanted.value = 'off'
    return
  }
  wanted.value = 'on'
  await resume()
  if (context && running.value) tone(context.currentTime, 880, 0.08)
  beep()
}

/**
 * Any click or key is what the browser waits for; take it when this person wants sound.
 * A button marked `data-sound` decides by itself: it must not find the sound armed by its own click.
 */
export function armOnFirstGesture(): void {
  const take = (event: Event): void => {
    if (event.target instanceof Element && event.target.closest('[data-sound]')) return
    if (wanted.value === 'on' && !running.value) void resume().then(beep)
  }
  addEventListener('pointerdown', take)
  addEventListener('keydown', take)
}

export function silence(): void {
  for (const alarm of sounding.value) silenced.value.add(key(alarm))
  sounding.value = []
}

/** Tell the horn which alarms are open now; `event` is the kind of record that brought the news, if any. */
export function updateHorn(open: Alarm[], event?: { kind: string; alarm: Alarm }): void {
  if (event && LOUD_EVENTS.has(event.kind)) silenced.value.delete(key(event.alarm))
  const before = new Set(sounding.value.map(key))
  sounding.value = open.filter((alarm) => isUnacknowledged(alarm) && !silenced.value.has(key(alarm)))
  if (sounding.value.some((alarm) => !before.has(key(alarm)))) beep()
}

setInterval(beep, REPEAT_MS)
