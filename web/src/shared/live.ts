import { ref, type Ref } from 'vue'

export type Handlers = Record<string, (data: unknown, event: MessageEvent<string>) => void>

export interface Live {
  /** `lost` from the first failure until the stream is open again. */
  state: Ref<'connecting' | 'open' | 'lost'>
  lostSinceMs: Ref<number>
  close(): void
}

interface Options {
  /** No event for so long means that the line is dead although nobody said so; 0 when the server may be quiet. */
  silenceMs: number
  onOpen: () => void
  onLost: () => void
}

const RETRY_MS = [500, 1000, 2000, 3000, 5000]
const WATCH_MS = 1000

/**
 * Server-sent events with the two things that EventSource lacks: it notices a silent line, and it comes back after
 * the server refused once (EventSource itself resumes a broken stream with Last-Event-ID; a stream opened anew begins
 * with `onOpen`, which fetches everything again).
 */
export function openLive(path: string, handlers: Handlers, options: Options): Live {
  const state = ref<'connecting' | 'open' | 'lost'>('connecting')
  const lostSinceMs = ref(0)
  let source: EventSource | null = null
  let retry = 0
  let retryTimer = 0
  let heardMs = performance.now()
  let closed = false

  const heard = (): void => {
    heardMs = performance.now()
    if (state.value === 'open') return
    state.value = 'open'
    retry = 0
    options.onOpen()
  }
  const lost = (): void => {
    if (state.value !== 'lost') lostSinceMs.value = performance.now()
    state.value = 'lost'
    options.onLost()
  }
  const again = (): void => {
    source?.close()
    source = null
    clearTimeout(retryTimer)
    const pause = RETRY_MS[Math.min(retry++, RETRY_MS.length - 1)] ?? 5000
    if (!closed) retryTimer = window.setTimeout(connect, pause)
  }
  const receive = (name: string) => (event: MessageEvent<string>) => {
    heard()
    handlers[name]?.(event.data ? JSON.parse(event.data) : null, event)
  }

  function connect(): void {
    heardMs = performance.now()
    source = new EventSource(path)
    source.onopen = heard
    source.onerror = () => {
      lost()
      if (source?.readyState === EventSource.CLOSED) again()
    }
    for (const name of Object.keys(handlers)) source.addEventListener(name, receive(name) as EventListener)
  }

  const watchdog = window.setInterval(() => {
    if (!source || options.silenceMs === 0 || performance.now() - heardMs < options.silenceMs) return
    lost()
    again()
  }, WATCH_MS)

  connect()
  return {
    state,
    lostSinceMs,
    close() {
      closed = true
      clearInterval(watchdog)
      clearTimeout(retryTimer)
      source?.close()
    },
  }
}
