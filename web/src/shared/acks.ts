import type { Ack, Alarm, AlarmState, Person, Role } from './types'

/** Why a person cannot give this acknowledgement. */
export type AckRefusal = 'not_your_role' | 'distinct_persons'

export interface AckSlot {
  /** null: the alarm asks for no particular role, and anyone may acknowledge. */
  role: Role | null
  ack: Ack | null
  /** Set when the slot is open but not for this person. */
  refusal: AckRefusal | null
}

const AWAITING: ReadonlySet<AlarmState> = new Set(['UNACK', 'RTNUN', 'LATU'])

/** Whether acknowledgements are still missing. */
export const isUnacknowledged = (alarm: Pick<Alarm, 'state'>): boolean => AWAITING.has(alarm.state)

/** Whether the condition itself is still on. */
export const isActive = (alarm: Pick<Alarm, 'state'>): boolean => alarm.state === 'UNACK' || alarm.state === 'ACKED'

function refusalFor(alarm: Alarm, role: Role, person: Person): AckRefusal | null {
  if (!person.roles.includes(role)) return 'not_your_role'
  // Dual acknowledgement means two people: the second role cannot be given by whoever gave the first.
  if (alarm.acks.some((ack) => ack.person === person.id)) return 'distinct_persons'
  return null
}

/** One slot per acknowledgement of the alarm, given or missing, in the site's order. */
export function ackSlots(alarm: Alarm, person: Person | null): AckSlot[] {
  if (alarm.required_acks.length === 0) {
    return [{ role: null, ack: alarm.acks[0] ?? null, refusal: person ? null : 'not_your_role' }]
  }
  return alarm.required_acks.map((role) => {
    const ack = alarm.acks.find((given) => given.role === role) ?? null
    const refusal = ack || !person ? null : refusalFor(alarm, role, person)
    return { role, ack, refusal: ack ? null : person ? refusal : 'not_your_role' }
  })
}

/** The slot that `Enter` gives: the first missing one that this person may give. */
export function ownSlot(alarm: Alarm, person: Person | null): AckSlot | null {
  if (!isUnacknowledged(alarm)) return null
  return ackSlots(alarm, person).find((slot) => !slot.ack && !slot.refusal) ?? null
}

/** Unacknowledged first, then by priority (1 is the highest), then the newest. */
export function byUrgency(a: Alarm, b: Alarm): number {
  const waiting = Number(isUnacknowledged(b)) - Number(isUnacknowledged(a))
  return waiting || a.priority - b.priority || Date.parse(b.raised_at) - Date.parse(a.raised_at) || a.id.localeCompare(b.id)
}
