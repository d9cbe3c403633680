import { computed, shallowRef } from 'vue'

const open = shallowRef<HTMLElement[]>([])

/** The dialog that lies over everything else: what must be seen and touched now goes into it. */
export const topDialog = computed(() => open.value.at(-1) ?? null)

export function opened(dialog: HTMLElement): void {
  open.value = [...open.value, dialog]
}

export function closed(dialog: HTMLElement): void {
  open.value = open.value.filter((one) => one !== dialog)
}
