import { useI18n } from 'vue-i18n'
import { ageParts } from '../shared/format'
import { aboutData } from '../shared/acks'
import type { Ack, Alarm, Named } from '../shared/types'
import { language } from '.'

/** The pages' vocabulary: what the API says in identifiers, in the words of the chosen language. */
export function useWords() {
  const { t, te } = useI18n()

  /** `prefix.key` translated, or the key itself when the pages do not know it. */
  const known = (prefix: string, key: string): string => (te(`${prefix}.${key}`) ? t(`${prefix}.${key}`) : key)

  const name = (thing: Named): string => (language.value === 'en' && thing.name_en ? thing.name_en : thing.name)

  const role = (id: string | null): string => known('role', id ?? 'any')

  /** A role inside a sentence; IT stays as it is. */
  const roleWithin = (id: string | null): string => (language.value === 'en' && id !== 'it' ? role(id).toLowerCase() : role(id))

  /** Who gave an acknowledgement; empty where only the id is known. */
  const giver = (ack: Ack): string => (ack.name && ack.name !== ack.person ? name({ ...ack, name: ack.name }) : '')

  const age = (seconds: number): string =>
    ageParts(seconds)
      .map(([n, unit]) => t(`age.${unit}`, { n }))
      .join(language.value === 'en' ? ' ' : '')

  /** Reason of a bad value; `exception_2` is the device's own refusal, 10 and 11 are the converter's before it;
   * `status_x` is the device's own word for its state. */
  const why = (reason: string): string => {
    if (!reason || te(`why.${reason}`)) return reason && t(`why.${reason}`)
    const exception = /^exception_(\d+)$/.exec(reason)
    if (exception) return t('why.exception', { n: exception[1] })
    const word = /^status_(.+)$/.exec(reason)?.[1]
    return word ? (te(`why.${word}`) ? t(`why.${word}`) : t('why.status', { word })) : reason
  }

  /** The alarm's own name says already what `stale` and `quality` are about. */
  const alarmKind = (alarm: Pick<Alarm, 'kind'>): string => (aboutData(alarm) ? '' : known('alarm.kind', alarm.kind ?? ''))

  const alarmTitle = (alarm: Alarm): string => [name(alarm), alarmKind(alarm)].filter(Boolean).join(' ')

  const error = (reason: string, message: string): string =>
    te(`error.${reason}`) ? t(`error.${reason}`) : message || reason

  return { t, te, known, name, role, roleWithin, giver, age, why, alarmKind, alarmTitle, error }
}
