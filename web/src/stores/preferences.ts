import { reactive, watch } from 'vue'

export type Theme = 'system' | 'light' | 'dark'

interface Preferences {
  language: 'system' | 'en' | 'zh'
  theme: Theme
}

const PLACE = 'moorage-preferences'
const DEFAULTS: Preferences = { language: 'system', theme: 'system' }

/** How this browser shows things. Nothing secret: that would not belong here. */
export const preferences = reactive<Preferences>(load())

watch(preferences, (now) => localStorage.setItem(PLACE, JSON.stringify(now)))

function load(): Preferences {
  try {
    return { ...DEFAULTS, ...(JSON.parse(localStorage.getItem(PLACE) ?? '{}') as Partial<Preferences>) }
  } catch {
    return { ...DEFAULTS }
  }
}
