"""A whole server in this process: real Postgres, the scripted model over real HTTP, a real sandbox, real HTTP."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import uvicorn
from fastapi import FastAPI
from tests.uids import own_uids

from moorage.runtime import Runtime, open_runtime, open_sandbox_provider
from moorage.settings import Settings, load_settings
from moorage_api.app import create_app
from moorage_api.server import UVICORN, bind

PASSWORD = "correct horse battery"
_UIDS = own_uids(20_000, 99_999)


@dataclass(frozen=True)
class Server:
    """A running server and the folder that its workspaces are in."""

    url: str
    runtime: Runtime
    workspaces: Path


@dataclass(frozen=True)
class Event:
    id: int | None
    type: str
    data: dict[str, Any]


class User:
    """A registered user, logged in, with the calls that tests make."""

    def __init__(self, name: str, client: httpx.AsyncClient) -> None:
        self.name = name
        self.client = client

    async def new_session(self, **body: Any) -> str:
        reply = await self.client.post("/api/sessions", json=body)
        assert reply.status_code == 201, reply.text
        return reply.json()["thread_id"]

    async def chat(self, thread_id: str, message: str, **headers: str) -> list[Event]:
        """Send a message and read its run to the end."""
        return await self.stream("POST", f"/api/chat/{thread_id}", json={"message": message}, headers=headers)

    async def play(self, thread_id: str, *calls: Any, then: str = "done") -> list[Event]:
        """Have the scripted model make these calls, `(name, args)` each; a list of them is made in parallel."""
        return await self.chat(
            thread_id, orjson.dumps({"calls": [_call(item) for item in calls], "then": then}).decode()
        )

    async def resume(self, thread_id: str, **body: Any) -> list[Event]:
        return await self.stream("POST", f"/api/resume/{thread_id}", json=body)

    async def stream(self, method: str, path: str, **request: Any) -> list[Event]:
        """All events of a stream that ends by itself."""
        request["headers"] = {"accept": "text/event-stream", **request.get("headers", {})}
        async with asyncio.timeout(60), self.client.stream(method, path, **request) as reply:
            assert reply.status_code == 200, await reply.aread()
            return [event async for event in read_events(reply)]


def _call(item: Any) -> Any:
    return [_call(part) for part in item] if isinstance(item, list) else {"name": item[0], "args": item[1]}


async def read_events(reply: httpx.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in reply.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            event_id = int(fields["id"]) if "id" in fields else None
            yield Event(event_id, fields["event"], orjson.loads(fields["data"]))
            fields = {}


def only(events: list[Event], kind: str) -> dict[str, Any]:
    """The data of the one event of this kind."""
    found = [event.data for event in events if event.type == kind]
    assert len(found) == 1, f"{len(found)} events {kind} in {[event.type for event in events]}"
    return found[0]


async def run(user: User, thread_id: str, command: str) -> str:
    """Have the agent run this, with approval; answers the command's output."""
    events = await user.play(thread_id, ("execute", {"command": command}))
    decisions = [{"interrupt_id": item["id"], "type": "approve"} for item in pending(events)]
    told = only(await user.resume(thread_id, decisions=decisions), "tool_result")["result"]
    return told.rpartition("\n[Command ")[0]


def pending(events: list[Event]) -> list[dict[str, Any]]:
    return only(events, "interrupt")["interrupts"]


def make_settings(folder: Path, database_url: str, **changes: Any) -> Settings:
    return load_settings(
        {},
        env_file=None,
        overrides={
            "database_url": database_url,
            "data_dir": folder / "data",
            "workspace_root": folder / "workspaces",
            "shared_dir": folder / "shared",
            "llm_model": "scripted:calls",
            "quota_active_sessions": 0,
            "sandbox_uid_range": f"{_UIDS.start}-{_UIDS[-1]}",
            "sandbox_storage": "watch",  # so that tests see workspaces from outside, used or not
            **changes,
        },
    )


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncGenerator[str]:
    """The application over real HTTP on a free port; its URL."""
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, **UVICORN))
    server.capture_signals = nullcontext  # the tests' process keeps its own
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[Server]:
    """The server over real HTTP on a free port."""
    async with open_runtime(settings) as runtime, serving(create_app(runtime)) as url:
        try:
            yield Server(url, runtime, settings.workspace_root)
        finally:
            runtime.stop_readers()
    await remove_sandboxes(settings)


async def remove_sandboxes(settings: Settings) -> None:
    """A server leaves its stopped sandboxes to its next start; this installation has none."""
    async with open_sandbox_provider(settings) as provider:
        for info in await provider.list():
            await provider.remove(info.thread_id, files=False)


NewUser = Callable[[str], Awaitable[User]]
