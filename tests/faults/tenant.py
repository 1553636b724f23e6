"""A user's thread that works all the time: lines by commands, files over HTTP, and what must be left of both."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from urllib.parse import quote

import httpx
from tests.faults.scripts import run, script
from tests.faults.user import Event, Thread, persist
from tests.faults.waiting import POLL_SECONDS

LINES = "lines.log"
_OUTAGE_SECONDS = 240
_LARGEST = 300_000
_NAMES = 6
_ABSENT = "absent"


@dataclass
class Tenant:
    """`files`: what each may hold now, by digest; more than one while nobody knows whether a request took effect."""

    thread: Thread
    rng: Random
    commands: dict[str, int] = field(default_factory=dict[str, int])
    files: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    counts: Counter[str] = field(default_factory=Counter[str])
    lines: int = 0

    async def work(self, over: asyncio.Event) -> None:
        """Until it is over, and then until the thread rests."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._give_commands(over))
            group.create_task(self._move_files(over))

    async def command(self, lines: int, *, pause: float = 0, before: str = "true") -> str:
        """Have `lines` lines appended, each written out before the next; answers the command's name."""
        name = f"c{len(self.commands)}-{self.rng.getrandbits(32):x}"
        self.commands[name] = lines
        loop = f"for i in $(seq {lines}); do echo {name} $i >> {LINES}; sync {LINES}; sleep {pause}; done"
        await self.thread.say(script(run(f"{before}; {loop}")), seconds=_OUTAGE_SECONDS, approving=True)
        await self.thread.settle(seconds=_OUTAGE_SECONDS)
        return name

    async def check(self) -> None:
        """Every line of every finished command is there exactly once; no command went on after its end; every file."""
        written = (await self.read(LINES) or b"").decode().splitlines()
        self.lines = len(written)
        check_lines(written, self.commands, outcomes(self.thread.events))
        for name, allowed in self.files.items():
            found = _digest(await self.read(name))
            assert found in allowed, f"{self.thread.id}: {name} is {found}, and may be {allowed}"

    async def read(self, path: str) -> bytes | None:
        """A file's content over HTTP; None when there is none."""
        reply = await self._ask(lambda client: client.get(self._url(path)))
        assert reply.status_code in (200, 404), f"{reply.status_code} {reply.text[:300]}"
        return reply.content if reply.status_code == 200 else None

    async def write(self, path: str, content: bytes) -> None:
        before = self.files.get(path, {_ABSENT})
        self.files[path] = before | {_digest(content)}
        reply = await self._ask(lambda client: client.put(self._url(path), content=content))
        assert reply.status_code in (200, 201), f"{reply.status_code} {reply.text[:300]}"
        self.files[path] = {_digest(content)}

    async def remove(self, path: str) -> None:
        self.files[path] = self.files.get(path, {_ABSENT}) | {_ABSENT}
        reply = await self._ask(lambda client: client.delete(self._url(path)))
        assert reply.status_code in (204, 404), f"{reply.status_code} {reply.text[:300]}"
        self.files[path] = {_ABSENT}

    async def _give_commands(self, over: asyncio.Event) -> None:
        while not over.is_set():
            before = self.rng.choices(
                ["true", "setsid sleep 500 & true", "kill -9 -1", "kill -STOP -1"], [12, 3, 1, 1]
            )[0]
            await self.command(self.rng.randint(1, 5), pause=self.rng.choice([0, 0.1, 0.4]), before=before)
            self.counts["commands"] += 1

    async def _move_files(self, over: asyncio.Event) -> None:
        while not over.is_set():
            path = f"in/{self.rng.randrange(_NAMES)}.bin"
            match self.rng.choice(["write", "write", "read", "remove"]):
                case "write":
                    await self.write(path, self.rng.randbytes(self.rng.randrange(_LARGEST)))
                    self.counts["files written"] += 1
                case "read":
                    found, allowed = _digest(await self.read(path)), self.files.get(path, {_ABSENT})
                    assert found in allowed, f"{self.thread.id}: {path} is {found}, and may be {allowed}"
                    self.counts["files read"] += 1
                case _:
                    await self.remove(path)
                    self.counts["files removed"] += 1
            await asyncio.sleep(self.rng.uniform(POLL_SECONDS, 1))

    def _url(self, path: str) -> str:
        return f"/api/files/{self.thread.id}/content?path={quote(path)}"

    async def _ask(self, request: Callable[[httpx.AsyncClient], object]) -> httpx.Response:
        async with self.thread.user.client(self.thread.server) as client:
            return await persist(lambda: request(client), seconds=_OUTAGE_SECONDS)


def outcomes(events: list[Event]) -> dict[str, str]:
    """By the names of commands: how each ended, as the user was told."""
    results = {event.data["call_id"]: event.data["status"] for event in events if event.type == "tool_result"}
    found: dict[str, str] = {}
    for event in events:
        if event.type == "tool_call" and event.data["call_id"] in results:
            _, echo, rest = str(event.data["tool_input"].get("command", "")).partition("do echo ")
            if echo:
                found[rest.split()[0]] = results[event.data["call_id"]]
    return found


def check_lines(written: list[str], commands: dict[str, int], ended: dict[str, str]) -> None:
    """Each command's lines stand together, count up from 1 and, if it succeeded, are complete."""
    blocks: list[list[str]] = []
    for line in written:
        if blocks and blocks[-1][0].split()[0] == line.split()[0]:
            blocks[-1].append(line)
        else:
            blocks.append([line])
    seen = Counter(block[0].split()[0] for block in blocks)
    assert max(seen.values(), default=1) == 1, f"commands went on after their end: {seen.most_common(3)}"
    for block in blocks:
        name = block[0].split()[0]
        assert name in commands, f"nobody's lines: {block}"
        assert block == [f"{name} {number}" for number in range(1, len(block) + 1)], f"lost or doubled: {block}"
    lengths = {block[0].split()[0]: len(block) for block in blocks}
    for name, lines in commands.items():
        assert name in ended, f"{name} never ended"
        if ended[name] == "success":
            assert lengths.get(name, 0) == lines, f"{name} succeeded, and left {lengths.get(name, 0)} of {lines} lines"


def _digest(content: bytes | None) -> str:
    return _ABSENT if content is None else f"{len(content)} bytes {hashlib.sha256(content).hexdigest()[:12]}"
