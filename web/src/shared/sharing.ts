/**
 * One stream for all tabs of a browser: over HTTP/1.1 it has six connections to a server, and a seventh tab with a
 * stream of its own would wait for ever, and with it every request of the six others.
 *
 * A page joins and says so again every JOIN_MS; the worker forgets a page that it did not hear of for GONE_MS (a tab
 * that crashed says nothing; a hidden one may speak once a minute).
 */
import { openLine, type Line } from './line'

export interface Join {
  kind: 'join'
  path: string
  names: string[]
  silenceMs: number
}
export type Asked = Join | { kind: 'bye' }
export type Told =
  | { kind: 'joined' }
  | { kind: 'open' }
  | { kind: 'lost' }
  | { kind: 'event'; name: string; text: string; id: string }

export const JOIN_MS = 20_000
const GONE_MS = 180_000
const LOOK_MS = 30_000

/** What a MessagePort is to the sharing. */
export interface Port {
  postMessage(told: Told): void
}

interface Shared {
  line: Line
  state: 'connecting' | 'open' | 'lost'
  heardMs: Map<Port, number>
}

export class Sharing {
  private readonly streams = new Map<string, Shared>()

  constructor(
    private readonly open: typeof openLine = openLine,
    private readonly nowMs: () => number = () => performance.now(),
  ) {}

  /** Look now and then for pages that went without a word. */
  watch(): void {
    setInterval(() => this.forgetGone(), LOOK_MS)
  }

  take(port: Port, asked: Asked): void {
    if (asked.kind === 'join') this.join(port, asked)
    else for (const [path, shared] of this.streams) this.leave(port, path, shared)
  }

  forgetGone(): void {
    for (const [path, shared] of this.streams)
      for (const [port, heardMs] of shared.heardMs)
        if (this.nowMs() - heardMs > GONE_MS) this.leave(port, path, shared)
  }

  private join(port: Port, { path, names, silenceMs }: Join): void {
    const shared = this.streams.get(path) ?? this.begin(path, names, silenceMs)
    const isNew = !shared.heardMs.has(port)
    shared.heardMs.set(port, this.nowMs())
    port.postMessage({ kind: 'joined' })
    if (isNew && shared.state !== 'connecting') port.postMessage({ kind: shared.state })
  }

  private begin(path: string, names: string[], silenceMs: number): Shared {
    const tell = (told: Told): void => {
      if (told.kind === 'open' || told.kind === 'lost') shared.state = told.kind
      for (const port of shared.heardMs.keys()) port.postMessage(told)
    }
    const shared: Shared = { line: { close: () => undefined }, state: 'connecting', heardMs: new Map() }
    shared.line = this.open(path, names, silenceMs, {
      onOpen: () => tell({ kind: 'open' }),
      onLost: () => tell({ kind: 'lost' }),
      onEvent: (name, text, id) => tell({ kind: 'event', name, text, id }),
    })
    this.streams.set(path, shared)
    return shared
  }

  private leave(port: Port, path: string, shared: Shared): void {
    shared.heardMs.delete(port)
    if (shared.heardMs.size > 0) return
    shared.line.close()
    this.streams.delete(path)
  }
}
