// What agent-chat-ui asks of its server, call by call, as its source of July 2026 does it.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";
import { mount } from "./dom.mjs";
import {
  AGENT,
  ELSEWHERE,
  LIST,
  URL_OF_SERVER,
  clientOf,
  eventually,
  human,
  newUser,
  post,
  read,
  results,
  said,
  scenario,
  script,
  text,
  write,
} from "./harness.mjs";
import { answered, usePage } from "./page.mjs";

const STREAM = { streamMode: ["values"], streamSubgraphs: true, streamResumable: true };

/** The page: it knows its server, the name of the graph, and an API key that its user pasted. */
async function open(user, atEnd, { threadId = null } = {}) {
  const apiKey = ELSEWHERE ? undefined : (await post("/api/auth/keys", { name: "agent-chat-ui" }, user.headers)).key;
  const page = await mount(usePage, {
    apiUrl: URL_OF_SERVER,
    apiKey,
    assistantId: AGENT,
    defaultHeaders: { "X-Auth-Scheme": "langsmith-api-key" },
    threadId,
    fetchStateHistory: true,
    onThreadId: (id) => page.render({ threadId: id }),
  });
  atEnd(page.unmount);
  page.client = new Client({ apiUrl: URL_OF_SERVER, apiKey });
  page.threads = () => page.client.threads.search({ metadata: { graph_id: AGENT }, limit: 100 });
  return page;
}

/** The field at the bottom of the page: calls that nobody answered get a result that says nothing. */
function send(page, words) {
  const { stream, messages } = page.now;
  const message = { ...human([{ type: "text", text: words }]) };
  const unanswered = messages.flatMap((one, index) =>
    one.type === "ai" && messages[index + 1]?.type !== "tool"
      ? (one.tool_calls ?? []).map((call) => ({
          type: "tool",
          tool_call_id: call.id ?? "",
          id: `do-not-render-${randomUUID()}`,
          name: call.name,
          content: "Successfully handled tool call.",
        }))
      : [],
  );
  const added = [...unanswered, message];
  const optimisticValues = (before) => ({ ...before, context: undefined, messages: [...(before.messages ?? []), ...added] });
  stream.submit({ messages: added, context: undefined }, { ...STREAM, optimisticValues });
}

const resume = (page, ...decisions) => page.now.stream.submit({}, { command: { resume: { decisions } } });

/** The checkpoint before a message, which its buttons go back to. */
const before = (page, index) =>
  page.until(({ stream, messages }) => stream.getMessagesMetadata(messages[index])?.firstSeenState?.parent_checkpoint);

scenario("the server answers before anything is sent", async () => {
  const reply = await fetch(`${URL_OF_SERVER}/info`, { headers: { "X-Auth-Scheme": "langsmith-api-key" } });
  assert.ok(reply.ok, `${reply.status}`);
});

scenario("a chat of two messages, in the list of threads under its first words", async ({ atEnd }) => {
  const page = await open(await newUser(), atEnd);
  if (!ELSEWHERE) assert.deepEqual(await page.threads(), []);
  send(page, script([LIST], "first"));
  await page.until(answered("first"));
  send(page, script([], "second"));
  await page.until(answered("second"));
  const thread = (await page.threads()).find((one) => one.thread_id === page.options.threadId);
  assert.equal(text(thread.values.messages[0]), script([LIST], "first")); // which the page shows as its title
  assert.equal(thread.status, "idle");
});

scenario("a chat that is opened again", async ({ user, atEnd }) => {
  const first = await open(user, atEnd);
  send(first, script([LIST], "first"));
  await first.until(answered("first"));
  const again = await open(user, atEnd, { threadId: first.options.threadId });
  await again.until((now) => now.messages.length === 4);
  assert.deepEqual(said(again.now.messages), ["first"]);
});

scenario("the agent's question is shown in the inbox and approved", async ({ user, atEnd }) => {
  const page = await open(user, atEnd);
  send(page, script([write(), read()], "written"));
  const { value } = await page.until((now) => !now.isLoading && now.interrupt);
  assert.equal(value.action_requests[0].name, "write_file");
  assert.equal(typeof value.action_requests[0].description, "string");
  assert.deepEqual(value.review_configs[0].allowed_decisions.slice(0, 3), ["approve", "edit", "reject"]);
  resume(page, { type: "approve" });
  await page.until(answered("written"));
  assert.match(results(page.now.messages)[1], /from the agent/);
});

scenario("a question is answered with an edit, after the page was loaded again", async ({ user, atEnd }) => {
  const first = await open(user, atEnd);
  send(first, script([write(), read()], "written"));
  await first.until((now) => !now.isLoading && now.interrupt);
  first.unmount();
  const page = await open(user, atEnd, { threadId: first.options.threadId });
  const { value } = await page.until((now) => now.interrupt?.value && now.interrupt);
  const { name, args } = value.action_requests[0];
  resume(page, { type: "edit", edited_action: { name, args: { ...args, content: "edited\n" } } });
  await page.until(answered("written"));
  assert.match(results(page.now.messages)[1], /edited/);
});

scenario("a question is marked as resolved", async ({ user, client, atEnd }) => {
  const page = await open(user, atEnd);
  send(page, script([write()], "written"));
  await page.until((now) => !now.isLoading && now.interrupt);
  page.now.stream.submit({}, { command: { goto: "__end__" } });
  await page.until((now) => !now.isLoading && !now.interrupt);
  await eventually(async () => (await client.threads.get(page.options.threadId)).status === "idle");
});

scenario("a message is sent past a question that nobody answered", async ({ user, client, atEnd }) => {
  const page = await open(user, atEnd);
  send(page, script([write()], "written"));
  await page.until((now) => !now.isLoading && now.interrupt);
  send(page, script([], "past it"));
  await page.until(answered("past it"));
  assert.equal((await client.threads.get(page.options.threadId)).status, "idle");
  assert.equal(page.now.interrupt, undefined);
});

scenario("an answer is made again, and both are kept", async ({ user, atEnd }) => {
  const page = await open(user, atEnd);
  send(page, script([], "only"));
  await page.until(answered("only"));
  const checkpoint = await before(page, 1);
  page.now.stream.submit(undefined, { checkpoint, ...STREAM });
  await page.until((now) => now.isLoading);
  await page.until(answered("only"));
  const found = await page.until(({ stream, messages }) => {
    const about = stream.getMessagesMetadata(messages[1]);
    return about?.branchOptions?.length === 2 && about;
  });
  assert.ok(found.branchOptions.includes(found.branch));
});

scenario("a message of one's own is edited", async ({ user, atEnd }) => {
  const page = await open(user, atEnd);
  send(page, script([], "first"));
  await page.until(answered("first"));
  const checkpoint = await before(page, 0);
  const message = human(script([], "edited"));
  page.now.stream.submit(
    { messages: [message], context: undefined },
    { checkpoint, ...STREAM, optimisticValues: () => ({ messages: [message] }) },
  );
  await page.until(answered("edited"));
  assert.deepEqual(said(page.now.messages), ["edited"]);
});

scenario("a bad key shows an error and changes nothing", async ({ atEnd }) => {
  if (ELSEWHERE) return; // keys are Moorage's own
  const page = await mount(usePage, {
    apiUrl: URL_OF_SERVER,
    apiKey: "nonsense",
    assistantId: AGENT,
    callerOptions: { maxRetries: 0 },
    threadId: null,
  });
  atEnd(page.unmount);
  send(page, script([], "never"));
  await page.until((now) => !now.isLoading && now.error);
  assert.equal(await clientOf({ headers: {} }, { callerOptions: { maxRetries: 0 } }).threads.search().catch((error) => error.status), 401);
});
