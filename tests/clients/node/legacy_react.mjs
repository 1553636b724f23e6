// The older `useStream` of @langchain/langgraph-sdk/react, with which most pages of today are made.
import assert from "node:assert/strict";
import { mount } from "./dom.mjs";
import { AGENT, NUMBERS, LIST, SLOW, URL_OF_SERVER, eventually, results, said, say, scenario, task, write } from "./harness.mjs";
import { answered, usePage } from "./page.mjs";

async function show(user, atEnd, options = {}, useHook = usePage) {
  const page = await mount(useHook, {
    apiUrl: URL_OF_SERVER,
    apiKey: null,
    assistantId: AGENT,
    defaultHeaders: user.headers,
    threadId: null,
    fetchStateHistory: true,
    onThreadId: (threadId) => page.render({ threadId }),
    ...options,
  });
  atEnd(page.unmount);
  return page;
}

scenario("words appear one after the other", async ({ user, atEnd }) => {
  const page = await show(user, atEnd);
  page.now.stream.submit(say([], "one two three four five six", 0.1));
  await page.until((now) => now.isLoading && said(now.messages).length && said(now.messages)[0].length < 10);
  await page.until(answered("one two three four five six"));
  assert.deepEqual(page.now.messages.map((message) => message.type), ["human", "ai"]);
  assert.equal(page.now.error, undefined);
});

scenario("a gated call asks, and an answer goes on", async ({ user, atEnd }) => {
  const page = await show(user, atEnd);
  page.now.stream.submit(say([write()], "written"));
  const { value } = await page.until((now) => !now.isLoading && now.interrupt);
  assert.equal((value.action_requests ?? value.actionRequests)[0].name, "write_file");
  page.now.stream.submit(undefined, { command: { resume: { decisions: [{ type: "approve" }] } } });
  await page.until(answered("written"));
  assert.equal(page.now.interrupt, undefined);
});

scenario("a page that is loaded again in the middle of a run joins it", async ({ user, atEnd }) => {
  const first = await show(user, atEnd, { reconnectOnMount: true });
  first.now.stream.submit(say([], NUMBERS.join(" "), 0.05));
  await first.until((now) => said(now.messages).length);
  first.unmount();
  const again = await show(user, atEnd, { reconnectOnMount: true, threadId: first.options.threadId });
  await again.until((now) => now.isLoading && said(now.messages).length);
  await again.until(answered(NUMBERS.join(" ")));
});

scenario("a run is stopped, and the next one works", async ({ user, client, atEnd }) => {
  const page = await show(user, atEnd);
  page.now.stream.submit(SLOW());
  await page.until((now) => said(now.messages).length);
  await page.now.stream.stop();
  await page.until((now) => !now.isLoading);
  await eventually(async () => (await client.runs.list(page.options.threadId))[0].status === "interrupted");
  page.now.stream.submit(say([], "after the stop"));
  await page.until((now) => !now.isLoading && said(now.messages).includes("after the stop"));
});

scenario("history, branches and the checkpoint of a message", async ({ user, atEnd }) => {
  const page = await show(user, atEnd);
  page.now.stream.submit(say([], "first"));
  await page.until(answered("first"));
  page.now.stream.submit(say([], "second"));
  await page.until(answered("second"));
  const last = await page.until(({ stream, messages }) => stream.getMessagesMetadata(messages[2])?.firstSeenState);
  page.now.stream.submit(say([], "other"), { checkpoint: last.parent_checkpoint });
  await page.until(answered("other"));
  assert.deepEqual(said(page.now.messages), ["first", "other"]);
  const { branchOptions } = await page.until(({ stream, messages }) => {
    const found = stream.getMessagesMetadata(messages[2]);
    return found?.branchOptions?.length === 2 && found;
  });
  page.now.stream.setBranch(branchOptions[0]);
  await page.until((now) => said(now.messages).at(-1) === "second");
});

scenario("a sub-agent is followed", async ({ user, atEnd }) => {
  const useCards = (options) => {
    const page = usePage(options);
    return { ...page, subagents: [...page.stream.subagents.values()] };
  };
  const page = await show(user, atEnd, { filterSubagentMessages: true }, useCards);
  page.now.stream.submit(say([task([LIST], "from below")], "done"), { streamSubgraphs: true });
  await page.until(answered("done"));
  const [subagent] = await page.until(({ subagents }) => subagents[0]?.status === "complete" && subagents);
  assert.equal(subagent.result, "from below");
  assert.deepEqual(said(page.now.messages), ["done"]);
});

scenario("a run that fails shows its error", async ({ user, atEnd }) => {
  const errors = [];
  const page = await show(user, atEnd, { onError: (error) => errors.push(error) });
  page.now.stream.submit(say([LIST]), { config: { recursion_limit: 1 } });
  await page.until((now) => !now.isLoading && now.error);
  assert.equal(errors.length, 1);
  page.now.stream.submit(say([], "after the error"));
  await page.until(answered("after the error"));
});

scenario("messages sent while a run goes on wait their turn", async ({ user, atEnd }) => {
  const page = await show(user, atEnd);
  page.now.stream.submit(say([], "first of two", 0.2));
  await page.until((now) => said(now.messages).length);
  page.now.stream.submit(say([], "second"), { multitaskStrategy: "enqueue" });
  await page.until((now) => !now.isLoading && said(now.messages).join() === "first of two,second", 30000);
  assert.deepEqual(results(page.now.messages), []);
});
