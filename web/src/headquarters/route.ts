import { computed, ref } from 'vue'

/** What the page shows: every site, one of them, or the place where bundles are brought. */
export type View = 'sites' | 'site' | 'bundles'

function parse(hash: string): { view: View; gateway: string; query: URLSearchParams } {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?')
  const [name, gateway = ''] = path.split('/')
  const view: View = name === 'site' && gateway ? 'site' : name === 'bundles' ? 'bundles' : 'sites'
  return { view, gateway: decoded(gateway), query: new URLSearchParams(query) }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

const at = ref(parse(location.hash))
export const view = computed(() => at.value.view)
export const gateway = computed(() => at.value.gateway)
export const query = computed(() => at.value.query)

addEventListener('hashchange', () => (at.value = parse(location.hash)))

export const siteLink = (id: string): string => `#/site/${encodeURIComponent(id)}`

/** Keep what is asked for in the address, without a step for the back button. */
export function keepQuery(asked: URLSearchParams): void {
  history.replaceState(null, '', `#/${asked.size ? `?${asked}` : ''}`)
  at.value = parse(location.hash)
}
