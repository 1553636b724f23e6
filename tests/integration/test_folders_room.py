"""The machine's own disk, when it has hardly any room left."""

import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.integration.folders_harness import SMALL, World, open_world, prepared, thread_of

from moorage.adapters.folders.layout import IMAGES
from moorage.ids import ThreadId
from moorage.sandboxes.port import SandboxUnavailable

_MEGABYTES = 64

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk of its own")


@pytest.fixture(params=["loop", "watch"])
def world(
    request: pytest.FixtureRequest, public_tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[World]:
    disk = public_tmp_path / tmp_path_factory.mktemp("disk").name
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m,mode=755", "tmpfs", str(disk)], check=True)
    base = disk / "world"
    base.mkdir(mode=0o711)
    try:
        with open_world(base, request.param) as world:
            yield world
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(world: World, *, but_megabytes: int) -> Path:
    ballast = world.base.parent / "ballast"
    status = os.statvfs(world.base)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - but_megabytes * 1024 * 1024)
    return ballast


def disk_lacks(world: World) -> list[str]:
    return [lack.detail for lack in world.folders().shortcomings() if lack.name == "disk"]


def test_on_a_nearly_full_disk_no_new_workspace_is_made_and_old_ones_go_on(world: World) -> None:
    folders = world.folders()
    old, new = prepared(folders), thread_of()
    assert disk_lacks(world) == []
    ballast = fill(world, but_megabytes=2)
    with pytest.raises(SandboxUnavailable) as refused:
        folders.prepare(new, SMALL)
    assert (refused.value.code, refused.value.retry_after) == ("host_disk_full", 60)
    assert str(world.base) not in refused.value.detail
    assert folders.prepare(ThreadId(old.name), SMALL).agent == old.agent
    ballast.unlink()
    assert folders.prepare(new, SMALL).name == new


def test_the_operator_is_told_which_disk_and_how_much_is_left(world: World) -> None:
    fill(world, but_megabytes=2)
    root, shared = disk_lacks(world)
    assert "WORKSPACE_ROOT has only 2 MiB left" in root or "WORKSPACE_ROOT has only 1 MiB left" in root
    assert "SHARED_DIR" in shared


@pytest.mark.parametrize("world", ["loop"], indirect=True)
def test_an_image_that_could_not_be_made_leaves_nothing_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = world.folders()
    assert folders.storage == "loop"
    monkeypatch.setenv("PATH", "/nowhere")  # the program that makes it is gone
    with pytest.raises(SandboxUnavailable):
        prepared(folders)
    images = [name for place in (world.root, world.shared) for name in place.glob(f"**/{IMAGES}/*")]
    assert images == []
