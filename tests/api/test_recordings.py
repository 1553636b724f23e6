"""The event logs that the web UI's tests replay are what this server tells today.

`make recordings` writes them anew into tests/recordings: one file per scene, one `{"seq","type","data"}` a line, with
ids, times and digests replaced by names that stay.
"""

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from tests.api.harness import PASSWORD, Event, User, make_settings, pending, read_events, running

RECORDINGS = Path(__file__).parents[1] / "recordings"
WRITE = os.environ.get("WRITE_RECORDINGS") == "1"

_TIMES = {"duration_ms": 12, "response_time": 0.25, "expires_at": "2030-01-01T00:00:00+00:00"}
_ID_KEYS = ("run_id", "message_id", "thread_id", "call_id", "parent_call_id", "interrupt_id", "id", "digest")


async def _hello(user: User, thread: str) -> None:
    await user.chat(thread, "hello")
    await user.chat(thread, "and again")


async def _reasoning(user: User, thread: str) -> None:
    await user.chat(thread, "add up")


async def _approve(user: User, thread: str) -> None:
    asked = await user.chat(thread, "start")
    while waiting := [event for event in asked if event.type == "interrupt"]:
        decisions = [{"interrupt_id": item["id"], "type": "approve"} for item in waiting[-1].data["interrupts"]]
        asked = await user.resume(thread, decisions=decisions)


async def _edit_and_reject(user: User, thread: str) -> None:
    asked = await user.play(
        thread,
        [("execute", {"command": "echo one"}), ("execute", {"command": "echo two; exit 3"})],
        ("write_file", {"file_path": "/workspace/a.txt", "content": "first\n"}),
    )
    first, second = pending(asked)
    edited = {"name": "execute", "args": {"command": "echo ONE"}}
    asked = await user.resume(
        thread,
        decisions=[
            {"interrupt_id": first["id"], "type": "edit", "edited_action": edited},
            {"interrupt_id": second["id"], "type": "reject", "message": "not this one"},
        ],
    )
    await user.resume(thread, decisions=[{"interrupt_id": pending(asked)[0]["id"], "type": "approve"}])


async def _cancel(user: User, thread: str) -> None:
    await user.play(thread, ("execute", {"command": "echo never"}))
    assert (await user.client.post(f"/api/sessions/{thread}/cancel")).status_code == 200


async def _superseded(user: User, thread: str) -> None:
    await user.play(thread, ("execute", {"command": "echo never"}))
    body = {"message": "forget it", "multitask_strategy": "reject_and_continue"}
    await user.stream("POST", f"/api/chat/{thread}", json=body)


async def _remembered(user: User, thread: str) -> None:
    asked = await user.play(thread, ("execute", {"command": "echo one"}), ("execute", {"command": "echo one"}))
    body = {"type": "approve", "remember": {"match": "same"}}
    found = pending(asked)[0]["id"]
    assert (await user.client.post(f"/api/approvals/{found}/decision", json=body)).status_code == 200
    await _until_idle(user, thread)


async def _until_idle(user: User, thread: str) -> None:
    """Follow the log to the end of the run that a decision started."""
    async with user.client.stream("GET", f"/api/sessions/{thread}/events") as reply:
        async for event in read_events(reply):
            if event.type == "run_end" and event.data["status"] != "interrupted":
                return


type Scene = Callable[[User, str], Awaitable[None]]
SCENES: dict[str, tuple[str, Scene]] = {
    "hello": ("hello", _hello),
    "reasoning": ("reasoning", _reasoning),
    "demo": ("demo", _approve),
    "parallel": ("parallel", _approve),
    "subagent": ("subagent", _approve),
    "edit-and-reject": ("calls", _edit_and_reject),
    "cancelled": ("calls", _cancel),
    "superseded": ("calls", _superseded),
    "remembered": ("calls", _remembered),
    "hidden-unicode": ("hidden-unicode", _approve),
    "repeated-ids": ("repeat-ids", _approve),
    "failed": ("error-401", _hello),
    "malformed": ("malformed-args", _approve),
}


@asynccontextmanager
async def _user(folder: Path, database_url: str, script: str) -> AsyncGenerator[User]:
    settings = make_settings(folder, database_url, llm_model=f"scripted:{script}", sandbox="bubblewrap")
    async with running(settings) as server, httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        account = {"username": "alice", "password": PASSWORD}
        await client.post("/api/auth/register", json=account)
        token = (await client.post("/api/auth/login", json=account)).json()["access_token"]
        client.headers["authorization"] = f"Bearer {token}"
        yield User("alice", client)


@pytest.mark.parametrize("scene", SCENES)
async def test_a_scene_is_told_as_recorded(scene: str, public_tmp_path: Path, database_url: str):
    script, play = SCENES[scene]
    async with _user(public_tmp_path / scene, database_url, script) as user:
        thread = await user.new_session()
        await play(user, thread)
        told = _with_lasting_names(await _log(user, thread))
    place = RECORDINGS / f"{scene}.jsonl"
    if WRITE:
        place.write_bytes(b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in told))
    assert place.exists(), "no recording of this scene: run `make recordings`"
    recorded = [orjson.loads(line) for line in place.read_bytes().splitlines()]
    assert _by_subject(told) == _by_subject(recorded)


async def _log(user: User, thread: str) -> list[Event]:
    last = (await user.client.get(f"/api/sessions/{thread}")).json()["last_seq"]
    events: list[Event] = []
    async with user.client.stream("GET", f"/api/sessions/{thread}/events") as reply:
        async for event in read_events(reply):
            events.append(event)
            if event.id == last:
                break
    return events


def _with_lasting_names(events: list[Event]) -> list[dict[str, Any]]:
    """The events, with what differs from run to run replaced."""
    names: dict[str, str] = {}

    def lasting(value: Any, key: str = "") -> Any:
        if key in _TIMES:
            return _TIMES[key]
        match value:
            case dict():
                return {name: lasting(item, name) for name, item in value.items()}
            case list():
                return [lasting(item, key) for item in value]
            case str() if key in _ID_KEYS:
                kind = "call" if key == "parent_call_id" else "interrupt" if key == "id" else key.removesuffix("_id")
                return names.setdefault(value, f"{kind}-{sum(1 for name in names.values() if name.startswith(kind))}")
            case str():
                return re.sub(r"(?<=^rule:)[0-9a-f-]+$", "rule-0", re.sub(r"\d+(\.\d+)? (ms|s)\b", r"1 \2", value))
            case _:
                return value

    return [{"seq": event.id, "type": event.type, "data": lasting(event.data)} for event in events]


def _by_subject(events: list[dict[str, Any]]) -> list[Any]:
    """What is told of each call and message, in order: parallel ones interleave as they like, deltas have any size."""
    told: dict[str, list[Any]] = {}
    for event in events:
        data = event["data"]
        subject = data.get("call_id") or data.get("message_id") or event["type"]
        shown = [event["type"], _without_names(data)]
        lines = told.setdefault(str(subject), [])
        delta = next((key for key in ("content_delta", "delta") if key in data), None)
        if delta and lines and lines[-1][0] == event["type"] and delta in lines[-1][1]:
            for key in (delta, "thinking_delta"):
                if key in data:
                    lines[-1][1][key] = lines[-1][1].get(key, "") + data[key]
        else:
            lines.append(shown)
    return sorted(told.values(), key=repr)


_KINDS = re.compile(r"-\d+$")


def _without_names(data: Any) -> Any:
    match data:
        case dict():
            return {
                key: _KINDS.sub("", item) if key in _ID_KEYS else _without_names(item) for key, item in data.items()
            }
        case list():
            return [_without_names(item) for item in data]
        case _:
            return data
