"""What `/readyz` says beside whether work can be taken."""

import os
import subprocess
from collections.abc import Generator

import httpx
import pytest
from tests.api.harness import Server


@pytest.fixture
def nearly_full(server: Server) -> Generator[None]:
    """The disk that workspaces are on."""
    root = server.workspaces
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(root)], check=True)
    (root / "ballast").write_bytes(bytes(32 * 1024 * 1024 - 8192))
    yield
    subprocess.run(["umount", str(root)], check=True)


async def disk_of(server: Server) -> tuple[int, str]:
    async with httpx.AsyncClient(base_url=server.url) as client:
        ready = await client.get("/readyz")
    return ready.status_code, ready.json()["checks"]["disk"]


async def test_with_room_for_workspaces_the_disk_is_ok(server: Server) -> None:
    assert await disk_of(server) == (200, "ok")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk of its own")
@pytest.mark.usefixtures("nearly_full")
async def test_on_a_nearly_full_disk_it_is_ready_and_says_how_much_is_left(server: Server) -> None:
    assert await disk_of(server) == (200, "0 MiB left, of 1 MiB that new workspaces need")
