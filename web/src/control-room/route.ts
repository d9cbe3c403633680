import { computed, ref } from 'vue'

/** What the page shows: the room in its three parts (a phone shows one at a time), or one of the alarm pages. */
export const ROOM = ['overview', 'alarms', 'status'] as const
export const PAGES = ['plan', 'history', 'statistics', 'ladders', 'deliveries', 'proof'] as const
export type PageName = (typeof PAGES)[number]
export type View = (typeof ROOM)[number] | PageName

const KNOWN: ReadonlySet<string> = new Set([...ROOM, ...PAGES])

function parse(hash: string): [View, URLSearchParams] {
  const [name = '', query = ''] = hash.replace(/^#\/?/, '').split('?')
  return [KNOWN.has(name) ? (name as View) : 'overview', new URLSearchParams(query)]
}

const at = ref(parse(location.hash))
export const view = computed(() => at.value[0])
export const query = computed(() => at.value[1])
export const isRoom = computed(() => (ROOM as readonly string[]).includes(view.value))

addEventListener('hashchange', () => (at.value = parse(location.hash)))

/** Go there; the browser's back button comes back. */
export function show(name: View, asked = ''): void {
  location.hash = `#/${name}${asked && `?${asked}`}`
  at.value = parse(location.hash)
}

/** Keep what is asked for in the address, without a step for the back button. */
export function keepQuery(asked: URLSearchParams): void {
  history.replaceState(null, '', `#/${view.value}${asked.size ? `?${asked}` : ''}`)
}
