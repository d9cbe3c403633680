import { useI18n } from 'vue-i18n'
import { ageParts } from '../shared/format'
import type { Named } from '../shared/types'
import { language } from '.'

/** The pages' vocabulary: what the API says in identifiers, in the words of the chosen language. */
export function useWords() {
  const { t, te } = useI18n()

  /** `prefix.key` translated, or the key itself when the pages do not know it. */
  const known = (prefix: string, key: string): string => (te(`${prefix}.${key}`) ? t(`${prefix}.${key}`) : key)

  const name = (thing: Named): string => (language.value === 'en' && thing.name_en ? thing.name_en : thing.name)

  const role = (id: string | null): string => known('role', id ?? 'any')

  const age = (seconds: number): string =>
    ageParts(seconds)
      .map(([n, unit]) => t(`age.${unit}`, { n }))
      .join(language.value === 'en' ? ' ' : '')

  /** Reason of a bad value; `exception_2` is the device's own refusal. */
  const why = (reason: string): string => {
    const [head = '', detail] = reason.split(/:\s*/, 2)
    const exception = /^exception_(\d+)$/.exec(head)
    if (exception) return t('why.exception', { n: exception[1] })
    const text = head ? known('why', head) : ''
    return detail && text !== head ? `${text} (${detail})` : detail ? reason : text
  }

  const error = (reason: string, message: string): string =>
    te(`error.${reason}`) ? t(`error.${reason}`) : message || reason

  return { t, known, name, role, age, why, error }
}
