import { ref, type Ref } from 'vue'
import { openLine, type Line, type LineEnds } from './line'
import { JOIN_MS, type Asked, type Told } from './sharing'

export type Handlers = Record<string, (data: unknown, event: { lastEventId: string }) => void>

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

/** A worker that does not answer by then does not run here: the page opens a stream of its own. */
const ANSWER_MS = 3000

/** Server-sent events that come back by themselves, on one connection for all tabs where the browser can share one. */
export function openLive(path: string, handlers: Handlers, options: Options): Live {
  const state = ref<'connecting' | 'open' | 'lost'>('connecting')
  const lostSinceMs = ref(0)
  const ends: LineEnds = {
    onOpen() {
      state.value = 'open'
      options.onOpen()
    },
    onLost() {
      if (state.value !== 'lost') lostSinceMs.value = performance.now()
      state.value = 'lost'
      options.onLost()
    },
    onEvent(name, text, id) {
      handlers[name]?.(text ? JSON.parse(text) : null, { lastEventId: id })
    },
  }
  const names = Object.keys(handlers)
  const own = (): Line => openLine(path, names, options.silenceMs, ends)
  let line: Line = 'SharedWorker' in globalThis ? joinShared(path, names, options.silenceMs, ends, instead) : own()

  function instead(): void {
    line = own()
  }

  return { state, lostSinceMs, close: () => line.close() }
}

/** The stream that all tabs share. @param instead is called once when no worker can be had. */
function joinShared(path: string, names: string[], silenceMs: number, ends: LineEnds, instead: () => void): Line {
  let worker: SharedWorker
  try {
    worker = new SharedWorker(new URL('./liveWorker.ts', import.meta.url), { type: 'module', name: 'sitewarden-live' })
  } catch {
    queueMicrotask(instead)
    return { close: () => undefined }
  }
  const say = (asked: Asked): void => worker.port.postMessage(asked)
  const join = (): void => say({ kind: 'join', path, names, silenceMs })
  const bye = (): void => say({ kind: 'bye' })
  const patience = setTimeout(giveUp, ANSWER_MS)
  const timer = setInterval(join, JOIN_MS)

  /** A page that the browser had put aside missed what came meanwhile. */
  function back(event: PageTransitionEvent): void {
    if (event.persisted) ends.onLost()
    join()
  }
  function close(): void {
    clearTimeout(patience)
    clearInterval(timer)
    removeEventListener('pagehide', bye)
    removeEventListener('pageshow', back)
    bye()
    worker.port.close()
  }
  function giveUp(): void {
    close()
    instead()
  }

  worker.onerror = giveUp
  worker.port.onmessage = (message: MessageEvent<Told>) => {
    clearTimeout(patience)
    const told = message.data
    if (told.kind === 'open') ends.onOpen()
    else if (told.kind === 'lost') ends.onLost()
    else if (told.kind === 'event') ends.onEvent(told.name, told.text, told.id)
  }
  addEventListener('pagehide', bye)
  addEventListener('pageshow', back)
  join()
  return { close }
}
