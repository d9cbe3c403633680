import { onMounted, onUnmounted, ref, type Ref } from 'vue'

/** Cards that are about to be scrolled to are drawn before they are seen. */
const AHEAD = '50%'

type Told = (near: boolean) => void
const told = new WeakMap<Element, Told>()
let observer: IntersectionObserver | null = null

/** One observer for all cards: a thousand of their own cost more than what they save. */
function watcher(): IntersectionObserver {
  observer ??= new IntersectionObserver((entries) => entries.forEach((entry) => told.get(entry.target)?.(entry.isIntersecting)), { rootMargin: AHEAD })
  return observer
}

/** Whether an element is on the screen or nearly so; with `always` nobody looks, and it is. */
export function useNear(element: Readonly<Ref<HTMLElement | null>>, always: boolean): Ref<boolean> {
  const near = ref(always)
  if (always) return near
  let watched: HTMLElement | null = null
  onMounted(() => {
    watched = element.value
    if (!watched) return
    told.set(watched, (now) => (near.value = now))
    watcher().observe(watched)
  })
  onUnmounted(() => watched && watcher().unobserve(watched))
  return near
}
