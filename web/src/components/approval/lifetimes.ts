import { t } from '@/i18n'

const HOUR = 3600
const DAY = 24 * HOUR

/** How long a rule may hold, in seconds; the server allows 30 days at most. */
export const LIFETIMES = [HOUR, 8 * HOUR, DAY, 7 * DAY, 30 * DAY]

export function lifetimeWords(seconds: number): string {
  return seconds < DAY ? t.value.approval.hours(seconds / HOUR) : t.value.approval.days(seconds / DAY)
}
