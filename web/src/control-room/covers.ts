import { shallowRef } from 'vue'
import { actsIn } from '../shared/acks'
import { post } from '../shared/api'
import type { Alarm, Person } from '../shared/types'

/** Not in alarm, and nobody would be told if they were. */
export const coveredAtRest = shallowRef<Alarm[]>([])

const SHELVES = ['keeper', 'officer', 'control_room']
const TAKES_OUT = ['officer']
const MINUTES = [15, 30, 60, 120, 240, 480] as const
const LIFE_SAFETY_MINUTES = 30
export const SHORTEST_REASON = 4

const may = (person: Person | null, alarm: Alarm, roles: string[]): boolean =>
  person !== null && actsIn(person, roles, alarm.area)

/** Of what protects lives an officer alone; anybody of these roles may end a shelf. */
export const mayShelve = (alarm: Alarm, person: Person | null): boolean => may(person, alarm, alarm.life_safety ? TAKES_OUT : SHELVES)
/** The times that the gateway accepts for this alarm. */
export const minutesFor = (alarm: Alarm) => MINUTES.filter((n) => !alarm.life_safety || n <= LIFE_SAFETY_MINUTES)
export const mayTakeOut = (alarm: Alarm, person: Person | null): boolean => may(person, alarm, TAKES_OUT)

/** Whether this person can end what lies over the alarm; what a rule suppresses ends with the rule. */
export function mayUncover(alarm: Alarm, person: Person | null): boolean {
  if (alarm.overlay?.kind === 'shelved') return may(person, alarm, SHELVES)
  return alarm.overlay?.kind === 'out_of_service' && mayTakeOut(alarm, person)
}

const path = (alarm: Alarm, verb: string): string => `/alarms/${encodeURIComponent(alarm.id)}/${verb}`
type Answer = Promise<{ alarm: Alarm }>

export const shelve = (alarm: Alarm, minutes: number, why: string, oneShot: boolean): Answer =>
  post(path(alarm, 'shelve'), { occurrence: alarm.occurrence, minutes, why, one_shot: oneShot })
export const takeOut = (alarm: Alarm, permit: string, why: string): Answer => post(path(alarm, 'out-of-service'), { permit, why })
export const uncover = (alarm: Alarm): Answer => post(path(alarm, alarm.overlay?.kind === 'shelved' ? 'unshelve' : 'in-service'), {})
