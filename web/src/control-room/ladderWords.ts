import { useWords } from '../i18n/words'
import { utcMs } from '../shared/clock'
import { clockText, counter } from '../shared/format'
import type { LadderView, Rung } from '../shared/types'
import { added } from './ladderKinds'
import { status } from './plant'

/** What ladders do, in the words of the chosen language. */
export function useLadderWords() {
  const { t, known, role, roleWithin } = useWords()

  const colour = (rung: Pick<Rung, 'colour'>): string => (rung.colour ? t(`ladder.colour.${rung.colour}`) : '')

  /** What a rung does: whom it tells, through what, and what else; `before` is the rung below it. */
  function does(rung: Rung, before?: Rung): string {
    const add = added(rung, status.value && new Set(status.value.channels.map((channel) => channel.kind)))
    const parts = [
      rung.to.length ? t('ladder.tell', { who: rung.to.map(roleWithin).join(', ') }) : '',
      add.length ? t('ladder.via', { what: add.map((kind) => known('ladder.add', kind === '*' ? 'every' : kind)).join(', ') }) : '',
      rung.colour && rung.colour !== before?.colour ? t('ladder.turn', { colour: colour(rung) }) : '',
      rung.action === 'freeze' ? t('ladder.freeze') : '',
    ].filter(Boolean)
    return parts.join(' · ')
  }

  /** How long until a rung's time comes: a running clock. */
  function until(rung: Rung): string {
    const seconds = (Date.parse(rung.at) - utcMs.value) / 1000
    return seconds > 0 ? t('ladder.inTime', { time: counter(seconds) }) : t('ladder.due')
  }

  function next(ladder: LadderView): string {
    if (ladder.paused) return known('ladder.paused', ladder.paused)
    if (!ladder.next) return t('ladder.top')
    return t('ladder.nextAt', { time: clockText(ladder.next.at, utcMs.value), what: does(ladder.next, ladder.rungs[ladder.climbed - 1]) })
  }

  return { does, until, next, colour, roles: (ids: string[]): string => ids.map(role).join(' / ') }
}
