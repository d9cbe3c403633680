import { watch } from 'vue'
import { createI18n } from 'vue-i18n'
import { preference } from '../shared/prefs'
import { en } from './en'
import { zh } from './zh'

export type Language = 'zh' | 'en'

/** On a first visit Chinese unless the browser speaks English; the choice is remembered. */
export const language = preference<Language>('language', ['zh', 'en'], navigator.language.startsWith('en') ? 'en' : 'zh')

export const i18n = createI18n({
  legacy: false,
  locale: language.value,
  fallbackLocale: 'zh',
  messages: { zh, en },
})

watch(
  language,
  (value) => {
    i18n.global.locale.value = value
    document.documentElement.lang = value === 'zh' ? 'zh-CN' : 'en'
  },
  { immediate: true },
)

export function toggleLanguage(): void {
  language.value = language.value === 'zh' ? 'en' : 'zh'
}
