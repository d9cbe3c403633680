import { ref } from 'vue'

/** This page's monotonic milliseconds and the gateway's UTC milliseconds; both tick once a second. */
export const monoMs = ref(performance.now())
export const utcMs = ref(Date.now())

let offsetMs = 0

function tick(): void {
  monoMs.value = performance.now()
  utcMs.value = Date.now() + offsetMs
}

/** Follow the server's clock: ages on the page must not depend on the clock of this computer. */
export function setServerTime(utc: string): void {
  const server = Date.parse(utc)
  if (Number.isNaN(server)) return
  offsetMs = server - Date.now()
  tick()
}

setInterval(tick, 1000)
