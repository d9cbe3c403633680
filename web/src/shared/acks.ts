import type { Ack, Alarm, AlarmState, Person, Role } from './types'

/** Why a person cannot give this acknowledgement; `waiting`: theirs is given, and the other role is not theirs. */
export type AckRefusal = 'not_your_role' | 'not_your_area' | 'distinct_persons' | 'waiting'

export interface AckSlot {
  /** null: the alarm asks for no particular role, and anyone may acknowledge. */
  role: Role | null
  ack: Ack | null
  /** Set when the slot is open but not for this person. */
  refusal: AckRefusal | null
}

const AWAITING: ReadonlySet<AlarmState> = new Set(['UNACK', 'RTNUN', 'LATU'])

/** Whether people wait for an acknowledgement; of what is shelved or out of service nobody was told. */
export const isUnacknowledged = (alarm: Pick<Alarm, 'state' | 'overlay'>): boolean => AWAITING.has(alarm.state) && !alarm.overlay

/** Whether the condition itself is still on. */
export const isActive = (alarm: Pick<Alarm, 'state'>): boolean => alarm.state === 'UNACK' || alarm.state === 'ACKED'

const MEASURED: ReadonlySet<string> = new Set(['hihi', 'hi', 'lo', 'lolo', 'roc', 'deviation'])

/** Whether the alarm is about something else than a value and its limit: missing data, a state, the system itself. */
export const aboutData = (alarm: Pick<Alarm, 'kind'>): boolean => alarm.kind !== null && !MEASURED.has(alarm.kind)

/** Whether the person answers for the area; `*` is every area. */
export const answersFor = (person: Person, area: string): boolean => person.areas.includes('*') || person.areas.includes(area)

/** The person, and everybody for whom they stand in. */
const hats = (person: Person): Person[] => [person, ...(person.stands_in_for ?? [])]

/** Whether the person may act in one of these roles there: their own, or somebody's for whom they stand in. */
export const actsIn = (person: Person, roles: readonly Role[], area: string): boolean =>
  hats(person).some((hat) => hat.roles.some((role) => roles.includes(role)) && answersFor(hat, area))

const hasRole = (person: Person, role: Role): boolean => hats(person).some((hat) => hat.roles.includes(role))

function refusalFor(alarm: Alarm, role: Role | null, person: Person | null): AckRefusal | null {
  if (!person) return 'not_your_role'
  const gaveOne = alarm.acks.some((ack) => ack.person === person.id)
  if (role !== null && !hasRole(person, role)) return gaveOne ? 'waiting' : 'not_your_role'
  if (!(role === null ? answersFor(person, alarm.area) : actsIn(person, [role], alarm.area))) return 'not_your_area'
  // Dual acknowledgement means two people, unless the site's rule says otherwise.
  return gaveOne && alarm.distinct_persons !== false ? 'distinct_persons' : null
}

/** One slot per acknowledgement of the alarm, given or missing, in the site's order. */
export function ackSlots(alarm: Alarm, person: Person | null): AckSlot[] {
  const roles: (Role | null)[] = alarm.required_acks.length ? alarm.required_acks : [null]
  return roles.map((role) => {
    const ack = (role === null ? alarm.acks[0] : alarm.acks.find((given) => given.role === role)) ?? null
    return { role, ack, refusal: ack ? null : refusalFor(alarm, role, person) }
  })
}

/** Why the person cannot reset a latched alarm, or null: only an officer of the alarm's area can. */
export function resetRefusal(alarm: Alarm, person: Person | null): AckRefusal | null {
  if (!person || !hasRole(person, 'officer')) return 'not_your_role'
  return actsIn(person, ['officer'], alarm.area) ? null : 'not_your_area'
}

/** The slot that `Enter` gives: the first missing one that this person may give. */
export function ownSlot(alarm: Alarm, person: Person | null): AckSlot | null {
  if (!isUnacknowledged(alarm)) return null
  return ackSlots(alarm, person).find((slot) => !slot.ack && !slot.refusal) ?? null
}

/** Unacknowledged first, then by priority (1 is the highest), then the newest. */
export function byUrgency(a: Alarm, b: Alarm): number {
  const waiting = Number(isUnacknowledged(b)) - Number(isUnacknowledged(a)) || Number(Boolean(a.overlay)) - Number(Boolean(b.overlay))
  return waiting || a.priority - b.priority || Date.parse(b.raised_at) - Date.parse(a.raised_at) || a.id.localeCompare(b.id)
}
