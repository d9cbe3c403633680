import { Sharing, type Asked } from './sharing'

const sharing = new Sharing()
sharing.watch()

// The worker's own scope; the page's type library does not know it.
const scope = globalThis as unknown as { onconnect: ((event: MessageEvent) => void) | null }
scope.onconnect = (event) => {
  const port = event.ports[0]
  if (!port) return
  port.onmessage = (message: MessageEvent<Asked>) => sharing.take(port, message.data)
}
