"""Files through a real helper, which runs as an unprivileged user of this machine, without a sandbox around it."""

import asyncio
import io
import json
import os
import subprocess
import zipfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moorage.sandboxes.connection import HelperConnection
from moorage.sandboxes.file_access import HelperFiles
from moorage.sandboxes.files import Root
from moorage.sandboxes.helper import HELPER_ARGV, HELPER_SOURCE
from moorage.sandboxes.helper.wire import CREDIT_BYTES, HEADER
from moorage.sandboxes.port import Bounds, Channel, PathError, SandboxDied, SandboxUnavailable

NOBODY = 65534
WORKSPACE, SHARED = Root.WORKSPACE, Root.SHARED


class ProcessChannel:
    """A helper that is a child of the tests."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdin
        assert process.stdout
        self._stdin, self._stdout = process.stdin, process.stdout

    async def send(self, data: bytes) -> None:
        try:
            self._stdin.write(data)
            await self._stdin.drain()
        except ConnectionError:
            return

    async def receive(self) -> bytes:
        return await self._stdout.read(65536)

    async def close(self) -> str:
        self._stdin.close()
        await self.process.wait()
        return ""


class World:
    """The folders of a thread, and its files through the helper."""

    def __init__(self, folder: Path, connection: HelperConnection, channel: ProcessChannel) -> None:
        self.workspace, self.shared = folder / "workspace", folder / "shared"
        self.connection, self.channel = connection, channel
        self.files = self.files_with(Bounds())

    def files_with(self, bounds: Bounds) -> HelperFiles:
        return HelperFiles(self.connection, workspace=str(self.workspace), shared=str(self.shared), bounds=bounds)

    def sh(self, command: str) -> None:
        """As the agent."""
        subprocess.run(["/bin/sh", "-ec", command], cwd=self.workspace, user=NOBODY, group=NOBODY, check=True)


@pytest.fixture
async def world(public_tmp_path: Path, request: pytest.FixtureRequest) -> AsyncGenerator[World]:
    folder = public_tmp_path / f"files-{os.urandom(4).hex()}"
    for name in ("workspace", "shared"):
        (folder / name).mkdir(parents=True)
        os.chown(folder / name, NOBODY, NOBODY)
        (folder / name).chmod(0o770)
    process = await asyncio.create_subprocess_exec(
        *HELPER_ARGV,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=NOBODY,
        group=NOBODY,
        cwd="/",
        env={"PATH": os.defpath},  # a Python that every user may run
    )
    channel = ProcessChannel(process)
    await channel.send(HELPER_SOURCE)
    connection = await HelperConnection.open(channel)
    yield World(folder, connection, channel)
    await connection.close()


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(files: HelperFiles, path: str, **part: Any) -> bytes:
    async with files.open(WORKSPACE, path, **part) as opened:
        return b"".join([chunk async for chunk in opened.chunks])


async def names(files: HelperFiles, path: str = "") -> list[str]:
    return [item.name for item in (await files.list_folder(WORKSPACE, path)).items]


async def test_what_is_written_can_be_listed_read_moved_and_deleted(world: World) -> None:
    files = world.files
    entry, created = await files.write(WORKSPACE, "a/b.txt", chunks(b"hello ", b"there"), limit=100)
    assert (entry.path, entry.name, entry.type, entry.size, created) == ("a/b.txt", "b.txt", "file", 11, True)
    assert abs((datetime.now(UTC) - entry.modified_at).total_seconds()) < 60
    assert await files.stat(WORKSPACE, "a/b.txt") == entry
    assert (await files.list_folder(WORKSPACE, "a")).items == [entry]
    assert await read(files, "a/b.txt") == b"hello there"
    assert await read(files, "a/b.txt", start=6, length=100) == b"there"
    assert (await files.make_folder(WORKSPACE, "c")).type == "dir"
    assert (await files.move(WORKSPACE, "a/b.txt", "c/d.txt")).path == "c/d.txt"
    await files.delete(WORKSPACE, "c")
    assert await names(files) == ["a"]
    assert (await files.stat(WORKSPACE, "")).type == "dir"


async def test_what_cannot_be_done_is_told_by_its_code(world: World) -> None:
    files = world.files
    await files.write(WORKSPACE, "a", chunks(b"1"), limit=10)
    world.sh(
        "ln -s /etc/passwd link; ln -s /etc etc; mkfifo pipe; mkdir -p full/in; "
        "mkdir locked; chmod 0 locked; echo x >x; chmod 0 x"
    )

    async def code(operation: Any) -> str:
        with pytest.raises(PathError) as refused:
            await operation
        return refused.value.code

    assert await code(files.stat(WORKSPACE, "nothing")) == "file_not_found"
    assert await code(files.list_folder(WORKSPACE, "a")) == "not_a_directory"
    assert await code(files.list_folder(WORKSPACE, "etc")) == "not_a_directory"
    assert await code(files.list_folder(WORKSPACE, "locked")) == "permission_denied"
    assert await code(read(files, "")) == "is_directory"
    assert await code(read(files, "full")) == "is_directory"
    assert await code(read(files, "link")) == "invalid_path"
    assert await code(read(files, "etc/passwd")) == "not_a_directory"
    assert await code(read(files, "pipe")) == "invalid_path"
    assert await code(read(files, "x")) == "permission_denied"
    assert await code(read(files, "../secret")) == "invalid_path"
    assert await code(files.make_folder(WORKSPACE, "full")) == "file_exists"
    assert await code(files.move(WORKSPACE, "a", "full")) == "file_exists"
    assert await code(files.move(WORKSPACE, "full/in", "full", overwrite=True)) == "not_empty"
    assert await code(files.write(WORKSPACE, "a", chunks(b"2"), limit=10, overwrite=False)) == "file_exists"
    assert await code(files.write(WORKSPACE, "b", chunks(b"x" * 6, b"x" * 6), limit=10)) == "file_too_large"
    assert await code(files.delete(WORKSPACE, "nothing/at/all")) == "file_not_found"
    assert await read(files, "a") == b"1"
    assert "b" not in await names(files)


async def test_what_nobody_may_look_into_is_deleted_all_the_same(world: World) -> None:
    world.sh("mkdir -p t/a/b/c; touch t/a/b/f; chmod 0 t/a/b t/a t")
    await world.files.delete(WORKSPACE, "t")
    assert await names(world.files) == []


async def test_odd_names_are_escaped_and_their_files_can_be_used(world: World) -> None:
    world.sh(r"""printf one >"$(printf 'a\377\nb\\')"; printf two >"~root"; mkdir "$(printf '\342\200\256dir')" """)
    assert await names(world.files) == ["a\\xff\\x0ab\\x5c", "\\x7eroot", "\\xe2\\x80\\xaedir"]
    assert await read(world.files, "a\\xff\\x0ab\\x5c") == b"one"
    moved = await world.files.move(WORKSPACE, "\\x7eroot", "\\xe2\\x80\\xaedir/plain")
    assert await read(world.files, moved.path) == b"two"
    await world.files.delete(WORKSPACE, "\\xe2\\x80\\xaedir")


async def test_a_hundred_thousand_entries_are_listed_page_by_page(world: World) -> None:
    for number in range(100_000):
        os.mknod(world.workspace / f"{number:06}")
    page = await world.files.list_folder(WORKSPACE, "", limit=3)
    assert [item.name for item in page.items] == ["000000", "000001", "000002"]
    page = await world.files.list_folder(WORKSPACE, "", after="099997", limit=5)
    assert ([item.name for item in page.items], page.next_after) == (["099998", "099999"], None)
    await world.files.make_folder(WORKSPACE, "t")


async def test_a_reader_who_takes_their_time_holds_up_nobody(world: World) -> None:
    (world.workspace / "big").write_bytes(os.urandom(1000) * 3000)
    async with world.files.open(WORKSPACE, "big") as opened:
        iterator = aiter(opened.chunks)
        first = await anext(iterator)
        for _ in range(5):
            assert await names(world.files) == ["big"]
        rest = b"".join([chunk async for chunk in iterator])
    assert first + rest == (world.workspace / "big").read_bytes()
    async with world.files.open(WORKSPACE, "big") as opened:  # and one who goes away
        await anext(aiter(opened.chunks))
    assert await names(world.files) == ["big"]


async def test_a_file_is_as_long_as_it_was_when_it_was_opened(world: World) -> None:
    path = world.workspace / "log"
    path.write_bytes(b"x" * 1_000_000)
    async with world.files.open(WORKSPACE, "log") as opened:
        with path.open("ab") as more:
            more.write(b"y" * 1_000_000)
        assert b"".join([chunk async for chunk in opened.chunks]) == b"x" * 1_000_000
    async with world.files.open(WORKSPACE, "log") as opened:
        os.truncate(path, 10)
        with pytest.raises(SandboxDied):
            async for _ in opened.chunks:
                pass


async def test_of_an_upload_that_is_cancelled_nothing_is_left(world: World) -> None:
    half = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x" * 300_000
        half.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(world.files.write(WORKSPACE, "new/file", slowly(), limit=10**6))
    await half.wait()
    writing.cancel()
    await asyncio.wait([writing])
    assert await names(world.files) == []
    assert not world.connection.lost

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await world.files.write(WORKSPACE, "new/file", broken(), limit=10**6)
    assert await names(world.files) == []


async def test_an_archive_comes_as_it_is_made(world: World) -> None:
    world.sh("mkdir -p a/b; echo one >a/1; echo two >a/b/2; ln -s /etc/passwd a/link")
    async with world.files.zip(WORKSPACE, "a") as pieces:
        data = b"".join([piece async for piece in pieces])
    assert set(zipfile.ZipFile(io.BytesIO(data)).namelist()) == {"1", "b/2", "_missing.txt"}
    with pytest.raises(PathError):
        async with world.files.zip(WORKSPACE, "nothing"):
            pass
    with pytest.raises(PathError):
        async with world.files.zip(WORKSPACE, "a/1"):
            pass


async def test_an_archive_takes_no_longer_than_it_must(world: World) -> None:
    """What shrinks is packed at the fastest level, what does not at none."""
    contents = {"text": b"".join(b"line %d\n" % number for number in range(50_000)), "noise": os.urandom(500_000)}
    for name, content in contents.items():
        (world.workspace / name).write_bytes(content)
    async with world.files.zip(WORKSPACE, "") as pieces:
        archive = zipfile.ZipFile(io.BytesIO(b"".join([piece async for piece in pieces])))
    for name, level in (("text", 1), ("noise", 0)):
        packer = zlib.compressobj(level, zlib.DEFLATED, -15)
        packed = len(packer.compress(contents[name])) + len(packer.flush())
        assert archive.read(name) == contents[name]
        assert abs(archive.getinfo(name).compress_size - packed) < packed / 1000


async def test_documents_are_copied_to_the_shared_folder(world: World) -> None:
    world.sh("mkdir -p a; echo one >a/r.pdf; echo two >r.PDF; echo no >r.txt; echo x >locked.pdf; chmod 0 locked.pdf")
    found = await world.files.keep_documents((".pdf",), "20260102T030405Z")
    assert sorted(item.path for item in found.kept) == [
        "outputs/r_20260102T030405Z.PDF",
        "outputs/r_20260102T030405Z.pdf",
    ]
    assert [(item.path, item.code) for item in found.left_out] == [("locked.pdf", "permission_denied")]
    page = await world.files.list_folder(SHARED, "outputs")
    assert [item.size for item in page.items] == [4, 4]


async def test_usage_is_what_the_file_system_says_or_what_lies_there(world: World) -> None:
    (world.workspace / "a").write_bytes(b"x" * 10_000)
    found = await world.files.usage(WORKSPACE)
    assert found.limit_bytes is not None
    assert 0 < found.used_bytes <= found.limit_bytes
    counted = world.files_with(Bounds(disk_bytes=50_000, max_files=10))
    found = await counted.usage(WORKSPACE)
    assert 10_000 <= found.used_bytes < 50_000
    assert (found.used_files, found.limit_bytes, found.limit_files) == (1, 50_000, 10)
    assert (await counted.usage(SHARED)).limit_bytes is None
    with pytest.raises(PathError, match="no room"):
        await counted.write(WORKSPACE, "b", chunks(b"x" * 60_000), limit=10**6)
    assert await names(world.files) == ["a"]


# A helper that lies ----------------------------------------------------------------------------------------------


class Liar:
    """Answers each order with the same output and the same report.

    In `crumbs` each byte is a piece of its own, told as output and as complaint in turn.
    """

    def __init__(self, output: bytes, report: object, *, crumbs: bool = False) -> None:
        self._crumbs = crumbs
        self._frames = asyncio.Queue[bytes]()
        self._frames.put_nowait(self._frame(b"h", 0, b'{"version":1}'))
        self._output, self._report = output, report
        self._given = bytearray()

    @staticmethod
    def _frame(kind: bytes, number: int, payload: bytes) -> bytes:
        return HEADER.pack(kind, number, len(payload)) + payload

    async def send(self, data: bytes) -> None:
        kind, number, _ = HEADER.unpack_from(data)
        if kind == b"C":
            self._frames.put_nowait(self._frame(b"r", number, b""))
        elif kind == b"G" and self._crumbs:
            for at, byte in enumerate(self._output):
                self._frames.put_nowait(self._frame(b"oe"[at % 2 :][:1], number, bytes([byte])))
        elif kind == b"G":
            for start in range(0, len(self._output), 60_000):
                self._frames.put_nowait(self._frame(b"o", number, self._output[start : start + 60_000]))
            if self._report is not None:
                self._frames.put_nowait(self._frame(b"x", number, json.dumps(self._report).encode()))
        elif kind == b"I":
            self._frames.put_nowait(self._frame(b"w", number, CREDIT_BYTES.pack(len(data))))

    async def receive(self) -> bytes:
        return await self._frames.get()

    async def close(self) -> str:
        return ""


FINE = {"outcome": "exited"}


@pytest.mark.parametrize(
    "output",
    [
        b"", b"{", b"[]", b"null", b'{"items":{},"next_after":null}', b'{"items":[[]],"next_after":null}',
        b'{"items":[["a","file",1]],"next_after":null}', b'{"items":[["a","house",1,1]],"next_after":null}',
        b'{"items":[["a","file",-1,1]],"next_after":null}', b'{"items":[["..","file",1,1]],"next_after":null}',
        b'{"items":[["a/b","file",1,1]],"next_after":null}', b'{"items":[["","file",1,1]],"next_after":null}',
        b'{"items":[["\\u1234","file",1,1]],"next_after":null}', b'{"items":[["a","file",1e99,1]],"next_after":null}',
        b'{"items":[' + b",".join([b'["a","file",1,1]'] * 101) + b'],"next_after":null}',
        b'{"items":[],"next_after":7}', b'{"items":[],"next_after":"../x"}', b"[" * 100_000, b" " * 200_000,
    ],
)  # fmt: skip
async def test_a_listing_that_makes_no_sense_is_refused(output: bytes) -> None:
    channel: Channel = Liar(output, FINE)
    connection = await HelperConnection.open(channel)
    files = HelperFiles(connection, workspace="/workspace", shared="/shared", bounds=Bounds())
    with pytest.raises(SandboxUnavailable):
        await files.list_folder(WORKSPACE, "")
    await connection.close()


@pytest.mark.parametrize("time_ns", [-(10**30), 10**30, 0, 2**64])
async def test_times_that_no_clock_shows_are_taken_for_the_nearest_that_one_does(time_ns: int) -> None:
    listing = json.dumps({"items": [["a", "file", 1, time_ns]], "next_after": None}).encode()
    connection = await HelperConnection.open(Liar(listing, FINE))
    files = HelperFiles(connection, workspace="/workspace", shared="/shared", bounds=Bounds())
    try:
        assert 1970 <= (await files.list_folder(WORKSPACE, "")).items[0].modified_at.year <= 9999
    except SandboxUnavailable:  # more than JSON numbers hold
        assert abs(time_ns) > 2**63
    await connection.close()


@pytest.mark.parametrize(
    "output", [b"", b"\0\0", b"\xff\xff\xff\xff" + b"x" * 100, b"\0\0\0\x02[]rest", b'\0\0\0\x13["a","file",100,1] xxx']
)
async def test_a_file_is_not_longer_or_shorter_than_it_was_said_to_be(output: bytes) -> None:
    connection = await HelperConnection.open(Liar(output, FINE))
    files = HelperFiles(connection, workspace="/workspace", shared="/shared", bounds=Bounds())
    with pytest.raises(SandboxUnavailable):
        await read(files, "a")
    await connection.close()


async def test_more_than_a_file_has_is_not_passed_on() -> None:
    head = b'["a","file",3,1]'
    connection = await HelperConnection.open(Liar(len(head).to_bytes(4, "big") + head + b"y" * 100, FINE))
    files = HelperFiles(connection, workspace="/workspace", shared="/shared", bounds=Bounds())
    assert await read(files, "a") == b"yyy"
    await connection.close()


async def test_a_file_does_not_come_in_crumbs() -> None:
    """What is output and what a complaint in turn is not put together: each byte would be a piece of its own."""
    head = b'["a","file",3,1]'
    connection = await HelperConnection.open(Liar(len(head).to_bytes(4, "big") + head + b"yyy", FINE, crumbs=True))
    files = HelperFiles(connection, workspace="/workspace", shared="/shared", bounds=Bounds())
    with pytest.raises(SandboxUnavailable, match="does not make sense"):
        await read(files, "a")
    await connection.close()
