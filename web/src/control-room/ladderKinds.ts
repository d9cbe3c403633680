import type { Rung } from '../shared/types'

/** The kinds of channel that a rung adds and this site has. */
export function added(rung: Pick<Rung, 'add'>, kinds: ReadonlySet<string> | null): string[] {
  return rung.add.filter((kind) => kind === '*' || kind === 'siren' || !kinds || kinds.has(kind))
}
