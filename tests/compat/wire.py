"""A plain client of the LangGraph wire: what a server answers, as it is, without an SDK's repairs between."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

type Json = dict[str, Any]
type Call = tuple[str, Json]

AGENT = "agent"
_PATIENCE_SECONDS = 30
_ENDED = ("success", "error", "timeout", "interrupted")


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event; `id` is empty if it has none."""

    event: str
    data: Any
    id: str = ""


class Stream:
    """An open event stream, with the reply's status and headers."""

    def __init__(self, reply: httpx.Response) -> None:
        self.status = reply.status_code
        self.headers = reply.headers
        self._lines = reply.aiter_lines()

    async def __aiter__(self) -> AsyncIterator[Frame]:
        fields: dict[str, str] = {}
        async for line in self._lines:
            name, _, value = line.partition(":")
            if line and name:
                fields[name] = value.strip()
            elif "event" in fields:
                yield Frame(fields["event"], _parse(fields.get("data", "")), fields.get("id", ""))
                fields = {}

    async def all(self, *, seconds: float = _PATIENCE_SECONDS) -> list[Frame]:
        """All frames until the server ends the stream or, for one that never ends, the time is over."""
        frames: list[Frame] = []
        try:
            async with asyncio.timeout(seconds):
                async for frame in self:
                    frames.append(frame)
        except TimeoutError:
            pass
        return frames

    async def until(self, event: str, count: int = 1) -> list[Frame]:
        """The frames up to the `count`th of this name."""
        frames: list[Frame] = []
        async with asyncio.timeout(_PATIENCE_SECONDS):
            async for frame in self:
                frames.append(frame)
                count -= frame.event == event
                if count <= 0:
                    break
        return frames


class Wire:
    """The calls that the scenarios make."""

    def __init__(self, http: httpx.AsyncClient, token: str | None) -> None:
        self.http = http
        self.token = token

    async def get(self, path: str, **params: Any) -> Any:
        return (await self.http.get(path, params=params)).json()

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.http.post(path, json=body)

    async def new_thread(self, **body: Any) -> str:
        return (await self.post("/threads", body)).json()["thread_id"]

    async def create(self, thread: str, script: str, **body: Any) -> httpx.Response:
        return await self.post(f"/threads/{thread}/runs", run_body(script, **body))

    async def wait(self, thread: str, script: str | None, **body: Any) -> httpx.Response:
        """Run to the end; without a script nothing is said (a resume)."""
        return await self.post(f"/threads/{thread}/runs/wait", run_body(script, **body))

    async def resume(self, thread: str, *decisions: Json, **body: Any) -> httpx.Response:
        return await self.wait(thread, None, command={"resume": {"decisions": decisions}}, **body)

    async def running(self, thread: str, script: str, **body: Any) -> str:
        """Start a run in the background and wait until it works on the message; its id."""
        run = (await self.create(thread, script, **body)).json()["run_id"]
        await self.until_run(thread, run, "running")
        async for said in poll(lambda: self.said(thread)):
            if script in said:
                break
        return run

    async def until_run(self, thread: str, run: str, *statuses: str) -> str:
        """The run's status, as soon as it is one of these (any end by default), or `gone`."""
        status = "gone"
        async for status in poll(lambda: self.run_status(thread, run)):
            if status == "gone" or status in (statuses or _ENDED):
                break
        return status

    async def run_status(self, thread: str, run: str) -> str:
        reply = await self.http.get(f"/threads/{thread}/runs/{run}")
        return reply.json()["status"] if reply.status_code == httpx.codes.OK else "gone"

    async def settled(self, thread: str) -> Json:
        """The thread, as soon as no run works on it."""
        found: Json = {}
        async for found in poll(lambda: self.get(f"/threads/{thread}")):
            if found["status"] != "busy":
                break
        return found

    async def messages(self, thread: str) -> list[Json]:
        state = await self.get(f"/threads/{thread}/state")
        return (state.get("values") or {}).get("messages", [])

    async def said(self, thread: str) -> list[str]:
        """What the humans of the thread said."""
        return [text(message) for message in await self.messages(thread) if message["type"] == "human"]

    async def tool_results(self, thread: str) -> list[str]:
        return [tool_text(message) for message in await self.messages(thread) if message["type"] == "tool"]

    @asynccontextmanager
    async def stream(self, method: str, path: str, body: Any = None, **headers: str) -> AsyncGenerator[Stream]:
        async with self.http.stream(method, path, json=body, headers=headers) as reply:
            stream = Stream(reply)
            async with aclosing(stream._lines):  # a stream that is left early is closed, as a closed tab does
                yield stream

    def run_stream(self, thread: str, script: str | None, **body: Any) -> Any:
        return self.stream("POST", f"/threads/{thread}/runs/stream", run_body(script, **body))

    def join(self, thread: str, run: str, after: str | None = None) -> Any:
        headers = {} if after is None else {"Last-Event-ID": after}
        return self.stream("GET", f"/threads/{thread}/runs/{run}/stream", **headers)


def run_body(script: str | None, **body: Any) -> Json:
    given = {} if script is None else {"input": {"messages": [{"type": "human", "content": script}]}}
    return {"assistant_id": AGENT, **given, **body}


def script(*calls: Call | Sequence[Call], then: str = "done", pause: float = 0) -> str:
    """A message that the scripted model plays: these calls, several at once in a list, then the words."""
    steps = [_call(item) if isinstance(item, tuple) else [_call(one) for one in item] for item in calls]
    return json.dumps({"calls": steps, "then": then, "pause": pause})


def numbers(count: int, pause: float = 0.1) -> str:
    """A message that the scripted model answers by counting, a number every `pause` seconds."""
    return script(then=" ".join(str(number) for number in range(1, count + 1)), pause=pause)


def command(line: str) -> Call:
    """A call that waits for approval."""
    return "execute", {"command": line}


def text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else part.get("text", "") for part in content)
    return str(content)


def tool_text(message: Mapping[str, Any]) -> str:
    """The first words of what a tool answered, without the line about its exit code."""
    return text(message).split("\n[Command")[0].strip()


def streamed(frames: Sequence[Frame]) -> str:
    """What the model said in the `messages` frames of the mode messages-tuple."""
    chunks = [frame.data[0] for frame in frames if frame.event == "messages"]
    return "".join(text(chunk) for chunk in chunks if chunk["type"] == "AIMessageChunk")


def interrupts(thread: Mapping[str, Any]) -> list[Json]:
    """The pending interrupts of a thread object."""
    return [one for task in (thread.get("interrupts") or {}).values() for one in task]


def failure(reply: httpx.Response) -> str:
    """How a request was refused or a run failed, in few words; `ok` if neither."""
    if reply.status_code >= httpx.codes.BAD_REQUEST:
        return str(reply.status_code)
    body = reply.json() if reply.content.strip() else {}
    error = body.get("__error__") if isinstance(body, dict) else None
    return f"{reply.status_code}, the run fails: {error['error']}" if error else "ok"


def _call(call: Call) -> Json:
    return {"name": call[0], "args": call[1]}


def _parse(data: str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data


async def poll(look: Callable[[], Awaitable[Any]], *, seconds: float = _PATIENCE_SECONDS) -> AsyncIterator[Any]:
    """What a look gives, every 0.1 s; raises TimeoutError when nobody was content in that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield await look()
        await asyncio.sleep(0.1)
    raise TimeoutError("what was waited for did not happen")
