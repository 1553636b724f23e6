"""Workspaces that somebody unmounts between being made ready and being shown in the sandbox."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.contract.sandboxes.harness import Harbour, Kind, connect, new_folders, new_installation, new_provider

from moorage.adapters.folders import Folders, Place
from moorage.adapters.folders.mounts import unmount
from moorage.ids import ThreadId, UserId
from moorage.sandboxes.port import Sandbox
from moorage.sandboxes.profiles import SandboxProfile
from moorage.sandboxes.service import Sandboxes


class UnmountedOnce(Folders):
    """An operator's `umount` at the worst moment: as soon as the first place is ready."""

    shared_too = False
    done = False

    def prepare(self, thread_id: ThreadId, profile: SandboxProfile) -> Place:
        place = super().prepare(thread_id, profile)
        if not self.done:
            self.done = True
            unmount(place.shared.path if self.shared_too else place.workspace.path)
        return place


@pytest.fixture(params=["docker", "bubblewrap"])
async def harbour(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Harbour]:
    kind: Kind = request.param
    usual = new_folders(tmp_path, storage="loop")
    folders = UnmountedOnce(tmp_path / "workspaces", tmp_path / "shared", registry=usual.registry, storage="loop")
    installation = new_installation()
    provider = new_provider(kind, folders, installation)
    sandboxes = Sandboxes(provider, connect)
    yield Harbour(provider, sandboxes, folders, tmp_path, kind, installation)
    await sandboxes.close()
    for info in await provider.list(folders=True):
        await provider.remove(info.thread_id, files=True)
    await provider.close()


@pytest.mark.parametrize("shared", [False, True], ids=["workspace", "shared folder"])
async def test_what_is_written_is_in_the_thread_s_folder_all_the_same(
    harbour: Harbour, sandbox: Sandbox, thread_id: ThreadId, *, shared: bool
) -> None:
    assert isinstance(harbour.folders, UnmountedOnce)
    harbour.folders.shared_too = shared
    written = await sandbox.run("echo kept > /workspace/note; echo kept > /shared/note", time_limit=20)
    assert (written.exit_code, written.output) == (0, "")
    assert harbour.folders.done
    assert (harbour.path(thread_id) / "note").read_text() == "kept\n"
    assert (harbour.folders.shared_path(UserId("alice")) / "note").read_text() == "kept\n"
