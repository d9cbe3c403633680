import type { Ref } from 'vue'
import { useWords } from '../i18n/words'
import { aboutData } from './acks'
import { plainText, valueText } from './format'
import type { AlarmEvent, Person, Point } from './types'

/** Reasons that the kind of the record says already. */
const PLAIN: ReadonlySet<string> = new Set(['', 'condition', 'person', 'severity_up', 'realarm'])
/** Only these records bring a value; the others repeat the one that raised the alarm. */
const MEASURED: ReadonlySet<string> = new Set(['alarm.raised', 'alarm.reraised', 'alarm.recurred', 'alarm.reopened'])

/** What a record of an alarm says, in the words of the chosen language. */
export function useEventWords(staff?: Readonly<Ref<Map<string, Person> | undefined>>, points?: Readonly<Ref<Map<string, Point> | undefined>>) {
  const { known, name, role, giver } = useWords()

  const at = (event: AlarmEvent): string | undefined => (typeof event.at === 'string' ? event.at : event.at.utc)

  const what = (event: AlarmEvent): string => {
    const reason = event.reason ?? ''
    if (reason === 'uncovered') return known('alarm.reason', reason) // not worse: people are told of it again
    const said = PLAIN.has(reason) ? '' : known('alarm.reason', reason)
    return [known('alarm.event', event.kind.replace(/^alarm\./, '')), said].filter(Boolean).join(' · ')
  }

  /** The person behind `p_li` or `person:p_li`; for an acknowledgement also in which role. */
  function who(event: AlarmEvent): string {
    const id = event.actor.replace(/^person:/, '')
    const ack = event.alarm.acks.findLast((given) => given.person === id)
    const listed = staff?.value?.get(id)
    const told = event.actor_name && event.actor_name !== event.actor ? event.actor_name : ''
    const shown = listed ? name(listed) : (ack && giver(ack)) || told
    if (event.kind !== 'alarm.acked' || !ack) return shown
    return shown ? `${shown} (${role(ack.role)})` : role(ack.role)
  }

  const value = (event: AlarmEvent): string => {
    const { alarm } = event
    if (alarm.value === null || aboutData(alarm) || !MEASURED.has(event.kind)) return ''
    const decimals = points?.value?.get(alarm.point)?.decimals
    const text = decimals === undefined ? plainText(alarm.value, alarm.unit) : valueText(alarm.value, decimals)
    return `${text} ${alarm.unit}`
  }

  return { at, what, who, value }
}
