"""What the server believes of files that a sandbox hands over: nothing that could do harm."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from moorage.sandboxes.connection import HelperConnection
from moorage.sandboxes.helper.trees import RECORD
from moorage.sandboxes.port import Bounds, Outcome, PathError, SandboxDied, SandboxUnavailable
from moorage.sandboxes.reports import Report
from moorage.sandboxes.tree_access import HelperTrees
from moorage.sandboxes.trees import Planted, TreeBounds, TreeEntry, TreeRefused, Verdict

FILE = TreeEntry(b"file", "file", 0o644, 10, 1, 1, 1)
BOUNDS = TreeBounds(max_files=10, max_bytes=1000)
DONE = Report(Outcome.EXITED)


class Liar:
    """A helper that answers each order with these bytes, in pieces of this size, and this report."""

    def __init__(self, said: bytes, report: Report = DONE, *, piece: int = 7, kind: bytes = b"o") -> None:
        self.result = report
        self._kind = kind
        self.orders: list[Mapping[str, Any]] = []
        self._pieces = [said[start : start + piece] for start in range(0, len(said), piece)]

    async def order(self, order: Mapping[str, Any], *, on_data: Any, payload: Any = None, time_limit: float) -> Report:
        self.orders.append(order)
        for piece in self._pieces:
            on_data(b"o", piece)
        return self.result

    @asynccontextmanager
    async def stream(self, order: Mapping[str, Any], *, payload: Any) -> AsyncGenerator["Liar"]:
        self.orders.append(order)
        yield self

    def __aiter__(self) -> "Liar":
        return self

    async def __anext__(self) -> tuple[bytes, bytes]:
        if not self._pieces:
            raise StopAsyncIteration
        return self._kind, self._pieces.pop(0)


def trees(liar: Liar, bounds: Bounds | None = None) -> HelperTrees:
    return HelperTrees(cast("HelperConnection", liar), workspace="/workspace", bounds=bounds or Bounds())


def record(kind: bytes, number: int, data: bytes = b"") -> bytes:
    return RECORD.pack(kind, number) + data


async def fetched(said: bytes, report: Report = DONE) -> list[tuple[list[bytes | int], Verdict]]:
    found: list[tuple[list[bytes | int], Verdict]] = []
    async with trees(Liar(said, report)).fetch([FILE]) as files:
        async for file in files:
            pieces = [piece async for piece in file.pieces]
            found.append((pieces, file.verdict))
    return found


async def test_a_file_comes_in_pieces_and_holes() -> None:
    said = record(b"d", 3, b"abc") + record(b"h", 5) + record(b"d", 2, b"de") + record(b"e", 0)
    [(pieces, verdict)] = await fetched(said)
    assert b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in pieces) == b"abc\0\0\0\0\0de"
    assert verdict is Verdict.WHOLE


@pytest.mark.parametrize(
    "said",
    [
        record(b"d", 11, b"x" * 11) + record(b"e", 0),
        record(b"h", 11) + record(b"e", 0),
        record(b"h", 2**63) + record(b"e", 0),
        record(b"d", 2**64 - 1),
        record(b"d", 9, b"x" * 9) + record(b"e", 0),
        record(b"d", 9, b"x" * 9) + record(b"e", 1),
        record(b"d", 0) * 3 + record(b"d", 10, b"x" * 10) + record(b"e", 0),
        record(b"e", 4),
        record(b"z", 1),
        record(b"d", 10, b"x" * 5),
        b"",
        b"d",
    ],
)
async def test_a_file_that_is_not_what_was_listed_is_refused(said: bytes) -> None:
    with pytest.raises(TreeRefused):
        await fetched(said)


async def test_a_file_does_not_come_as_complaints() -> None:
    async with trees(Liar(record(b"d", 10, b"x" * 10), kind=b"e")).fetch([FILE]) as files:
        file = await anext(files)
        with pytest.raises(TreeRefused):
            await anext(file.pieces)


async def test_a_file_does_not_come_in_crumbs() -> None:
    """Each record costs the server something, however little it holds; those of a file system's blocks are larger."""
    large = replace(FILE, size=100_000)
    async with trees(Liar(record(b"d", 1, b"x") * 100_000, piece=60_000)).fetch([large]) as files:
        file = await anext(files)
        for _ in range(100):
            await anext(file.pieces)
        with pytest.raises(TreeRefused):
            await anext(file.pieces)


async def test_a_file_that_changed_may_be_shorter() -> None:
    assert await fetched(record(b"d", 1, b"x") + record(b"e", 2)) == [([b"x"], Verdict.CHANGED)]


async def test_a_sandbox_that_dies_in_the_middle_says_so() -> None:
    with pytest.raises(SandboxDied):
        await fetched(record(b"d", 10, b"x"), Report(Outcome.LOST))


@pytest.mark.parametrize(
    ("error", "raised", "code"),
    [
        ("too_deep", TreeRefused, "too_deep"),
        ("changed", TreeRefused, "workspace_changed"),
        ("no_space", PathError, "no_space"),
        ("helper_failed", SandboxUnavailable, "sandbox_unavailable"),
    ],
)
async def test_what_the_helper_cannot_do_is_told_in_words(error: str, raised: type, code: str) -> None:
    with pytest.raises(raised) as refused:
        await trees(Liar(b"", Report(Outcome.EXITED, error=error))).list(BOUNDS)
    assert refused.value.code == code  # type: ignore[attr-defined]


async def test_a_listing_is_believed_only_with_its_end() -> None:
    line = json.dumps(["d", "a", 0o755, 1]).encode() + b"\n"
    with pytest.raises(TreeRefused):
        await trees(Liar(line)).list(BOUNDS)
    assert len((await trees(Liar(line + b'["end",0]\n')).list(BOUNDS)).entries) == 1


async def nothing(_: TreeEntry) -> AsyncIterator[bytes | int]:
    for piece in ():
        yield piece


@pytest.mark.parametrize("said", [b"", b"[]", b'["end",-1,0]', b'["end",1]', b"x" * 2000, b"[" * 1000])
async def test_what_became_of_planted_files_must_make_sense(said: bytes) -> None:
    with pytest.raises(TreeRefused):
        await trees(Liar(said)).plant([], keep=(), read=nothing, bounds=BOUNDS)


async def test_no_more_is_planted_than_the_workspace_may_hold() -> None:
    liar = Liar(b'["end",0,0]\n')
    assert await trees(liar, Bounds(disk_bytes=10)).plant([], keep=(), read=nothing, bounds=BOUNDS) == Planted(0, 0)
    assert liar.orders[0]["max_bytes"] == 10
