/** The events of a thread's log, as design/events.md describes them. */

interface OfAgent {
  agent: string
  /** The `task` call of the sub-agent that did this; absent for the root's. */
  parent_call_id?: string
}

export interface Usage {
  input_tokens?: number
  output_tokens?: number
  total_tokens?: number
  model_calls?: number
}

export interface Todo {
  content: string
  status: 'pending' | 'in_progress' | 'completed'
}

export interface Facts {
  sandbox: string
  runtime: string
  network: string
  folder: string
  limits: {
    cpus?: number
    memory_mb?: number
    pids?: number
    command_seconds?: number
    [name: string]: unknown
  }
  allowed_hosts?: string[]
  /** Characters that hide something, by field. */
  warnings?: { field: string; characters: string[]; count: number }[]
  /** Codes of shapes that deserve a second look. */
  risks?: string[]
  /** What the diff of a file cannot say. */
  note?: string
}

export type DecisionType = 'approve' | 'edit' | 'reject' | 'respond'
export type ToolInput = Record<string, unknown>

export interface PendingInterrupt {
  id: string
  call_id: string
  tool_name: string
  tool_input: ToolInput
  description: string
  allowed_decisions: DecisionType[]
  facts: Facts
  diff?: string
  digest: string
  expires_at: string
  agent?: string
  parent_call_id?: string
}

export type RunStatus = 'success' | 'interrupted' | 'error' | 'timeout' | 'cancelled'
export type ToolStatus = 'success' | 'error' | 'rejected' | 'outcome_unknown'

export interface EventData {
  message_received: { message_id: string; run_id: string; thread_id: string; content: string }
  agent_start: { run_id: string; agent: string; attempt?: number; parent_call_id?: string }
  content_stream: OfAgent & { message_id: string; content_delta: string; thinking_delta?: string }
  message_complete: OfAgent & {
    message_id: string
    final_content: string
    metadata: { model?: string; usage?: Usage; response_time?: number }
  }
  tool_call: OfAgent & { call_id: string; message_id: string; tool_name: string; tool_input: ToolInput }
  tool_output: OfAgent & { call_id: string; stream: 'stdout' | 'stderr'; delta?: string; truncated?: true }
  tool_result: OfAgent & {
    call_id: string
    message_id: string
    status: ToolStatus
    result: string
    exit_code?: number
    duration_ms: number
    executed_input?: ToolInput
  }
  todo_update: OfAgent & { todos: Todo[] }
  interrupt: { interrupts: PendingInterrupt[] }
  decision: {
    interrupt_id?: string
    call_id: string
    type: DecisionType
    decided_by?: string
    /** `resume`, `api`, `langgraph`, `cancel`, `expired` or `rule:<rule_id>` */
    decided_via: string
    executed_input?: ToolInput
    message?: string
    parent_call_id?: string
  }
  error: { code: string; detail: string; retry_after?: number; run_id: string }
  run_end: { run_id: string; status: RunStatus; usage: Usage; rolled_back?: true }
}

export type EventType = keyof EventData
export type ThreadEvent = { [T in EventType]: { seq: number; type: T; data: EventData[T] } }[EventType]
