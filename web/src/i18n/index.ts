import { computed, watchEffect } from 'vue'
import type { Problem } from '@/api/problem'
import { preferences } from '@/stores/preferences'
import { en, type Messages } from './en'
import { zh } from './zh'

export type { Messages }
export type Language = 'en' | 'zh'

const LANGUAGES: Record<Language, Messages> = { en, zh }

export const language = computed<Language>(() =>
  preferences.language === 'system'
    ? navigator.language.startsWith('zh')
      ? 'zh'
      : 'en'
    : preferences.language,
)

/** The words of the reader's language: `t.value.auth.logIn`, in templates `t.auth.logIn`. */
export const t = computed<Messages>(() => LANGUAGES[language.value])

watchEffect(() => {
  document.documentElement.lang = language.value === 'zh' ? 'zh-CN' : 'en'
})

/** A problem in the reader's language where we have words for its code, else as the server said it. */
export function words(problem: Problem): string {
  const known: Record<string, string> = t.value.problems
  return known[problem.code] ?? problem.detail
}

export function when(time: string | number | Date): string {
  return new Intl.DateTimeFormat(document.documentElement.lang, {
    dateStyle: 'medium',
    timeStyle: 'short',
  }).format(new Date(time))
}

const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
]

/** "2 hours ago", "in 5 minutes". */
export function ago(time: string | number | Date): string {
  const seconds = (new Date(time).getTime() - Date.now()) / 1000
  const format = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: 'auto' })
  for (const [unit, size] of UNITS) {
    if (Math.abs(seconds) >= size) return format.format(Math.round(seconds / size), unit)
  }
  return format.format(Math.round(seconds), 'second')
}

export function bytes(size: number): string {
  const units = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte']
  const step = size > 0 ? Math.min(Math.floor(Math.log10(size) / 3), units.length - 1) : 0
  return new Intl.NumberFormat(document.documentElement.lang, {
    style: 'unit',
    unit: units[step] ?? 'byte',
    unitDisplay: step === 0 ? 'long' : 'short',
    maximumFractionDigits: step === 0 ? 0 : 1,
  }).format(size / 1000 ** step)
}
