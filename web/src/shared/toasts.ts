import { shallowRef } from 'vue'
import { ApiError } from './api'

export interface Toast {
  id: number
  /** A reason of the API, or a key under `notice`. */
  reason: string
  message: string
  hint: string
  kind: 'error' | 'done'
}

const SHOWN_MS = { error: 8000, done: 4000 }
export const toasts = shallowRef<Toast[]>([])
let next = 1

function push(toast: Omit<Toast, 'id'>): void {
  const id = next++
  toasts.value = [...toasts.value.slice(-3), { id, ...toast }]
  setTimeout(() => dismiss(id), SHOWN_MS[toast.kind])
}

export function dismiss(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id)
}

/** Show why a call failed; a signed-out session speaks for itself through the sign-in page. */
export function showError(error: unknown): void {
  if (error instanceof ApiError) {
    if (error.reason === 'signed_out') return
    push({ reason: error.reason, message: error.message, hint: error.hint, kind: 'error' })
  } else {
    push({ reason: 'unexpected', message: String(error), hint: '', kind: 'error' })
  }
}

export function showDone(key: string, message = ''): void {
  push({ reason: key, message, hint: '', kind: 'done' })
}
