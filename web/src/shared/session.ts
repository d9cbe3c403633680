import { ref, shallowRef } from 'vue'
import { ApiError, del, get, onSessionEnd, post, useSession } from './api'
import type { Person, Session } from './types'

/** Who sits in front of this page: `asking` until the server has answered once. */
export const person = shallowRef<Person | null>(null)
export const sessionState = ref<'asking' | 'in' | 'out' | 'unreachable'>('asking')
export const expired = ref(false)

function enter(session: Session): void {
  useSession(session)
  person.value = session.person
  sessionState.value = 'in'
  expired.value = false
}

/** The gateway says so with every list of alarms: an absence begins and ends while the page is open. */
export function standInFor(others: Person[]): void {
  const now = person.value
  if (!now || JSON.stringify(now.stands_in_for ?? []) === JSON.stringify(others)) return
  person.value = { ...now, stands_in_for: others }
}

function leave(): void {
  useSession(null)
  person.value = null
  sessionState.value = 'out'
}

/** The server ended the session; whoever reads this screen must learn that it is no longer watched. */
function expire(): void {
  if (sessionState.value === 'in') expired.value = true
  leave()
}

/** Ask the server who is signed in; keeps the present answer when it cannot be reached. */
export async function askSession(): Promise<void> {
  onSessionEnd(expire)
  try {
    enter(await get<Session>('/session'))
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) expire()
    else if (sessionState.value !== 'in') sessionState.value = 'unreachable'
  }
}

export async function signIn(id: string, pin: string): Promise<void> {
  enter(await post<Session>('/session', { person: id, pin }))
}

/** End the session here and at the server; throws when the server could not be told. */
export async function signOut(): Promise<void> {
  await del('/session')
  leave()
}

export const people = (): Promise<Person[]> => get<Person[]>('/people')
