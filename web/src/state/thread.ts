import type {
  DecisionType,
  PendingInterrupt,
  RunStatus,
  Todo,
  ToolInput,
  ToolStatus,
  Usage,
} from '@/api/events'

/** What the user said. `queued`: the run that it starts has not begun. */
export interface UserItem {
  kind: 'user'
  key: string
  runId: string
  content: string
  queued: boolean
}

/** What a model said: one message of the root's agent or of a sub-agent. */
export interface MessageItem {
  kind: 'message'
  key: string
  runId: string
  agent: string
  parentCallId: string | undefined
  content: string
  thinking: string
  complete: boolean
  metadata: { model?: string; usage?: Usage; response_time?: number }
}

export interface OutputPart {
  stream: 'stdout' | 'stderr'
  text: string
}

export interface Decided {
  type: DecisionType
  by: string | undefined
  /** `resume`, `api`, `langgraph`, `cancel`, `expired` or `rule:<rule_id>` */
  via: string
  message: string | undefined
  executedInput: ToolInput | undefined
}

/** One call of a tool. `waiting`: a human is asked (`interruptId`). `finished`: whether it went well is not known here. */
export interface CallItem {
  kind: 'call'
  key: string
  runId: string
  callId: string
  toolName: string
  input: ToolInput
  agent: string
  parentCallId: string | undefined
  status: 'running' | 'waiting' | 'finished' | ToolStatus
  output: readonly OutputPart[]
  truncated: boolean
  result: string | undefined
  exitCode: number | undefined
  durationMs: number | undefined
  executedInput: ToolInput | undefined
  interruptId: string | undefined
  decision: Decided | undefined
}

export interface ErrorItem {
  kind: 'error'
  key: string
  runId: string
  code: string
  detail: string
  retryAfter: number | undefined
}

export interface EndItem {
  kind: 'end'
  key: string
  runId: string
  status: RunStatus
  usage: Usage
  rolledBack: boolean
}

export type Item = UserItem | MessageItem | CallItem | ErrorItem | EndItem

/** A question to a human, pending or decided; `seq` is of the event that last told of it. */
export interface Interrupt extends PendingInterrupt {
  seq: number
  runId: string
  decision: Decided | undefined
}

/** The run that goes on now. */
export interface ActiveRun {
  id: string
  /** From 2 on, another server goes on with it. */
  attempt: number
}

/** All that a thread's page shows. Replaced, never changed: what is the same object is the same. */
export interface ThreadState {
  /** Of the last event that went in; the next to ask for comes after it. */
  seq: number
  /** In the order in which they began, sub-agents' too. */
  items: readonly Item[]
  /** Every interrupt that was seen, by id, in the order in which they came. */
  interrupts: ReadonlyMap<string, Interrupt>
  /** Ids of those that wait for an answer now. */
  pending: readonly string[]
  todos: readonly Todo[]
  run: ActiveRun | undefined
  lastStatus: RunStatus | undefined
}

export const EMPTY: ThreadState = {
  seq: 0,
  items: [],
  interrupts: new Map(),
  pending: [],
  todos: [],
  run: undefined,
  lastStatus: undefined,
}
