"""Files for people, in every kind of sandbox, against programs of the agent that do what they can to be in the way."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from tests.contract.sandboxes.harness import Harbour

from moorage.ids import ThreadId, UserId, user_place
from moorage.sandboxes.files import FileAccess, Root
from moorage.sandboxes.port import CommandResult, PathError, Sandbox, SandboxUnavailable

WORKSPACE, SHARED = Root.WORKSPACE, Root.SHARED
type Sh = Callable[[str], Awaitable[CommandResult]]

# A program that turns names into other things as fast as it can, until a file `stop` is there.
SWAPPER = """
import os, contextlib
os.makedirs("dir", exist_ok=True); open("dir/f", "w").write("mine")
os.makedirs("spare", exist_ok=True); open("spare/f", "w").write("mine")
os.symlink("/etc", "link"); os.symlink("/proc/1/root/etc", "proc"); os.mkfifo("pipe"); open("ready", "w")
while not os.path.exists("stop"):
    for source, target in (("dir", "x"), ("link", "dir"), ("dir", "link"), ("pipe", "dir"), ("dir", "pipe"),
                           ("proc", "dir"), ("dir", "proc"), ("spare", "dir"), ("dir", "spare"), ("x", "dir")):
        with contextlib.suppress(OSError):
            os.rename(source, target)
"""


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(files: FileAccess, path: str, root: Root = WORKSPACE) -> bytes:
    async with files.open(root, path) as opened:
        return b"".join([chunk async for chunk in opened.chunks])


async def names(files: FileAccess, path: str = "", root: Root = WORKSPACE) -> list[str]:
    return [item.name for item in (await files.list_folder(root, path)).items]


async def until_there(files: FileAccess, path: str) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(PathError):
                await files.stat(WORKSPACE, path)
                return


async def test_people_and_commands_see_the_same_files(sandbox: Sandbox, sh: Sh) -> None:
    entry, created = await sandbox.files.write(WORKSPACE, "in/a.txt", chunks(b"from ", b"outside"), limit=100)
    assert (entry.path, entry.size, created) == ("in/a.txt", 12, True)
    done = await sh("cat in/a.txt && echo from inside >in/b.txt && test -w in/a.txt && test -O in/a.txt")
    assert (done.output, done.exit_code) == ("from outside", 0)
    assert await read(sandbox.files, "in/b.txt") == b"from inside\n"
    assert await names(sandbox.files, "in") == ["a.txt", "b.txt"]
    await sandbox.files.move(WORKSPACE, "in", "out")
    await sandbox.files.delete(WORKSPACE, "out")
    assert (await sh("ls -A | grep -v lost+found")).output == ""


async def test_what_a_thread_shares_its_user_can_read_and_delete(harbour: Harbour, sandbox: Sandbox, sh: Sh) -> None:
    done = await sh("umask; mkdir -p /shared/a/b && echo theirs >/shared/a/b/c")
    assert done.exit_code == 0, done.output
    place = user_place(UserId("alice"))
    own = (await harbour.sandboxes.acquire(place)).files
    try:
        assert await read(own, "a/b/c", SHARED) == b"theirs\n"
        await own.write(SHARED, "a/b/c", chunks(b"mine"), limit=100)
        assert (await sh("cat /shared/a/b/c && echo more >>/shared/a/b/c")).output == "mine"
        await own.delete(SHARED, "a")
        assert "a" not in await names(sandbox.files, root=SHARED)
    finally:
        await harbour.sandboxes.delete(place)


async def test_whoever_swaps_names_meanwhile_leads_nobody_elsewhere(sandbox: Sandbox) -> None:
    swapping = asyncio.create_task(sandbox.run(f"exec python3 -c '{SWAPPER}'", time_limit=600))  # `stop` ends it
    await until_there(sandbox.files, "ready")
    for _ in range(150):
        with suppress(PathError):
            assert await read(sandbox.files, "dir/f") in (b"mine", b"written", b"")
        with suppress(PathError):
            assert "passwd" not in await names(sandbox.files, "dir")
        with suppress(PathError):
            await sandbox.files.write(WORKSPACE, "dir/f", chunks(b"written"), limit=100)
        with suppress(PathError):
            assert await read(sandbox.files, "dir/passwd") == b""
        with suppress(PathError):
            await sandbox.files.delete(WORKSPACE, "dir/passwd")
    await sandbox.files.write(WORKSPACE, "stop", chunks(), limit=1)
    assert (await swapping).exit_code == 0


async def test_files_are_used_beside_a_command_in_the_same_sandbox(
    harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox
) -> None:
    running = asyncio.create_task(sandbox.run("until [ -e go ]; do sleep 0.02; done; echo gone", time_limit=30))
    elsewhere = await harbour.direct(thread_id)
    try:
        await elsewhere.files.write(WORKSPACE, "go", chunks(b"x"), limit=10)
        assert (await running).output == "gone\n"
        assert [info.thread_id for info in await harbour.provider.list()].count(thread_id) == 1
    finally:
        await elsewhere.close()


async def test_hostile_things_are_listed_and_deleted_and_never_opened(sandbox: Sandbox, sh: Sh) -> None:
    made = await sh(
        "mkfifo pipe; ln -s /proc/self/environ env; ln -s . loop; ln -s /dev/zero zero; "
        "mkdir -p locked/in; touch locked/in/f; chmod 0 locked/in locked; echo one >a; ln a b; "
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'"
    )
    assert made.exit_code == 0, made.output
    page = await sandbox.files.list_folder(WORKSPACE, "")
    types = {item.name: item.type for item in page.items}
    types.pop("lost+found", None)
    assert types == {
        "a": "file", "b": "file", "env": "link", "locked": "dir", "loop": "link", "pipe": "other", "sock": "other",
        "zero": "link",
    }  # fmt: skip
    for name in ("pipe", "env", "loop", "zero", "sock"):
        with pytest.raises(PathError) as refused:
            await read(sandbox.files, name)
        assert refused.value.code == "invalid_path"
    for name in types:
        await sandbox.files.delete(WORKSPACE, name)
    assert (await sh("ls -A | grep -v lost+found")).output == ""


async def test_a_thousand_levels_are_deleted(sandbox: Sandbox, sh: Sh) -> None:
    made = await sh(
        'python3 -c \'import os\nfor _ in range(1000): os.mkdir("d"); os.chdir("d"); open("f", "w").close()\''
    )
    assert made.exit_code == 0, made.output
    await sandbox.files.delete(WORKSPACE, "d")
    assert "d" not in await names(sandbox.files)


async def test_a_full_workspace_takes_no_more_and_can_be_cleared(harbour: Harbour) -> None:
    thread_id = harbour.new_thread()
    tight = await harbour.direct(thread_id, profile="tight")
    other = await harbour.open()
    try:
        with pytest.raises(PathError) as refused:
            await tight.files.write(WORKSPACE, "new/big", large(20), limit=10**9)
        assert refused.value.code == "no_space"
        assert "new" not in await names(tight.files)
        await tight.files.write(WORKSPACE, "small", chunks(b"x"), limit=10)
        await other.files.write(WORKSPACE, "big", large(20), limit=10**9)
        usage = await tight.files.usage(WORKSPACE)
        assert usage.limit_bytes is not None
        assert usage.used_bytes < usage.limit_bytes < 16 * 1024**2  # of which the file system needs some itself
        await tight.files.delete(WORKSPACE, "small")
    finally:
        await tight.close()
        await harbour.sandboxes.delete(thread_id)
        await harbour.sandboxes.delete(ThreadId(other.id))


async def large(megabytes: int) -> AsyncIterator[bytes]:
    for _ in range(megabytes):
        yield os.urandom(1024) * 1024


async def test_an_agent_that_kills_all_it_can_leaves_half_a_file_nowhere(sandbox: Sandbox, sh: Sh) -> None:
    half = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x" * 300_000
        half.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(sandbox.files.write(WORKSPACE, "half", slowly(), limit=10**6))
    await half.wait()
    killing = asyncio.create_task(sh("kill -9 -1"))
    with pytest.raises((SandboxUnavailable, PathError)):
        await writing
    await asyncio.wait([killing])
    assert [name for name in await names(sandbox.files) if name != "lost+found"] == []


async def test_documents_are_kept_under_the_agents_own_rights(harbour: Harbour, sandbox: Sandbox, sh: Sh) -> None:
    await sh(
        "mkdir -p out; echo 1 >out/r.pdf; echo 2 >r.docx; ln -s /etc/passwd passwd.pdf; mkfifo pipe.pdf; echo 3 >no.txt"
    )
    found = await sandbox.files.keep_documents((".pdf", ".docx"), "stamp")
    try:
        assert {item.path for item in found.kept} == {"outputs/r_stamp.pdf", "outputs/r_stamp.docx"}
        assert found.left_out == []
    finally:
        await sandbox.files.delete(SHARED, "outputs")
