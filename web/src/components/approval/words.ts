import { t } from '@/i18n'
import { me } from '@/stores/me'
import type { Interrupt } from '@/state/thread'
import type { Asked } from '@/stores/approvals'
import { actOf, pathOf, viaKind } from './logic'

/** What a call would do, in words, and to what: the file or the whole command, "" for other tools. */
export function headline(asked: Pick<Interrupt, 'tool_name' | 'tool_input'>): { act: string; what: string } {
  const act = actOf(asked.tool_name)
  if (act === 'other') return { act: t.value.approval.acts.other(asked.tool_name), what: '' }
  const command = asked.tool_input.command
  const what = act === 'execute' ? command : pathOf(asked.tool_name, asked.tool_input)
  return { act: t.value.approval.acts[act], what: typeof what === 'string' ? what : '' }
}

/** What became of a decided one, in words: by whom, and by which way. */
export function becameOf(asked: Asked): { title: string; how: string; good: boolean } | undefined {
  const { decision } = asked
  if (!decision) return undefined
  const words = t.value.approval
  const kind = viaKind(decision.via)
  const became: Record<string, string> = { cancel: 'cancelled', expired: 'expired', superseded: 'superseded' }
  const outcome = (became[kind] ?? decision.type) as keyof typeof words.became
  const ways: Record<string, string> = words.via
  const who = decision.by === undefined || kind === 'rule' ? '' : whoWords(decision.by)
  return {
    title: words.became[outcome],
    how: [who, ways[kind] ?? decision.via].filter(Boolean).join(' '),
    good: outcome === 'approve' || outcome === 'edit' || outcome === 'respond',
  }
}

function whoWords(user: string): string {
  const words = t.value.approval
  return user === me.value?.user_id ? words.byYou : words.byOther(user)
}
