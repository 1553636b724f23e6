import type { EventData, PendingInterrupt, ThreadEvent, ToolInput } from '@/api/events'
import {
  EMPTY,
  type ActiveRun,
  type CallItem,
  type Decided,
  type Interrupt,
  type Item,
  type MessageItem,
  type ThreadState,
} from './thread'

/** The state after one more event. Pure; an event that went in already changes nothing. */
export function applyEvent(state: ThreadState, event: ThreadEvent): ThreadState {
  return applyEvents(state, [event])
}

/** The state after these events, which follow one another. Costs one copy of the lists, however many they are. */
export function applyEvents(state: ThreadState, events: readonly ThreadEvent[]): ThreadState {
  const draft = new Draft(state)
  for (const event of events) {
    if (event.seq > draft.seq) draft.apply(event)
  }
  return draft.seq === state.seq ? state : draft.finish()
}

class Draft {
  seq: number
  private readonly items: Item[]
  private readonly interrupts: Map<string, Interrupt>
  private pending: readonly string[]
  private todos: ThreadState['todos']
  private run: ActiveRun | undefined
  private lastStatus: ThreadState['lastStatus']

  constructor(state: ThreadState) {
    this.seq = state.seq
    this.items = [...state.items]
    this.interrupts = new Map(state.interrupts)
    this.pending = state.pending
    this.todos = state.todos
    this.run = state.run
    this.lastStatus = state.lastStatus
  }

  finish(): ThreadState {
    const { seq, items, interrupts, pending, todos, run, lastStatus } = this
    return { seq, items, interrupts, pending, todos, run, lastStatus }
  }

  apply(event: ThreadEvent): void {
    this.seq = event.seq
    switch (event.type) {
      case 'message_received':
        return this.messageReceived(event.data)
      case 'agent_start':
        return this.agentStart(event.data)
      case 'content_stream':
        return this.contentStream(event.data)
      case 'message_complete':
        return this.messageComplete(event.data)
      case 'tool_call':
        return this.toolCall(event.data)
      case 'tool_output':
        return this.toolOutput(event.data)
      case 'tool_result':
        return this.toolResult(event.data)
      case 'todo_update':
        if (event.data.parent_call_id === undefined) this.todos = event.data.todos
        return
      case 'interrupt':
        return this.interrupt(event.data)
      case 'decision':
        return this.decision(event.data)
      case 'error':
        return this.error(event.data)
      case 'run_end':
        return this.runEnd(event.data)
    }
  }

  private messageReceived(data: EventData['message_received']): void {
    const queued = this.run !== undefined && this.run.id !== data.run_id
    this.items.push({ kind: 'user', key: data.message_id, runId: data.run_id, content: data.content, queued })
    this.run ??= { id: data.run_id, attempt: 1 }
  }

  private agentStart(data: EventData['agent_start']): void {
    if (data.parent_call_id !== undefined) return
    const attempt = data.attempt ?? 1
    this.run = { id: data.run_id, attempt }
    this.dequeue(data.run_id)
    if (attempt > 1) this.dropUnfinished(data.run_id)
  }

  /** The model is asked again: what it had not finished saying is no part of the thread. */
  private dropUnfinished(runId: string): void {
    for (let place = this.items.length - 1; place >= 0; place--) {
      const item = this.items[place]
      if (item?.kind === 'message' && item.runId === runId && !item.complete) this.items.splice(place, 1)
    }
  }

  private contentStream(data: EventData['content_stream']): void {
    const thinking = data.thinking_delta ?? ''
    const place = this.messagePlace(data.message_id)
    if (place < 0) {
      this.items.push(this.newMessage(data, data.content_delta, thinking))
      return
    }
    const said = this.items[place] as MessageItem
    if (said.complete) return
    this.items[place] = {
      ...said,
      content: said.content + data.content_delta,
      thinking: said.thinking + thinking,
    }
  }

  private messageComplete(data: EventData['message_complete']): void {
    const place = this.messagePlace(data.message_id)
    const said = place < 0 ? this.newMessage(data, '', '') : (this.items[place] as MessageItem)
    const whole: MessageItem = {
      ...said,
      content: data.final_content,
      complete: true,
      metadata: data.metadata,
    }
    if (place < 0) this.items.push(whole)
    else this.items[place] = whole
  }

  private newMessage(
    data: { message_id: string; agent: string; parent_call_id?: string },
    content: string,
    thinking: string,
  ): MessageItem {
    return {
      kind: 'message',
      key: data.message_id,
      runId: this.run?.id ?? '',
      agent: data.agent,
      parentCallId: data.parent_call_id,
      content,
      thinking,
      complete: false,
      metadata: {},
    }
  }

  private toolCall(data: EventData['tool_call']): void {
    const place = this.messagePlace(data.message_id) // one without text is never said to be complete
    const said = this.items[place]
    if (said?.kind === 'message' && !said.complete) this.items[place] = { ...said, complete: true }
    this.items.push(
      this.newCall(data.call_id, data.tool_name, data.tool_input, data.agent, data.parent_call_id),
    )
  }

  private newCall(
    callId: string,
    toolName: string,
    input: ToolInput,
    agent: string,
    parentCallId: string | undefined,
  ): CallItem {
    return {
      kind: 'call',
      key: `call:${this.seq}:${callId}`, // models may repeat their ids
      runId: this.run?.id ?? '',
      callId,
      toolName,
      input,
      agent,
      parentCallId,
      status: 'running',
      output: [],
      truncated: false,
      result: undefined,
      exitCode: undefined,
      durationMs: undefined,
      executedInput: undefined,
      interruptId: undefined,
      decision: undefined,
    }
  }

  private toolOutput(data: EventData['tool_output']): void {
    this.changeCall(data.call_id, (call) => {
      if (data.delta === undefined) return { ...call, truncated: call.truncated || data.truncated === true }
      const last = call.output.at(-1)
      const output =
        last?.stream === data.stream
          ? [...call.output.slice(0, -1), { stream: data.stream, text: last.text + data.delta }]
          : [...call.output, { stream: data.stream, text: data.delta }]
      return { ...call, output }
    })
  }

  private toolResult(data: EventData['tool_result']): void {
    this.changeCall(data.call_id, (call) => ({
      ...call,
      status: data.status,
      result: data.result,
      exitCode: data.exit_code,
      durationMs: data.duration_ms,
      executedInput: data.executed_input ?? call.executedInput,
    }))
  }

  private interrupt(data: EventData['interrupt']): void {
    for (const item of data.interrupts) {
      const before = this.interrupts.get(item.id)
      const runId = before?.runId ?? this.run?.id ?? ''
      const same = before !== undefined && before.digest === item.digest && before.decision === undefined
      if (!same) this.interrupts.set(item.id, { ...item, seq: this.seq, runId, decision: undefined })
      this.changeCall(item.call_id, (call) => ({ ...call, status: 'waiting', interruptId: item.id }))
    }
    this.pending = data.interrupts.map((item) => item.id)
  }

  private decision(data: EventData['decision']): void {
    const decision: Decided = {
      type: data.type,
      by: data.decided_by,
      via: data.decided_via,
      message: data.message,
      executedInput: data.executed_input,
    }
    const asked = data.interrupt_id === undefined ? undefined : this.interrupts.get(data.interrupt_id)
    if (asked) {
      this.interrupts.set(asked.id, { ...asked, decision })
      this.pending = this.pending.filter((id) => id !== asked.id)
    }
    this.changeCall(data.call_id, (call) => ({
      ...call,
      status: data.type === 'reject' ? 'rejected' : 'running',
      executedInput: data.executed_input ?? call.executedInput,
      decision,
    }))
  }

  private error(data: EventData['error']): void {
    this.items.push({
      kind: 'error',
      key: `error:${this.seq}`,
      runId: data.run_id,
      code: data.code,
      detail: data.detail,
      retryAfter: data.retry_after,
    })
  }

  private runEnd(data: EventData['run_end']): void {
    const { run_id: runId, status, usage } = data
    this.dequeue(runId)
    for (const [place, item] of this.items.entries()) {
      if (item.kind === 'message' && item.runId === runId && !item.complete) {
        this.items[place] = { ...item, complete: true }
      }
      if (
        item.kind === 'call' &&
        item.runId === runId &&
        item.status === 'running' &&
        status !== 'interrupted'
      ) {
        this.items[place] = { ...item, status: 'outcome_unknown' }
      }
    }
    this.items.push({
      kind: 'end',
      key: `end:${this.seq}`,
      runId,
      status,
      usage,
      rolledBack: data.rolled_back === true,
    })
    this.lastStatus = status
    if (this.run === undefined || this.run.id === runId) {
      const next = this.items.find((item) => item.kind === 'user' && item.queued)
      this.run = next ? { id: next.runId, attempt: 1 } : undefined
    }
  }

  private dequeue(runId: string): void {
    for (const [place, item] of this.items.entries()) {
      if (item.kind === 'user' && item.queued && item.runId === runId)
        this.items[place] = { ...item, queued: false }
    }
  }

  private messagePlace(id: string): number {
    return this.items.findLastIndex((item) => item.kind === 'message' && item.key === id)
  }

  /** Of several calls with this id, the latest. */
  private changeCall(callId: string, change: (call: CallItem) => CallItem): void {
    const place = this.items.findLastIndex((item) => item.kind === 'call' && item.callId === callId)
    if (place >= 0) this.items[place] = change(this.items[place] as CallItem)
  }
}

/** What `GET /api/sessions/{id}/state` answers, as far as it is needed here. */
export interface Snapshot {
  thread: { run_status: string }
  messages: readonly SnapshotMessage[]
  pending: readonly (PendingInterrupt & { run_id?: string })[]
  last_seq: number
}

export interface SnapshotMessage {
  id: string
  run_id: string
  role: 'user' | 'assistant' | 'tool'
  content: string
  thinking?: string | null
  tool_calls?: readonly { call_id: string; tool_name: string; tool_input: ToolInput }[] | null
  call_id?: string | null
}

/** The state of a thread whose first events are not kept any more: its messages, and what waits. */
export function fromSnapshot(snapshot: Snapshot): ThreadState {
  let state: ThreadState = EMPTY
  let runId = ''
  for (const message of snapshot.messages) {
    runId = message.run_id
    for (const event of eventsOf(message)) {
      state = { ...state, seq: 0, run: { id: runId, attempt: 1 } }
      state = applyEvents(state, [event])
    }
  }
  const run = snapshot.thread.run_status === 'busy' ? { id: runId, attempt: 1 } : undefined
  if (snapshot.pending.length > 0) {
    const interrupts = [...snapshot.pending]
    state = applyEvents({ ...state, seq: 0 }, [{ seq: 1, type: 'interrupt', data: { interrupts } }])
  }
  const items = state.items.map((item, place): Item => {
    if (item.kind !== 'call') return item
    const status = item.result === undefined ? item.status : 'finished' // histories do not tell how calls went
    return { ...item, key: `call:${place}`, status }
  })
  return { ...state, items, run, seq: snapshot.last_seq }
}

function eventsOf(message: SnapshotMessage): ThreadEvent[] {
  const { id, run_id, content, thinking, tool_calls: calls } = message
  const agent = 'agent'
  if (message.role === 'user') {
    return [{ seq: 1, type: 'message_received', data: { message_id: id, run_id, thread_id: '', content } }]
  }
  if (message.role === 'tool') {
    const call_id = message.call_id ?? ''
    const data = {
      call_id,
      message_id: id,
      status: 'success' as const,
      result: content,
      duration_ms: 0,
      agent,
    }
    return [{ seq: 1, type: 'tool_result', data }]
  }
  const said = { message_id: id, agent, content_delta: '', ...(thinking ? { thinking_delta: thinking } : {}) }
  const events: ThreadEvent[] = []
  if (thinking) events.push({ seq: 1, type: 'content_stream', data: said })
  if (content) {
    events.push({
      seq: 1,
      type: 'message_complete',
      data: { message_id: id, final_content: content, agent, metadata: {} },
    })
  }
  for (const call of calls ?? [])
    events.push({ seq: 1, type: 'tool_call', data: { ...call, message_id: id, agent } })
  return events
}
