import { computed, ref, shallowRef } from 'vue'
import { get } from '../shared/api'
import { monoMs } from '../shared/clock'
import type { Named, Role } from '../shared/types'

/** Something that fills the screen until somebody here has seen it; the gateway lists what stands. */
export interface Notice extends Named {
  id: string
  kind: string
  area: string
  since: string
  /** Page of the control room where something can be done about it. */
  page: string
  facts: { priority?: number; by?: Role[]; climbed?: number; of?: number; scope?: string; what?: string }
}

/** What was seen and still stands comes back after so long. */
const AGAIN_MS = 15 * 60_000

export const notices = shallowRef<Notice[]>([])
const seenMs = ref(new Map<string, number>())
const key = (notice: Notice): string => `${notice.id}@${notice.since}`

export const unseen = computed(() =>
  notices.value.filter((notice) => {
    const at = seenMs.value.get(key(notice))
    return at === undefined || monoMs.value - at > AGAIN_MS
  }),
)

export async function fetchNotices(): Promise<void> {
  notices.value = (await get<{ notices: Notice[] }>('/notices')).notices
  const standing = new Set(notices.value.map(key))
  for (const known of [...seenMs.value.keys()]) if (!standing.has(known)) seenMs.value.delete(known)
}

/** On this screen alone: nothing is acknowledged by it. */
export function markSeen(notice: Notice): void {
  seenMs.value.set(key(notice), performance.now())
}

export function showAgain(): void {
  seenMs.value.clear()
}

export function forgetNotices(): void {
  notices.value = []
  seenMs.value.clear()
}
