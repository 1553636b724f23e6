"""Workspaces whose bounds nothing but the helper sees to, because the file system does not."""

import os
from collections.abc import AsyncGenerator

import pytest
from tests.contract.sandboxes.harness import Harbour, open_harbour

from moorage.ids import ThreadId
from moorage.sandboxes.port import Outcome, PathError, Sandbox

_MIB = 1024 * 1024


@pytest.fixture(scope="module", params=["docker", "bubblewrap"])
async def harbour(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Harbour]:
    async with open_harbour(request.param, tmp_path_factory.mktemp("watched"), storage="watch") as harbour:
        yield harbour


@pytest.fixture
async def tight(harbour: Harbour, thread_id: ThreadId) -> Sandbox:
    """Under a profile of 8 MiB and 200 files."""
    return await harbour.sandboxes.acquire(thread_id, profile="tight")


async def test_a_command_that_fills_the_workspace_is_ended(tight: Sandbox) -> None:
    result = await tight.run("head -c 20M /dev/zero > big; sleep 60", time_limit=30)
    assert result.outcome is Outcome.DISK_FULL


async def test_nor_may_it_make_files_without_end(tight: Sandbox) -> None:
    result = await tight.run("mkdir d; for n in $(seq 300); do touch d/$n; done; sleep 60", time_limit=30)
    assert result.outcome is Outcome.DISK_FULL


async def test_it_cannot_hide_them_from_who_looks(tight: Sandbox) -> None:
    deep = "import os\nfor _ in range(300):\n os.mkdir('d'); os.chdir('d')"
    hidden = "mkdir -p a/b; head -c 20M /dev/zero > a/b/c; chmod 0 a/b a; sleep 60"
    assert (await tight.run(hidden, time_limit=30)).outcome is Outcome.DISK_FULL
    await tight.run("chmod 700 a a/b; rm -r a", time_limit=20)
    assert (await tight.run(f'python3 -c "{deep}"; sleep 60', time_limit=30)).outcome is Outcome.DISK_FULL


async def test_in_a_full_workspace_nothing_is_written_but_all_can_be_deleted(tight: Sandbox) -> None:
    await tight.run("head -c 20M /dev/zero > big; sleep 60", time_limit=30)
    refused = await tight.run("head -c 100K /dev/urandom > more; stat -c %s more; rm big", time_limit=20)
    assert "0\n" in refused.output
    assert "The workspace is full" in refused.output
    with pytest.raises(PathError) as caught:
        await tight.write_file("/workspace/more", os.urandom(9 * _MIB))
    assert caught.value.code == "no_space"
    await tight.run("rm big", time_limit=10)
    assert (await tight.run("echo x > note; cat note", time_limit=10)).output == "x\n"
    await tight.write_file("/workspace/more", os.urandom(_MIB))


async def test_links_and_holes_are_not_counted_twice(tight: Sandbox) -> None:
    counted = "head -c 5M /dev/zero > a; ln a b; ln -s a c; truncate -s 50M hole; sleep 3; echo done"
    assert (await tight.run(counted, time_limit=30)).output == "done\n"
