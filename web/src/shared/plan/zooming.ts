/** How far a map is magnified, by buttons, by wheel with Ctrl, or by two fingers: what is under them stays under them. */
import { computed, nextTick, ref, type Ref } from 'vue'

const STEPS = [1, 1.5, 2, 3, 4, 6, 8] as const
const MOST = 8
const WHEEL_PX = 250

interface Spot {
  x: number
  y: number
}

export const limited = (factor: number): number => Math.min(MOST, Math.max(1, factor))

/** The next step of the buttons from `factor`, which fingers may have left between two. @param by 1 or -1. */
export function stepped(factor: number, by: number): number {
  const next = by > 0 ? STEPS.find((step) => step > factor * 1.01) : [...STEPS].reverse().find((step) => step < factor / 1.01)
  return next ?? limited(by > 0 ? MOST : 1)
}

const between = (touches: TouchList): Spot => ({ x: ((touches[0]?.clientX ?? 0) + (touches[1]?.clientX ?? 0)) / 2, y: ((touches[0]?.clientY ?? 0) + (touches[1]?.clientY ?? 0)) / 2 })
const apart = (touches: TouchList): number => Math.hypot((touches[0]?.clientX ?? 0) - (touches[1]?.clientX ?? 0), (touches[0]?.clientY ?? 0) - (touches[1]?.clientY ?? 0))

/** @param view scrolls. @param board lies in it, as wide as the factor says. */
export function useZoom(view: Readonly<Ref<HTMLElement | null>>, board: Readonly<Ref<HTMLElement | null>>) {
  const factor = ref(1)
  let pinch: { apart: number; factor: number; place: Spot } | null = null

  /** Which part of the board is there, in fractions of it. */
  function placeAt(at: Spot): Spot {
    const box = board.value?.getBoundingClientRect()
    return box ? { x: (at.x - box.left) / box.width, y: (at.y - box.top) / box.height } : { x: 0.5, y: 0.5 }
  }
  /** Magnify so far that `place` of the board is seen `at` there. */
  async function show(wanted: number, place: Spot, at: Spot): Promise<void> {
    factor.value = limited(wanted)
    await nextTick()
    const box = board.value?.getBoundingClientRect()
    if (box) view.value?.scrollBy(box.left + place.x * box.width - at.x, box.top + place.y * box.height - at.y)
  }
  function magnify(by: number): void {
    const box = view.value?.getBoundingClientRect()
    const at = box ? { x: box.left + box.width / 2, y: box.top + box.height / 2 } : { x: 0, y: 0 }
    void show(stepped(factor.value, by), placeAt(at), at)
  }
  function wheel(event: WheelEvent): void {
    if (!event.ctrlKey) return
    event.preventDefault()
    const at = { x: event.clientX, y: event.clientY }
    void show(factor.value * Math.exp(-event.deltaY / WHEEL_PX), placeAt(at), at)
  }
  /** Of `touchstart` and `touchend`: two fingers begin a pinch, any other number ends it. */
  function touch(event: TouchEvent): void {
    pinch = event.touches.length === 2 ? { apart: apart(event.touches) || 1, factor: factor.value, place: placeAt(between(event.touches)) } : null
  }
  function touchMove(event: TouchEvent): void {
    if (!pinch || event.touches.length !== 2) return
    event.preventDefault()
    void show((pinch.factor * apart(event.touches)) / pinch.apart, pinch.place, between(event.touches))
  }
  return { factor, magnify, wheel, touch, touchMove, isLeast: computed(() => factor.value <= 1), isMost: computed(() => factor.value >= MOST) }
}
