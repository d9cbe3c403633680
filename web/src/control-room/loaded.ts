import { onMounted, onUnmounted, ref, shallowRef, watch, type Ref, type ShallowRef } from 'vue'
import { useWords } from '../i18n/words'
import { ApiError } from '../shared/api'
import { utcMs } from '../shared/clock'
import { lost } from './plant'

/** A burst of news is one reading. */
const SETTLE_MS = 1200

export interface Loaded<T> {
  data: ShallowRef<T | null>
  /** In words, empty while all is well; `data` then is what was read before. */
  problem: Ref<string>
  busy: Ref<boolean>
  /** Gateway's clock, milliseconds; 0 before the first answer. */
  readMs: Ref<number>
  load(): Promise<void>
}

/**
 * What `ask` answers: read at once, when `load` is called, when `trigger` changes and when the connection is back.
 *
 * An answer that was overtaken by a later question is dropped.
 */
export function useLoaded<T>(ask: () => Promise<T>, trigger?: Ref<number>): Loaded<T> {
  const { error } = useWords()
  const data = shallowRef<T | null>(null)
  const problem = ref('')
  const busy = ref(false)
  const readMs = ref(0)
  let asked = 0
  let timer = 0

  async function load(): Promise<void> {
    const mine = ++asked
    busy.value = true
    try {
      const answer = await ask()
      if (mine !== asked) return
      data.value = answer
      problem.value = ''
      readMs.value = utcMs.value
    } catch (failure) {
      if (mine === asked) problem.value = failure instanceof ApiError ? error(failure.reason, failure.message) : String(failure)
    } finally {
      if (mine === asked) busy.value = false
    }
  }

  const soon = (): void => {
    clearTimeout(timer)
    timer = window.setTimeout(() => void load(), SETTLE_MS)
  }
  if (trigger) watch(trigger, soon)
  watch(lost, (now) => now || soon())
  onMounted(load)
  onUnmounted(() => {
    asked++
    clearTimeout(timer)
  })
  return { data, problem, busy, readMs, load }
}
