// What deep-agents-ui asks of its server, call by call, as its source of May 2026 does it.
import assert from "node:assert/strict";
import { mount } from "./dom.mjs";
import { AGENT, ELSEWHERE, LIST, NUMBERS, clientOf, eventually, human, newUser, read, results, said, scenario, script, task, write } from "./harness.mjs";
import { answered, usePage } from "./page.mjs";

const TODOS = ["write_todos", { todos: [{ content: "look", status: "completed" }] }];

/** The page finds the assistant of the graph that it was given, and lists the threads. */
async function open(client, atEnd, { threadId = null } = {}) {
  const assistants = await client.assistants.search({ graphId: AGENT, limit: 100 });
  const assistant = assistants.find((one) => one.metadata?.created_by === "system");
  assert.ok(assistant, "no assistant of the system");
  const page = await mount(usePage, {
    assistantId: assistant.assistant_id,
    client,
    reconnectOnMount: true,
    threadId,
    onThreadId: (id) => page.render({ threadId: id }),
    defaultHeaders: { "x-auth-scheme": "langsmith" },
    fetchStateHistory: true,
  });
  atEnd(page.unmount);
  page.assistant = assistant;
  page.config = { ...assistant.config, recursion_limit: 100 };
  page.threads = (status) =>
    client.threads.search({ limit: 20, offset: 0, sortBy: "updated_at", sortOrder: "desc", status });
  return page;
}

function send(page, words) {
  const message = human(words);
  page.now.stream.submit(
    { messages: [message] },
    { optimisticValues: (before) => ({ messages: [...(before.messages ?? []), message] }), config: page.config },
  );
}

const resume = (page, decision) => page.now.stream.submit(null, { command: { resume: { decisions: [decision] } } });

scenario("a chat, its plan, and the list of threads", async ({ atEnd }) => {
  const client = clientOf(await newUser());
  const page = await open(client, atEnd);
  assert.equal((await client.assistants.get(page.assistant.assistant_id)).graph_id, AGENT);
  send(page, script([TODOS, LIST], "planned"));
  await page.until(answered("planned"));
  if (!ELSEWHERE) assert.deepEqual(page.now.values.todos, TODOS[1].todos); // its graph makes no plans
  const [thread] = await page.threads("idle");
  if (!ELSEWHERE) assert.equal(thread.thread_id, page.options.threadId);
  assert.ok(thread.updated_at);
});

scenario("two gated calls, and one decision for each time the page asks", async ({ atEnd }) => {
  const client = clientOf(await newUser());
  const page = await open(client, atEnd);
  send(page, script([[write("a.txt"), write("b.txt")], [read("a.txt"), read("b.txt")]], "written"));
  const { value } = await page.until((now) => !now.isLoading && now.interrupt);
  assert.equal((value.action_requests ?? value.actionRequests).length, 2);
  if (!ELSEWHERE) assert.equal((await page.threads("interrupted")).length, 1);
  resume(page, { type: "approve" });
  if (ELSEWHERE) return; // there a thread is dead after an answer with too few decisions
  await page.until((now) => !now.isLoading && (now.error || now.interrupt));
  assert.equal((await client.threads.get(page.options.threadId)).status, "interrupted");
  page.now.stream.submit(null, { command: { resume: { decisions: [{ type: "approve" }, { type: "approve" }] } } });
  await page.until(answered("written"));
  assert.match(results(page.now.messages)[3], /from the agent/);
});

scenario("a question is rejected with words", async ({ client, atEnd }) => {
  const page = await open(client, atEnd);
  send(page, script([write()], "so be it"));
  await page.until((now) => !now.isLoading && now.interrupt);
  resume(page, { type: "reject", message: "not now" });
  await page.until(answered("so be it"));
  assert.match(results(page.now.messages)[0], /not now/);
});

scenario("a question is marked as resolved", async ({ client, atEnd }) => {
  const page = await open(client, atEnd);
  send(page, script([write()], "written"));
  await page.until((now) => !now.isLoading && now.interrupt);
  page.now.stream.submit(null, { command: { goto: "__end__", update: null } });
  await page.until((now) => !now.isLoading && !now.interrupt);
  await eventually(async () => (await client.threads.get(page.options.threadId)).status === "idle");
});

scenario("single steps: the run stops before its tools, and goes on", async ({ client, atEnd }) => {
  const page = await open(client, atEnd);
  const config = page.assistant.config;
  page.now.stream.submit({ messages: [human(script([LIST], "stepped"))] }, { config, interruptBefore: ["tools"] });
  await page.until((now) => !now.isLoading && now.messages.at(-1)?.tool_calls?.length);
  await eventually(async () => (await client.threads.getState(page.options.threadId)).next.includes("tools"));
  page.now.stream.submit(undefined, { config: page.config, interruptBefore: ["tools"] });
  await page.until(answered("stepped"));
});

scenario("single steps: a sub-agent's task stops after its tools", async ({ client, atEnd }) => {
  const page = await open(client, atEnd);
  const config = page.assistant.config;
  page.now.stream.submit({ messages: [human(script([task([], "below")], "stepped"))] }, { config, interruptBefore: ["tools"] });
  await page.until((now) => !now.isLoading && now.messages.at(-1)?.tool_calls?.length);
  page.now.stream.submit(undefined, { config: page.config, interruptAfter: ["tools"] });
  await page.until((now) => !now.isLoading && results(now.messages).length);
  assert.deepEqual(results(page.now.messages), ["below"]);
  page.now.stream.submit(undefined, { config: page.config, interruptBefore: ["tools"] });
  await page.until(answered("stepped"));
});

scenario("a step is run again from its checkpoint", async ({ client, atEnd }) => {
  const page = await open(client, atEnd);
  send(page, script([LIST], "again"));
  await page.until(answered("again"));
  const { firstSeenState } = await page.until(({ stream, messages }) => stream.getMessagesMetadata(messages[1]));
  const options = { config: page.assistant.config, checkpoint: firstSeenState.parent_checkpoint, interruptBefore: ["tools"] };
  page.now.stream.submit(undefined, { ...options, optimisticValues: { messages: page.now.messages.slice(0, 1) } });
  await page.until((now) => now.isLoading);
  await page.until((now) => !now.isLoading && now.messages.length === 2 && now.messages[1].tool_calls.length);
});

scenario("files that the graph's state does not keep are refused in words, and harm nothing", async ({ client, atEnd }) => {
  const page = await open(client, atEnd);
  send(page, script([], "hello"));
  await page.until(answered("hello"));
  if (ELSEWHERE) return; // its graph may keep them
  const files = { "/notes.md": "by hand" };
  await assert.rejects(client.threads.updateState(page.options.threadId, { values: { files } }), /the thread's graph keeps/);
  send(page, script([], "still here"));
  await page.until(answered("still here"));
});

scenario("a page that is loaded again in the middle of a run joins it", async ({ client, atEnd }) => {
  const first = await open(client, atEnd);
  send(first, script([], NUMBERS.join(" "), 0.05));
  await first.until((now) => said(now.messages).length);
  first.unmount();
  const again = await open(client, atEnd, { threadId: first.options.threadId });
  await again.until(answered(NUMBERS.join(" ")));
});

scenario("a run is stopped", async ({ client, atEnd }) => {
  const page = await open(client, atEnd);
  send(page, script([], NUMBERS.join(" "), 1));
  await page.until((now) => said(now.messages).length);
  await page.now.stream.stop();
  await eventually(async () => (await client.runs.list(page.options.threadId))[0].status === "interrupted");
});
