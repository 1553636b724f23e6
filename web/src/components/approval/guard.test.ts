import { effectScope } from 'vue'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { GUARD_MS, rearmAll, useGuard } from './guard'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

it('opens only some time after it appeared, and after each change', () => {
  const scope = effectScope()
  const { armed, rearm } = scope.run(useGuard) as ReturnType<typeof useGuard>
  expect(armed.value).toBe(false)
  vi.advanceTimersByTime(GUARD_MS - 1)
  expect(armed.value).toBe(false)
  vi.advanceTimersByTime(1)
  expect(armed.value).toBe(true)
  rearm()
  expect(armed.value).toBe(false)
  vi.advanceTimersByTime(GUARD_MS)
  expect(armed.value).toBe(true)
  rearmAll()
  expect(armed.value).toBe(false)
  scope.stop()
  vi.advanceTimersByTime(GUARD_MS)
  expect(armed.value).toBe(false)
})
