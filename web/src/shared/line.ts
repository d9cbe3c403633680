/** A stream of server-sent events that comes back by itself; runs in a page and in a shared worker alike. */
export interface Line {
  close(): void
}

export interface LineEnds {
  /** The stream is open; also when any event came after it was lost. */
  onOpen(): void
  onLost(): void
  onEvent(name: string, text: string, id: string): void
}

const RETRY_MS = [500, 1000, 2000, 3000, 5000]
const WATCH_MS = 1000

/**
 * What EventSource lacks: it notices a silent line, and it comes back after the server refused once (EventSource
 * itself resumes a broken stream with Last-Event-ID; a stream opened anew begins with `onOpen`).
 *
 * @param silenceMs no event for so long means that the line is dead although nobody said so; 0: the server may be quiet.
 */
export function openLine(path: string, names: readonly string[], silenceMs: number, ends: LineEnds): Line {
  let source: EventSource | null = null
  let retry = 0
  let retryTimer: ReturnType<typeof setTimeout> | undefined
  let heardMs = performance.now()
  let open = false
  let closed = false

  const heard = (): void => {
    heardMs = performance.now()
    if (open) return
    open = true
    retry = 0
    ends.onOpen()
  }
  const lost = (): void => {
    open = false
    ends.onLost()
  }
  const again = (): void => {
    source?.close()
    source = null
    clearTimeout(retryTimer)
    const pause = RETRY_MS[Math.min(retry++, RETRY_MS.length - 1)] ?? 5000
    if (!closed) retryTimer = setTimeout(connect, pause)
  }
  const receive = (name: string) => (event: MessageEvent<string>) => {
    heard()
    ends.onEvent(name, event.data, event.lastEventId)
  }

  function connect(): void {
    heardMs = performance.now()
    source = new EventSource(path)
    source.onopen = heard
    source.onerror = () => {
      lost()
      if (source?.readyState === EventSource.CLOSED) again()
    }
    for (const name of names) source.addEventListener(name, receive(name) as EventListener)
  }

  const watchdog = setInterval(() => {
    if (!source || silenceMs === 0 || performance.now() - heardMs < silenceMs) return
    lost()
    again()
  }, WATCH_MS)

  connect()
  return {
    close() {
      closed = true
      clearInterval(watchdog)
      clearTimeout(retryTimer)
      source?.close()
    },
  }
}
