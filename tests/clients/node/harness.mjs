// Scenarios: what they are called, who they are, what they say to the agent. The clients themselves are used as published.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { connect, createServer } from "node:net";
import { Client } from "@langchain/langgraph-sdk";

export const URL_OF_SERVER = process.env.SERVER_URL;
/** Set when the server is another one than Moorage: without users, and with approvals call by call in a graph of its own. */
export const ELSEWHERE = process.env.ELSEWHERE === "1";
export const AGENT = "agent";
export const PER_CALL = ELSEWHERE ? "per_call" : AGENT;

export const scenarios = new Map();
/** Declare a scenario: it gets a user, whom it shares with those of its file, and a client that is logged in as them. */
export function scenario(name, play) {
  scenarios.set(name, play);
}

/** A new user: `headers` say who they are, `token` too, for where headers cannot be set. */
export async function newUser() {
  if (ELSEWHERE) return { headers: {}, token: "none" };
  const account = { username: `user-${randomUUID().slice(0, 13)}`, password: "correct horse battery" };
  await post("/api/auth/register", account);
  const { access_token: token } = await post("/api/auth/login", account);
  return { headers: { Authorization: `Bearer ${token}` }, token };
}

export async function post(path, body, headers = {}) {
  const reply = await fetch(URL_OF_SERVER + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  const text = await reply.text();
  assert.ok(reply.ok, `${path}: ${reply.status} ${text}`);
  return text && JSON.parse(text);
}

export function clientOf(user, options = {}) {
  return new Client({ apiUrl: URL_OF_SERVER, apiKey: null, defaultHeaders: user.headers, ...options });
}

// What is said to the agent -------------------------------------------------------------------------------------------

/** The words with which the scripted model makes these calls (a list of them in parallel), then answers. */
export function script(calls = [], then = "done", pause = 0) {
  const shown = (call) => (Array.isArray(call[0]) ? call.map(shown) : { name: call[0], args: call[1] });
  return JSON.stringify({ calls: calls.map(shown), then, pause });
}

export const human = (content) => ({ id: randomUUID(), type: "human", content });
export const say = (...words) => ({ messages: [human(script(...words))] });
export const LIST = ["ls", { path: "/workspace" }];
export const write = (name = "notes.txt", content = "from the agent\n") => [
  "write_file",
  { file_path: `/workspace/${name}`, content },
];
export const read = (name = "notes.txt") => ["read_file", { file_path: `/workspace/${name}` }];
export const task = (calls, then, pause) => [
  "task",
  { description: script(calls, then, pause), subagent_type: "general-purpose" },
];
export const NUMBERS = Array.from({ length: 60 }, (_, number) => String(number));
/** A run that lasts a minute, unless somebody stops it. */
export const SLOW = () => say([], Array.from({ length: 600 }, (_, number) => number).join(" "), 0.1);

// What is read in its answers -----------------------------------------------------------------------------------------

export function text(message) {
  const { content } = message;
  if (typeof content === "string") return content;
  return content.map((block) => block.text ?? "").join("");
}

export const kindOf = (message) => message.type ?? message.getType();
export const said = (messages) => messages.filter((one) => kindOf(one) === "ai" && text(one)).map(text);
export const results = (messages) => messages.filter((one) => kindOf(one) === "tool").map(text);

export async function collect(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

export async function statusOf(promise) {
  try {
    await promise;
  } catch (error) {
    return error.status;
  }
  return "it went well";
}

/** Wait until `look` answers something true, which is the answer. */
export async function eventually(look, what = String(look), milliseconds = 15000) {
  const end = Date.now() + milliseconds;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < end, `waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
}

// A network that breaks -----------------------------------------------------------------------------------------------

/** A proxy in front of the server; `cut` hangs up on everybody, in the middle of whatever is under way. */
export async function openProxy() {
  const behind = new URL(URL_OF_SERVER);
  const sockets = new Set();
  const server = createServer((client) => {
    const upstream = connect(Number(behind.port), behind.hostname);
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ]) {
      sockets.add(one);
      one.on("error", () => {});
      one.on("close", () => (sockets.delete(one), other.destroy()));
      one.pipe(other);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => sockets.forEach((socket) => socket.destroy());
  return { url: `http://127.0.0.1:${server.address().port}`, cut, close: () => (server.close(), cut()) };
}
