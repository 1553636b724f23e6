"""What only containers have: their hardening, the kernel's word on memory, and an operator who must be told things."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

import docker
import pytest
from tests.contract.sandboxes.harness import IMAGE, LIMITS, Harbour, open_harbour

from moorage.adapters.docker import DockerSandboxes
from moorage.ids import ThreadId
from moorage.sandboxes.port import Folder, Outcome, SandboxUnavailable
from moorage.sandboxes.service import Sandboxes


@pytest.fixture(scope="module")
async def harbour(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Harbour]:
    async with open_harbour("docker", tmp_path_factory.mktemp("docker")) as harbour:
        yield harbour


def inspect(ref: str) -> dict[str, Any]:
    client = docker.APIClient()
    try:
        return cast(dict[str, Any], client.inspect_container(ref))
    finally:
        client.close()


def provider(harbour: Harbour, **changes: Any) -> DockerSandboxes:
    arguments = {"installation": "testother", "image": IMAGE, "agent": harbour.workspaces.agent}
    return DockerSandboxes(**{**arguments, **changes})


async def test_the_container_is_hardened(harbour: Harbour) -> None:
    found = inspect(await harbour.provider.create(harbour.spec(harbour.new_thread())))
    host, config = found["HostConfig"], found["Config"]
    expected = {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": None,
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges"],
        "Memory": 256 * 1024 * 1024,
        "MemorySwap": 256 * 1024 * 1024,
        "NanoCpus": 1_000_000_000,
        "PidsLimit": 128,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "Init": True,
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "PortBindings": None,
        "Binds": None,
        "Devices": None,
    }
    assert {name: host[name] or None if host[name] in ([], {}) else host[name] for name in expected} == expected
    assert {mount["Destination"] for mount in found["Mounts"]} == {"/workspace", "/shared"}
    assert all("noexec" in options and "size=" in options for options in host["Tmpfs"].values())
    assert config["User"] == "65534:65534"


async def test_running_out_of_memory_is_said(harbour: Harbour) -> None:
    sandbox = await harbour.open()
    result = await sandbox.run("exec python3 -c 'x = bytearray(1_000_000_000)'", time_limit=20)
    assert (result.outcome, result.exit_code) == (Outcome.OUT_OF_MEMORY, 137)


async def test_a_kill_for_another_reason_is_not_called_out_of_memory(harbour: Harbour) -> None:
    sandbox = await harbour.open()
    assert (await sandbox.run("kill -9 $$", time_limit=20)).outcome is Outcome.EXITED


async def test_the_agent_cannot_signal_the_first_process(harbour: Harbour) -> None:
    sandbox = await harbour.open()
    assert (await sandbox.run("kill -9 1 || kill -9 7", time_limit=20)).exit_code != 0


async def test_nothing_in_tmp_can_be_executed(harbour: Harbour) -> None:
    sandbox = await harbour.open()
    result = await sandbox.run("cp /bin/true /tmp/x && /tmp/x", time_limit=20)
    assert result.exit_code == 126


async def test_a_container_made_for_other_limits_is_replaced(harbour: Harbour) -> None:
    spec = harbour.spec(harbour.new_thread())
    ref = await harbour.provider.create(spec)
    before = inspect(ref)["Id"]
    assert inspect(await harbour.provider.create(spec))["Id"] == before
    again = await harbour.provider.create(replace(spec, limits=replace(LIMITS, memory_mb=300)))
    assert inspect(again)["Id"] != before
    assert inspect(again)["HostConfig"]["Memory"] == 300 * 1024 * 1024


async def test_two_installations_on_one_engine_do_not_see_each_other(harbour: Harbour) -> None:
    await harbour.provider.create(harbour.spec(harbour.new_thread()))
    other = provider(harbour)
    assert await other.list() == []
    await other.close()


async def test_a_missing_image_is_never_pulled_but_explained(harbour: Harbour) -> None:
    other = provider(harbour, image="moorage-nowhere:none")
    with pytest.raises(SandboxUnavailable, match="scripts/sandbox-image"):
        await other.check()
    await other.close()


async def test_a_runtime_that_the_engine_does_not_have_is_refused(harbour: Harbour) -> None:
    other = provider(harbour, runtime="nosuchruntime")
    with pytest.raises(SandboxUnavailable, match="SANDBOX_RUNTIME=nosuchruntime"):
        await other.check()
    await other.close()


async def test_an_engine_that_does_not_answer_is_explained(harbour: Harbour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")  # for a unix socket the SDK leaks its own
    other = provider(harbour)
    with pytest.raises(SandboxUnavailable, match="No Docker engine answers"):
        await other.check()
    await other.close()


async def test_folders_that_the_engine_cannot_see_are_explained(harbour: Harbour) -> None:
    spec = harbour.spec(harbour.new_thread())
    wrong = replace(spec, workspace=Folder(spec.workspace.path, "/nowhere/at/all"))
    with pytest.raises(SandboxUnavailable, match="SANDBOX_HOST_WORKSPACE_ROOT"):
        await harbour.provider.create(wrong)


async def test_idle_sandboxes_are_stopped_and_busy_ones_are_not(harbour: Harbour) -> None:
    now = [0.0]
    sandboxes = Sandboxes(harbour.provider, harbour.workspaces, limits=LIMITS, idle_seconds=60, clock=lambda: now[0])
    idle, used = harbour.new_thread(), harbour.new_thread()
    for thread_id in (idle, used):
        await (await sandboxes.acquire(thread_id)).run("true", time_limit=20)
    now[0] = 61
    await (await sandboxes.acquire(used)).run("true", time_limit=20)
    assert await sandboxes.sweep() == 1
    assert await running(harbour) >= {used}
    assert idle not in await running(harbour)
    await sandboxes.close()
    assert used not in await running(harbour)


async def running(harbour: Harbour) -> set[ThreadId]:
    return {info.thread_id for info in await harbour.provider.list() if info.running}
