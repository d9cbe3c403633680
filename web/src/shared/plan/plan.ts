/** A site plan as the gateway keeps it, and what moving things on it means. Pure. */
import type { Named } from '../types'

export type PlanKind = 'point' | 'checkpoint' | 'zone' | 'fence' | 'camera'
export const PLAN_KINDS: readonly PlanKind[] = ['point', 'checkpoint', 'zone', 'fence', 'camera']
/** A fraction of the picture from its upper left corner. */
export type Place = [x: number, y: number]

export interface PlanItem extends Named {
  id: string
  kind: PlanKind
  /** Id of the point, area or device that it shows; may be empty. */
  ref: string
  name_en: string
  at: Place[]
  /** Degrees clockwise from the top of the picture; of a camera. */
  angle: number
}

export interface PlanPicture {
  sha256: string
  width: number
  height: number
}

export interface Plan extends Named {
  id: string
  rev: number
  at: string
  by: string
  by_name?: string
  by_name_en?: string
  name_en: string
  picture: PlanPicture | null
  items: PlanItem[]
}

/** What is said of an item beside its place: of a point its value, of a zone its worst alarm. */
export interface PlanMark {
  title: string
  text: string
  /** 0: nothing abnormal. */
  priority: number
  acknowledged: boolean
  /** Nobody knows its value now. */
  dead: boolean
}

const LEAST: Record<PlanKind, number> = { point: 1, checkpoint: 1, camera: 1, zone: 3, fence: 2 }
const ROUND = 1e6

export const isShape = (item: Pick<PlanItem, 'kind'>): boolean => LEAST[item.kind] > 1
const inside = (value: number): number => Math.round(Math.min(1, Math.max(0, value)) * ROUND) / ROUND
export const placed = (x: number, y: number): Place => [inside(x), inside(y)]

/** The whole item moved, as far as all of it stays on the picture. */
export function shifted(item: PlanItem, dx: number, dy: number): PlanItem {
  const free = (delta: number, axis: 0 | 1): number => {
    const all = item.at.map((place) => place[axis])
    return Math.min(1 - Math.max(...all), Math.max(-Math.min(...all), delta))
  }
  const [x, y] = [free(dx, 0), free(dy, 1)]
  return { ...item, at: item.at.map(([px, py]) => placed(px + x, py + y)) }
}

/** One corner moved. */
export function cornerMoved(item: PlanItem, n: number, dx: number, dy: number): PlanItem {
  return { ...item, at: item.at.map(([x, y], at) => (at === n ? placed(x + dx, y + dy) : [x, y])) }
}

/** A corner more, in the middle of the side after corner `n`. */
export function cornerAdded(item: PlanItem, n: number): PlanItem {
  const from = item.at[n]
  const to = item.at[(n + 1) % item.at.length]
  if (!from || !to) return item
  const middle = placed((from[0] + to[0]) / 2, (from[1] + to[1]) / 2)
  return { ...item, at: [...item.at.slice(0, n + 1), middle, ...item.at.slice(n + 1)] }
}

/** A corner less, where the shape stays one. */
export function cornerRemoved(item: PlanItem, n: number): PlanItem {
  return item.at.length <= LEAST[item.kind] ? item : { ...item, at: item.at.filter((_, at) => at !== n) }
}

/** Where the label stands: the only place, or the middle of the shape. */
export function labelPlace(item: PlanItem): Place {
  if (item.kind === 'fence') return item.at[Math.floor((item.at.length - 1) / 2)] ?? [0.5, 0.5]
  const sum = item.at.reduce<Place>(([x, y], place) => [x + place[0], y + place[1]], [0, 0])
  return placed(sum[0] / item.at.length, sum[1] / item.at.length)
}

/** A new item in the middle of what is seen. */
export function newItem(kind: PlanKind, ref: string, name: Named, taken: ReadonlySet<string>, [x, y]: Place): PlanItem {
  const base = ref || kind
  let id = base
  for (let n = 2; taken.has(id); n++) id = `${base}.${n}`
  const side = 0.08
  const shape: Record<string, Place[]> = {
    zone: [placed(x - side, y - side), placed(x + side, y - side), placed(x + side, y + side), placed(x - side, y + side)],
    fence: [placed(x - side, y), placed(x + side, y)],
  }
  return { id, kind, ref, name: name.name, name_en: name.name_en ?? '', at: shape[kind] ?? [placed(x, y)], angle: 0 }
}
