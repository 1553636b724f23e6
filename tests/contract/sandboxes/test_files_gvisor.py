"""Files for people under gVisor, whose kernel is not Linux: it has its own idea of some of what the helper asks for."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from tests.contract.sandboxes.dock import open_dock, runtimes

from moorage.sandboxes.files import Root
from moorage.sandboxes.helper_sandbox import HelperSandbox
from moorage.sandboxes.port import PathError

pytestmark = pytest.mark.skipif("runsc" not in runtimes(), reason="the engine has no gVisor")
WORKSPACE = Root.WORKSPACE


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[HelperSandbox]:
    async with open_dock(tmp_path_factory.mktemp("gvisor"), runtime="runsc") as dock:
        yield await dock.sandbox(dock.new_thread())


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def code_of(operation: Any) -> str:
    with pytest.raises(PathError) as refused:
        await operation
    return refused.value.code


async def read(sandbox: HelperSandbox, path: str) -> bytes:
    async with sandbox.files.open(WORKSPACE, path) as opened:
        return b"".join([chunk async for chunk in opened.chunks])


async def names(sandbox: HelperSandbox, path: str) -> list[str]:
    return [item.name for item in (await sandbox.files.list_folder(WORKSPACE, path)).items]


async def test_no_part_of_a_path_may_be_a_link(sandbox: HelperSandbox) -> None:
    await sandbox.run("mkdir links; cd links; ln -s /etc etc; ln -s /etc/passwd file; mkfifo pipe", time_limit=20)
    assert await code_of(read(sandbox, "links/etc/passwd")) == "not_a_directory"
    assert await code_of(names(sandbox, "links/etc")) == "not_a_directory"
    assert await code_of(sandbox.files.write(WORKSPACE, "links/etc/x", chunks(b"x"), limit=10)) == "not_a_directory"
    assert await code_of(sandbox.files.delete(WORKSPACE, "links/etc/x")) == "not_a_directory"
    for name in ("file", "pipe"):
        assert await code_of(read(sandbox, f"links/{name}")) == "invalid_path"
    await sandbox.files.delete(WORKSPACE, "links")


async def test_a_file_is_written_whole_or_not_at_all(sandbox: HelperSandbox) -> None:
    _, created = await sandbox.files.write(WORKSPACE, "w/a", chunks(b"one"), limit=10)
    assert created
    _, created = await sandbox.files.write(WORKSPACE, "w/a", chunks(b"two"), limit=10)
    assert not created
    again = sandbox.files.write(WORKSPACE, "w/a", chunks(b"three"), limit=10, overwrite=False)
    assert await code_of(again) == "file_exists"
    assert await code_of(sandbox.files.write(WORKSPACE, "w/b", chunks(b"x" * 11), limit=10)) == "file_too_large"
    assert await names(sandbox, "w") == ["a"]
    assert await read(sandbox, "w/a") == b"two"


async def test_what_is_moved_takes_nothings_place_and_what_is_locked_is_deleted(sandbox: HelperSandbox) -> None:
    await sandbox.run("mkdir -p m/x/y; touch m/a m/b m/x/y/f; chmod 0 m/x/y m/x", time_limit=20)
    assert await code_of(sandbox.files.move(WORKSPACE, "m/a", "m/b")) == "file_exists"
    await sandbox.files.move(WORKSPACE, "m/a", "m/c")
    assert await names(sandbox, "m") == ["b", "c", "x"]
    await sandbox.files.delete(WORKSPACE, "m")
    assert await code_of(sandbox.files.stat(WORKSPACE, "m")) == "file_not_found"
