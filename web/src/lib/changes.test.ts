import { expect, it } from 'vitest'
import type { ThreadEvent } from '@/api/events'
import { applyEvents } from '@/state/applyEvent'
import { EMPTY } from '@/state/thread'
import { changedFiles } from './changes'

const FILES = import.meta.glob<string>('../../../tests/recordings/*.jsonl', {
  query: '?raw',
  import: 'default',
  eager: true,
})

function changed(scene: string) {
  const lines = FILES[`../../../tests/recordings/${scene}.jsonl`]?.trim().split('\n') ?? []
  const state = applyEvents(
    EMPTY,
    lines.map((line) => JSON.parse(line) as ThreadEvent),
  )
  return changedFiles(state.items, state.interrupts)
}

it('shows a written file with the diff that was approved', () => {
  const [file] = changed('edit-and-reject')
  expect(file?.path).toBe('/workspace/a.txt')
  expect(file?.changes[0]?.unified).toContain('+first')
})

it('shows what a sub-agent wrote', () =>
  expect(changed('subagent').map((file) => file.path)).toEqual(['/workspace/report.txt']))
it('shows nothing of what was rejected', () => expect(changed('cancelled')).toEqual([]))
