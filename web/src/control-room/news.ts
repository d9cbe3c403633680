import { ref } from 'vue'

/** Counted up when the gateway says that something of this kind is new; pages that show it read it again. */
export const news = { alarms: ref(0), ladders: ref(0), deliveries: ref(0), proof: ref(0), plans: ref(0) }
export type News = keyof typeof news
