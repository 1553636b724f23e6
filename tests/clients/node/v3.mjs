// `client.threads.stream()` of @langchain/langgraph-sdk: the third version of the protocol, over SSE and WebSockets.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import {
  AGENT,
  ELSEWHERE,
  LIST,
  NUMBERS,
  PER_CALL,
  clientOf,
  eventually,
  openProxy,
  post,
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

/** Open a thread's stream; it is closed when the scenario is over. */
function open(client, atEnd, options = {}, threadId = undefined) {
  const asked = { assistantId: AGENT, ...options };
  const thread = threadId ? client.threads.stream(threadId, asked) : client.threads.stream(asked);
  atEnd(() => thread.close());
  return thread;
}

/** What a browser does, which cannot set headers: the token goes as a subprotocol. */
const byToken = (user) => ({
  transport: "websocket",
  webSocketFactory: (url) => new WebSocket(url, ["bearer", user.token]),
});
const asBrowser = (user, options = {}) => clientOf({ headers: {} }, options);

async function converse(thread, input) {
  await thread.run.start({ input });
  return await thread.output;
}

scenario("a run's words, tools and states", async ({ client, atEnd }) => {
  const thread = open(client, atEnd);
  await thread.run.start({ input: say([LIST], "one two three", 0.03) });
  const words = [];
  const messages = (async () => {
    for await (const message of thread.messages) {
      if (message.namespace.length) continue; // a tool's result
      for await (const word of message.text) words.push(word);
      const output = await message.output;
      if (text(output)) return output;
    }
  })();
  for await (const call of thread.toolCalls) {
    assert.deepEqual([call.name, call.input], LIST);
    assert.ok(await call.output);
    break;
  }
  assert.equal(text(await messages), "one two three");
  assert.equal(words.join(""), "one two three");
  assert.ok(words.length > 1);
  assert.deepEqual(said((await thread.output).messages), ["one two three"]);
});

scenario("a conversation over several runs", async ({ client, atEnd }) => {
  const thread = open(client, atEnd);
  await converse(thread, say([], "first"));
  const { run_id: runId } = await thread.run.start({ input: say([], "second") });
  await client.runs.join(thread.threadId, runId);
  const { values } = await client.threads.getState(thread.threadId);
  assert.deepEqual(said(values.messages), ["first", "second"]);
});

scenario("a gated call asks, and is answered", async ({ client, atEnd }) => {
  const thread = open(client, atEnd, { assistantId: PER_CALL });
  await thread.run.start({ input: say([write(), read()], "written") });
  const [asked] = await eventually(() => thread.interrupted && thread.interrupts);
  assert.equal(asked.payload.name, "write_file");
  await thread.respondInput({ interrupt_id: asked.interruptId, namespace: asked.namespace, response: APPROVE });
  const { values } = await eventually(async () => {
    const state = await client.threads.getState(thread.threadId);
    return said(state.values.messages).length && state;
  });
  assert.match(results(values.messages)[1], /from the agent/);
});

scenario("several calls are answered in one command", async ({ client, atEnd }) => {
  const thread = open(client, atEnd, { assistantId: PER_CALL });
  await thread.run.start({ input: say([[write("a.txt"), write("b.txt")]], "written") });
  const asked = await eventually(() => thread.interrupted && thread.interrupts.length === 2 && [...thread.interrupts]);
  const answers = asked.map(({ interruptId, namespace }, index) => ({
    interrupt_id: interruptId,
    namespace,
    response: index ? { type: "reject", message: "no" } : APPROVE,
  }));
  await thread.respondInput({ responses: answers });
  const { values } = await eventually(async () => {
    const state = await client.threads.getState(thread.threadId);
    return said(state.values.messages).length && state;
  });
  assert.equal(results(values.messages).filter((result) => result.includes("no")).length, 1);
});

scenario("an answer that nobody waits for is refused", async ({ client, atEnd }) => {
  const thread = open(client, atEnd);
  await converse(thread, say([], "first"));
  const answer = { interrupt_id: randomUUID().replaceAll("-", ""), namespace: [], response: APPROVE };
  await assert.rejects(thread.input.respond(answer), { code: "no_such_interrupt" });
});

scenario("a sub-agent is found and heard", async ({ client, atEnd }) => {
  const thread = open(client, atEnd);
  await thread.run.start({ input: say([task([LIST], "from below")], "done") });
  for await (const subagent of thread.subagents) {
    assert.equal(subagent.name, "general-purpose");
    assert.match(await subagent.taskInput, /from below/);
    assert.ok(await subagent.output);
    break;
  }
});

scenario("a run that fails", async ({ client, atEnd }) => {
  const thread = open(client, atEnd);
  const events = await thread.subscribe({ channels: ["lifecycle"] });
  await thread.run.start({ input: say([LIST]), config: { recursion_limit: 1 } });
  for await (const { params } of events) {
    if (params.namespace.length || params.data.event !== "failed") continue;
    assert.ok(params.data.error);
    return;
  }
  assert.fail("the stream ended");
});

scenario("unknown commands and channels are refused", async ({ client, atEnd }) => {
  const thread = open(client, atEnd);
  await converse(thread, say([], "first"));
  await assert.rejects(thread.state.get({}), /unknown_command|not_supported|Unknown|support/i);
  const stranger = open(client, atEnd, { assistantId: "nobody" });
  await assert.rejects(stranger.run.start({ input: say() }));
});

scenario("the graph is shown", async ({ client, atEnd }) => {
  const thread = open(client, atEnd);
  await thread.run.start({ input: say([], NUMBERS.join(" "), 0.03) });
  assert.equal(typeof (await thread.agent.getTree()), "object");
  await thread.output;
});

scenario("a second stream of a thread hears what was, and what comes", async ({ client, atEnd }) => {
  const thread = open(client, atEnd);
  await converse(thread, say([], "first"));
  const again = open(client, atEnd, {}, thread.threadId);
  const events = await again.subscribe({ channels: ["messages"] });
  await thread.run.start({ input: say([], "second") });
  let heard = "";
  for await (const { params } of events) {
    heard += params.data.delta?.text ?? "";
    if (heard.includes("second")) break;
  }
  assert.equal(heard, "firstsecond");
});

scenario("a connection that breaks is mended without a gap or a copy", async ({ user, client, atEnd }) => {
  const proxy = await openProxy();
  atEnd(proxy.close);
  const thread = open(clientOf(user, { apiUrl: proxy.url }), atEnd, { reconnectDelayMs: () => 50 });
  await thread.run.start({ input: say([], NUMBERS.join(" "), 0.03) });
  for await (const message of thread.messages) {
    let heard = "";
    for await (const word of message.text) {
      const before = heard;
      heard += word;
      if (heard.includes("20") && !before.includes("20")) proxy.cut();
    }
    assert.deepEqual(heard.trim().split(" "), NUMBERS);
    return;
  }
});

// WebSockets ----------------------------------------------------------------------------------------------------------

scenario("a browser's socket: the token as a subprotocol", async ({ user, client, atEnd }) => {
  const thread = open(asBrowser(user), atEnd, ELSEWHERE ? { transport: "websocket" } : byToken(user));
  const values = await converse(thread, say([LIST], "over a socket"));
  assert.deepEqual(said(values.messages), ["over a socket"]);
  assert.deepEqual(said((await client.threads.getState(thread.threadId)).values.messages), ["over a socket"]);
});

scenario("a browser's socket: a ticket that works once", async ({ user, atEnd }) => {
  if (ELSEWHERE) return; // tickets are Moorage's own
  const { ticket } = await post("/api/auth/ws-ticket", {}, user.headers);
  const byTicket = { transport: "websocket", webSocketFactory: (url) => new WebSocket(`${url}?ticket=${ticket}`) };
  const thread = open(asBrowser(user), atEnd, byTicket);
  assert.deepEqual(said((await converse(thread, say([], "with a ticket"))).messages), ["with a ticket"]);
  const again = open(asBrowser(user), atEnd, { ...byTicket, maxReconnectAttempts: 0 });
  await assert.rejects(again.run.start({ input: say() }));
});

scenario("a gated call is answered over a socket", async ({ user, client, atEnd }) => {
  const how = ELSEWHERE ? { transport: "websocket" } : byToken(user);
  const thread = open(asBrowser(user), atEnd, { assistantId: PER_CALL, ...how });
  await thread.run.start({ input: say([write()], "written") });
  const [asked] = await eventually(() => thread.interrupted && thread.interrupts);
  await thread.respondInput({ interrupt_id: asked.interruptId, namespace: asked.namespace, response: APPROVE });
  await eventually(async () => said((await client.threads.getState(thread.threadId)).values.messages).length);
});

scenario("a socket that breaks is mended without a gap or a copy", async ({ user, atEnd }) => {
  const proxy = await openProxy();
  atEnd(proxy.close);
  const how = ELSEWHERE ? { transport: "websocket" } : byToken(user);
  const thread = open(asBrowser(user, { apiUrl: proxy.url }), atEnd, { ...how, reconnectDelayMs: () => 50 });
  await thread.run.start({ input: say([], NUMBERS.join(" "), 0.03) });
  for await (const message of thread.messages) {
    let heard = "";
    for await (const word of message.text) {
      const before = heard;
      heard += word;
      if (heard.includes("20") && !before.includes("20")) proxy.cut();
    }
    assert.deepEqual(heard.trim().split(" "), NUMBERS);
    return;
  }
});
