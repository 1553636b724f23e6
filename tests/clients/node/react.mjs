// `useStream` of @langchain/react, and the hooks beside it, as a page uses them.
import assert from "node:assert/strict";
import { useMessages, useStream, useToolCalls } from "@langchain/react";
import { mount } from "./dom.mjs";
import {
  AGENT,
  ELSEWHERE,
  LIST,
  NUMBERS,
  PER_CALL,
  SLOW,
  URL_OF_SERVER,
  eventually,
  openProxy,
  read,
  results,
  said,
  say,
  scenario,
  task,
  text,
  write,
} from "./harness.mjs";

const APPROVE = { type: "approve" };

/** A page that shows a thread, or one that begins with a new one. */
async function show(user, atEnd, options = {}, useHook = useStream) {
  const page = await mount(useHook, {
    apiUrl: URL_OF_SERVER,
    apiKey: null,
    assistantId: AGENT,
    defaultHeaders: user.headers,
    threadId: null,
    onThreadId: (threadId) => page.render({ threadId }),
    ...options,
  });
  atEnd(page.unmount);
  return page;
}

const answered = (answer) => (stream) => !stream.isLoading && said(stream.messages).at(-1) === answer;

async function talk(page, answer, ...calls) {
  await page.until((stream) => !stream.isThreadLoading);
  page.now.submit(say(calls, answer));
  await page.until(answered(answer));
}

scenario("a message is sent and its answer appears word by word", async ({ user, atEnd }) => {
  const lengths = new Set();
  const events = [];
  const page = await show(user, atEnd, {
    onCreated: ({ runId }) => events.push(["created", typeof runId]),
    onCompleted: ({ reason }) => events.push(["completed", reason]),
  }, (options) => {
    const stream = useStream(options);
    const last = stream.messages.at(-1);
    if (last?.getType() === "ai") lengths.add(text(last).length);
    return stream;
  });
  page.now.submit(say([], "one two three four five six", 0.1));
  await page.until(answered("one two three four five six"));
  assert.deepEqual(page.now.messages.map((message) => message.getType()), ["human", "ai"]);
  assert.ok(lengths.size > 2, `it came at once: ${[...lengths]}`);
  assert.equal(page.now.error, undefined);
  assert.equal(page.now.threadId, page.options.threadId);
  await eventually(() => events.length === 2);
  assert.deepEqual(events, [["created", "string"], ["completed", "success"]]);
});

scenario("a conversation over several messages, with tools", async ({ user, client, atEnd }) => {
  const page = await show(user, atEnd);
  await talk(page, "first", LIST);
  await talk(page, "second");
  assert.deepEqual(page.now.messages.map((message) => message.getType()), ["human", "ai", "tool", "ai", "human", "ai"]);
  const [call] = page.now.toolCalls;
  assert.deepEqual([call.name, call.input, call.status], [...LIST, "finished"]);
  const { values } = await client.threads.getState(page.now.threadId);
  assert.deepEqual(values.messages.map((message) => message.id), page.now.messages.map((message) => message.id));
});

scenario("a gated call asks and an answer goes on", async ({ user, atEnd }) => {
  const page = await show(user, atEnd, { assistantId: PER_CALL });
  page.now.submit(say([write(), read()], "written"));
  const asked = await page.until((stream) => !stream.isLoading && stream.interrupt);
  assert.equal(asked.value.name, "write_file");
  assert.equal(page.now.interrupts.length, 1);
  page.now.respond(APPROVE, { interruptId: asked.id });
  await page.until(answered("written"));
  assert.deepEqual(page.now.interrupts, []);
  assert.match(results(page.now.messages)[1], /from the agent/);
});

scenario("two gated calls are answered together, each as it is", async ({ user, atEnd }) => {
  const page = await show(user, atEnd, { assistantId: PER_CALL });
  page.now.submit(say([[write("a.txt"), write("b.txt")]], "written"));
  const asked = await page.until((stream) => !stream.isLoading && stream.interrupts.length === 2 && stream.interrupts);
  page.now.respondAll({ [asked[0].id]: APPROVE, [asked[1].id]: { type: "reject", message: "not this one" } });
  await page.until(answered("written"));
  assert.equal(results(page.now.messages).filter((result) => result.includes("not this one")).length, 1);
});

scenario("a page that is loaded again shows the conversation", async ({ user, atEnd }) => {
  const first = await show(user, atEnd);
  await talk(first, "first", LIST);
  first.unmount();
  const again = await show(user, atEnd, { threadId: first.options.threadId });
  await again.until((stream) => !stream.isThreadLoading && stream.messages.length === 4);
  assert.equal(again.now.isLoading, false);
  await talk(again, "second");
  assert.deepEqual(said(again.now.messages), ["first", "second"]);
});

scenario("a page that is loaded again shows what is asked, and answers", async ({ user, atEnd }) => {
  const first = await show(user, atEnd, { assistantId: PER_CALL });
  first.now.submit(say([[write("a.txt"), write("b.txt")]], "written"));
  const before = await first.until((stream) => !stream.isLoading && stream.interrupts.length === 2 && stream.interrupts);
  first.unmount();
  const again = await show(user, atEnd, { assistantId: PER_CALL, threadId: first.options.threadId });
  const asked = await again.until((stream) => !stream.isThreadLoading && stream.interrupts.length === 2 && stream.interrupts);
  assert.deepEqual(asked.map((one) => one.id).sort(), before.map((one) => one.id).sort());
  again.now.respondAll(Object.fromEntries(asked.map((one) => [one.id, APPROVE])));
  await again.until(answered("written"));
});

scenario("a second page sees the run that goes on", async ({ user, atEnd }) => {
  const first = await show(user, atEnd);
  first.now.submit(say([], NUMBERS.join(" "), 0.05));
  await first.until((stream) => said(stream.messages).length);
  const second = await show(user, atEnd, { threadId: first.options.threadId });
  await second.until((stream) => stream.isLoading);
  await Promise.all([first, second].map((page) => page.until(answered(NUMBERS.join(" ")))));
});

scenario("a run is stopped, and the next one works", async ({ user, client, atEnd }) => {
  const page = await show(user, atEnd);
  page.now.submit(SLOW());
  await page.until((stream) => said(stream.messages).length);
  await page.now.stop();
  await page.until((stream) => !stream.isLoading);
  const threadId = page.options.threadId;
  await eventually(async () => (await client.runs.list(threadId))[0].status === "interrupted");
  page.now.submit(say([], "after the stop"));
  await page.until((stream) => !stream.isLoading && said(stream.messages).includes("after the stop"));
});

scenario("a page that goes away leaves its run alone", async ({ user, client, atEnd }) => {
  const page = await show(user, atEnd);
  page.now.submit(say([], NUMBERS.join(" "), 0.02));
  await page.until((stream) => said(stream.messages).length);
  await page.now.disconnect();
  page.unmount();
  const [run] = await client.runs.list(page.options.threadId);
  assert.deepEqual(said((await client.runs.join(page.options.threadId, run.run_id)).messages ?? [{ type: "ai", content: NUMBERS.join(" ") }]), [NUMBERS.join(" ")]);
  assert.equal((await client.runs.get(page.options.threadId, run.run_id)).status, "success");
});

scenario("messages sent while a run goes on wait their turn", async ({ user, atEnd }) => {
  const page = await show(user, atEnd);
  page.now.submit(say([], "first of two", 0.2));
  await page.until((stream) => said(stream.messages).length);
  page.now.submit(say([], "second"), { multitaskStrategy: "enqueue" });
  await page.until(answered("second"));
  assert.deepEqual(said(page.now.messages), ["first of two", "second"]);
});

scenario("a sub-agent has a card of its own", async ({ user, atEnd }) => {
  const useCards = (options) => {
    const stream = useStream(options);
    const subagent = [...stream.subagents.values()][0];
    const target = subagent ?? ["nobody"];
    return { ...stream, subagent, below: useMessages(stream, target), tools: useToolCalls(stream, target) };
  };
  const page = await show(user, atEnd, {}, useCards);
  page.now.submit(say([task([LIST], "from below")], "done"));
  await page.until(answered("done"));
  await page.until(({ subagent }) => subagent?.status === "complete");
  assert.deepEqual([page.now.subagent.name, page.now.subagent.depth], ["general-purpose", 1]);
  await page.until(({ below }) => below.length); // this version of the hook loses later ones of a quick sub-agent
  await page.until(({ tools }) => tools.some((call) => call.name === "ls" && call.status === "finished"));
  assert.deepEqual(said(page.now.messages), ["done"]);
  page.unmount();
  const again = await show(user, atEnd, { threadId: page.options.threadId }, useCards);
  await again.until(({ subagent }) => subagent?.status === "complete");
  await again.until(({ below }) => said(below).at(-1) === "from below");
});

scenario("a run that fails shows its error", async ({ user, atEnd }) => {
  const page = await show(user, atEnd);
  page.now.submit(say([LIST]), { config: { recursion_limit: 1 } });
  await page.until((stream) => !stream.isLoading && stream.error);
  // Both connections of this hook tell of the end: what is sent between the two takes the later one for its own.
  await new Promise((resolve) => setTimeout(resolve, 300));
  await talk(page, "after the error");
  assert.equal(page.now.error, undefined);
});

scenario("another answer to an older question", async ({ user, client, atEnd }) => {
  const page = await show(user, atEnd);
  await talk(page, "first");
  const { checkpoint } = await client.threads.getState(page.options.threadId);
  await talk(page, "second");
  page.now.submit(say([], "other"), { forkFrom: checkpoint.checkpoint_id });
  await page.until(answered("other"));
  assert.deepEqual(said(page.now.messages), ["first", "other"]);
});

scenario("a network that breaks is not seen on the page", async ({ user, atEnd }) => {
  const proxy = await openProxy();
  atEnd(proxy.close);
  const page = await show(user, atEnd, { apiUrl: proxy.url, reconnectDelayMs: () => 50 });
  page.now.submit(say([], NUMBERS.join(" "), 0.05));
  await page.until((stream) => said(stream.messages).at(-1)?.includes("20"));
  proxy.cut();
  await page.until(answered(NUMBERS.join(" ")));
  assert.equal(page.now.error, undefined);
});

scenario("a page over a WebSocket", async ({ user, atEnd }) => {
  const webSocketFactory = (url) => (ELSEWHERE ? new WebSocket(url) : new WebSocket(url, ["bearer", user.token]));
  // A socket takes no headers: the page's other requests are the client's own affair.
  const { Client } = await import("@langchain/langgraph-sdk");
  const fetchAs = (url, init) => fetch(url, { ...init, headers: { ...init?.headers, ...user.headers } });
  const client = new Client({ apiUrl: URL_OF_SERVER, apiKey: null, callerOptions: { fetch: fetchAs } });
  const page = await show(user, atEnd, { client, defaultHeaders: undefined, transport: "websocket", webSocketFactory });
  await talk(page, "over a socket", LIST);
  assert.deepEqual(said(page.now.messages), ["over a socket"]);
});
