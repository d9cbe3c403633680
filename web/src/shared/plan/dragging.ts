/** Dragging with mouse, pen or finger, and with the arrow keys, in fractions of the picture. */
const STEP = 0.01
const FINE = 0.002
const ARROWS: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }

export interface Drag {
  /** From where it began, not from the last call. */
  onMove(dx: number, dy: number): void
  onEnd(): void
}

/** Follow the pointer that went down until it is lifted. @param board has the size of the whole picture. */
export function follow(event: PointerEvent, board: HTMLElement, drag: Drag): void {
  const handle = event.currentTarget as HTMLElement
  const { width, height } = board.getBoundingClientRect()
  const move = (now: PointerEvent): void => drag.onMove((now.clientX - event.clientX) / width, (now.clientY - event.clientY) / height)
  const end = (): void => {
    handle.removeEventListener('pointermove', move)
    handle.removeEventListener('pointerup', end)
    handle.removeEventListener('pointercancel', end)
    drag.onEnd()
  }
  handle.setPointerCapture(event.pointerId)
  handle.addEventListener('pointermove', move)
  handle.addEventListener('pointerup', end)
  handle.addEventListener('pointercancel', end)
}

/** How far an arrow key moves something; null for every other key. Shift: a small step. */
export function arrowStep(event: KeyboardEvent): [number, number] | null {
  const way = ARROWS[event.key]
  if (!way || event.ctrlKey || event.altKey || event.metaKey) return null
  const step = event.shiftKey ? FINE : STEP
  return [way[0] * step, way[1] * step]
}
