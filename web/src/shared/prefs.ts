import { ref, watch, type Ref } from 'vue'

/** A choice of this browser, remembered where the browser allows it. */
export function preference<T extends string>(key: string, allowed: readonly T[], fallback: T): Ref<T> {
  const name = `sitewarden.${key}`
  const choice = ref(fallback) as Ref<T>
  try {
    const stored = localStorage.getItem(name) as T | null
    if (stored && allowed.includes(stored)) choice.value = stored
  } catch {
    // Storage can be forbidden; the page then starts with its defaults.
  }
  watch(choice, (value) => {
    try {
      localStorage.setItem(name, value)
    } catch {
      // As above.
    }
  })
  return choice
}

export const theme = preference('theme', ['dark', 'light'] as const, 'dark')

watch(theme, (value) => (document.documentElement.dataset.theme = value), { immediate: true })

export function toggleTheme(): void {
  theme.value = theme.value === 'dark' ? 'light' : 'dark'
}
