"""A thread's container from its first use to its end, on a real engine."""

import asyncio
import secrets
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.contract.sandboxes.dock import PROFILES, SMALL, Dock, new_provider, on_engine, open_dock
from tests.contract.sandboxes.harness import eventually, processes_with

from moorage.adapters.folders.mounts import is_mount, unmount
from moorage.errors import InvalidInput
from moorage.ids import ThreadId
from moorage.sandboxes.port import Outcome, SandboxGone, SandboxUnavailable, StaleClaim

_DEAD_SECONDS = 2.0  # as promised; the new container may take longer
_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        open("full", "w").close()
"""


@pytest.fixture(scope="module")
async def dock(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Dock]:
    async with open_dock(tmp_path_factory.mktemp("docker")) as dock:
        yield dock


@pytest.fixture
async def thread_id(dock: Dock) -> AsyncGenerator[ThreadId]:
    thread_id = dock.new_thread()
    yield thread_id
    await dock.provider.remove(thread_id, files=True)


class TestTheContainer:
    async def test_is_described_as_closed_and_bounded_as_can_be(self, dock: Dock, thread_id: ThreadId) -> None:
        await dock.provider.ensure(thread_id, profile="default")
        found = dock.inspect(thread_id)
        host, config = found["HostConfig"], found["Config"]
        expected = {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "CapAdd": None,
            "Privileged": False,
            "Memory": SMALL.memory_mb * 1024 * 1024,
            "MemorySwap": SMALL.memory_mb * 1024 * 1024,
            "CpuPeriod": 10_000,
            "CpuQuota": 10_000,
            "PidsLimit": SMALL.pids,
            "IpcMode": "private",
            "PidMode": None,
            "UTSMode": None,
            "CgroupnsMode": "private",
            "Init": True,
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "PortBindings": None,
            "PublishAllPorts": False,
            "Binds": None,
            "Devices": None,
            "GroupAdd": None,
        }
        assert {name: host[name] or None if host[name] in ([], {}, "") else host[name] for name in expected} == expected
        assert [option.split("=")[0] for option in host["SecurityOpt"]] == ["no-new-privileges", "seccomp"]
        assert {mount["Destination"] for mount in found["Mounts"]} == {"/workspace", "/shared"}
        assert all("noexec" in options and "size=" in options for options in host["Tmpfs"].values())
        assert config["User"] == "65534:65534"
        assert config["Image"].startswith("sha256:")

    async def test_is_made_once_and_kept(self, dock: Dock, thread_id: ThreadId) -> None:
        await dock.provider.ensure(thread_id, profile="default")
        before = dock.inspect(thread_id)["Id"]
        for profile in ("default", None):
            await dock.provider.ensure(thread_id, profile=profile)
        assert dock.inspect(thread_id)["Id"] == before

    async def test_is_replaced_by_one_of_another_profile(self, dock: Dock, thread_id: ThreadId) -> None:
        await dock.run(thread_id, "echo kept > note")
        await dock.provider.ensure(thread_id, profile="other")
        assert dock.inspect(thread_id)["HostConfig"]["Memory"] == 300 * 1024 * 1024
        assert (await dock.run(thread_id, "cat note")).output == "kept\n"

    async def test_is_left_alone_when_no_profile_is_asked_for(self, dock: Dock, thread_id: ThreadId) -> None:
        sandbox = await dock.sandbox(thread_id, profile="other")
        running = asyncio.create_task(sandbox.run("touch began; cat <go; echo alive", time_limit=30))
        await sandbox.run("[ -p go ] || mkfifo go", time_limit=10)
        await dock.provider.ensure(thread_id, profile=None)
        running.cancel()
        await asyncio.wait([running])
        assert [info.profile for info in await dock.provider.list() if info.thread_id == thread_id] == ["other"]

    async def test_of_a_server_with_other_settings_is_replaced(self, dock: Dock, thread_id: ThreadId) -> None:
        await dock.provider.ensure(thread_id, profile="default")
        before = dock.inspect(thread_id)["Id"]
        profiles = {"default": replace(SMALL, pids=80)}
        other, _ = new_provider(dock.root, dock.installation, profiles=profiles)
        await other.ensure(thread_id, profile="default")
        await other.close()
        assert dock.inspect(thread_id)["Id"] != before
        assert dock.inspect(thread_id)["HostConfig"]["PidsLimit"] == 80

    async def test_an_unknown_profile_is_refused(self, dock: Dock, thread_id: ThreadId) -> None:
        with pytest.raises(InvalidInput) as caught:
            await dock.provider.ensure(thread_id, profile="nosuch")
        assert caught.value.code == "unknown_profile"

    @pytest.mark.parametrize("name", ["", "alice", "../../etc", "alice-" + "0" * 36])
    async def test_what_is_no_thread_id_is_refused(self, dock: Dock, name: str) -> None:
        with pytest.raises(InvalidInput):
            await dock.provider.ensure(ThreadId(name), profile=None)


class TestPausing:
    async def test_removes_the_container_and_keeps_the_files(self, dock: Dock, thread_id: ThreadId) -> None:
        await dock.run(thread_id, "echo kept > note; echo lost > /tmp/note")
        await dock.provider.pause(thread_id)
        assert thread_id not in dock.containers()
        assert thread_id in [info.thread_id for info in await dock.provider.list(folders=True) if not info.running]
        assert thread_id not in [info.thread_id for info in await dock.provider.list()]
        assert (await dock.run(thread_id, "cat note; ls /tmp")).output == "kept\n"

    async def test_twice_and_of_what_never_was_is_nothing(self, dock: Dock, thread_id: ThreadId) -> None:
        await dock.provider.pause(thread_id)
        await dock.provider.ensure(thread_id, profile="default")
        await dock.provider.pause(thread_id)
        await dock.provider.pause(thread_id)

    async def test_no_helper_can_be_opened_in_what_does_not_run(self, dock: Dock, thread_id: ThreadId) -> None:
        with pytest.raises(SandboxGone):
            await dock.provider.open_helper(thread_id)

    async def test_a_container_that_stopped_is_made_anew_and_the_log_says_why(
        self, dock: Dock, thread_id: ThreadId
    ) -> None:
        await dock.provider.ensure(thread_id, profile="default")
        on_engine(lambda engine: engine.kill(dock.container(thread_id)))
        assert [info.running for info in await dock.provider.list(thread_id=thread_id)] == [False]
        assert (await dock.run(thread_id, "echo fine")).output == "fine\n"
        assert any("exit code 137" in line for line in (await dock.provider.stats(thread_id)).log)


class TestRemoving:
    async def test_takes_the_container_and_with_files_the_workspace(self, dock: Dock, thread_id: ThreadId) -> None:
        await dock.run(thread_id, "mkdir -p a/b; echo x > a/b/c; chmod 0 a")
        await dock.provider.remove(thread_id, files=False)
        assert thread_id not in dock.containers()
        assert thread_id in [info.thread_id for info in await dock.provider.list(folders=True)]
        await dock.provider.remove(thread_id, files=True)
        assert thread_id not in [info.thread_id for info in await dock.provider.list(folders=True)]
        assert not dock.folders.path(thread_id).exists()


class TestKillingAll:
    async def test_leaves_no_process_and_a_container_that_serves(self, dock: Dock, thread_id: ThreadId) -> None:
        seconds = f"86400.{secrets.randbelow(10**12):012d}"
        marker = f"sleep\0{seconds}"
        sandbox = await dock.sandbox(thread_id)
        stopped = f"sleep {seconds} & p=$!; until grep -qx sleep /proc/$p/comm; do :; done; kill -STOP $p"
        running = asyncio.create_task(
            sandbox.run(f"setsid sleep {seconds} & ({stopped}) & sleep {seconds}", time_limit=60)
        )
        assert await eventually(lambda: len(processes_with(marker)) == 3, within=20)
        killing = asyncio.create_task(dock.provider.kill_all(thread_id))
        assert await eventually(lambda: not processes_with(marker), within=_DEAD_SECONDS)
        await killing
        assert processes_with(marker) == []
        assert (await running).outcome is Outcome.LOST
        assert dock.inspect(thread_id)["State"]["Running"]
        assert (await dock.run(thread_id, "echo fine")).output == "fine\n"

    async def test_ends_a_fork_bomb_that_left_room_for_nothing(self, dock: Dock, thread_id: ThreadId) -> None:
        sandbox = await dock.sandbox(thread_id)
        running = asyncio.create_task(sandbox.run(f"exec python3 -c '{_BOMB}'", time_limit=60))
        assert await eventually((dock.folders.path(thread_id) / "full").exists, within=20)
        agent = dock.folders.identity(thread_id)
        await dock.provider.kill_all(thread_id)
        assert processes_of(agent.uid) == []
        await asyncio.wait([running])
        assert (await dock.run(thread_id, "echo fine")).output == "fine\n"

    async def test_ends_what_kills_the_killer(self, dock: Dock, thread_id: ThreadId) -> None:
        """Its hunter kills every other process of the agent, over and over: what is sent to end it, too."""
        sandbox = await dock.sandbox(thread_id)
        hunter = "import os\nopen('hunting', 'w').close()\nwhile True: os.kill(-1, 9)"
        running = asyncio.create_task(sandbox.run(f'exec python3 -c "{hunter}"', time_limit=60))
        assert await eventually((dock.folders.path(thread_id) / "hunting").exists, within=20)
        await dock.provider.kill_all(thread_id)
        assert processes_of(dock.folders.identity(thread_id).uid) == []
        await asyncio.wait([running])
        assert (await dock.run(thread_id, "echo fine")).output == "fine\n"

    async def test_is_nothing_where_nothing_runs(self, dock: Dock, thread_id: ThreadId) -> None:
        await dock.provider.kill_all(thread_id)
        assert thread_id not in dock.containers()

    async def test_of_one_thread_leaves_the_others_of_its_user_alone(self, dock: Dock, thread_id: ThreadId) -> None:
        other = await dock.sandbox(dock.new_thread())
        running = asyncio.create_task(other.run("sleep 2; echo alive", time_limit=20))
        await dock.sandbox(thread_id)
        await dock.provider.kill_all(thread_id)
        assert (await running).output == "alive\n"


class TestClaims:
    async def test_an_older_claim_than_the_newest_does_nothing(self, dock: Dock, thread_id: ThreadId) -> None:
        provider = dock.provider
        await provider.ensure(thread_id, profile="default", fencing_token=7)
        with pytest.raises(StaleClaim):
            await provider.ensure(thread_id, profile="other", fencing_token=6)
        with pytest.raises(StaleClaim):
            await provider.open_helper(thread_id, fencing_token=6)
        with pytest.raises(StaleClaim):
            await provider.kill_all(thread_id, fencing_token=6)
        await (await provider.open_helper(thread_id, fencing_token=7)).close()
        await (await provider.open_helper(thread_id)).close()

    async def test_a_claim_is_newer_for_the_server_next_door_too(self, dock: Dock, thread_id: ThreadId) -> None:
        other, _ = new_provider(dock.root, dock.installation)
        await dock.provider.kill_all(thread_id, fencing_token=9)
        with pytest.raises(StaleClaim):
            await other.ensure(thread_id, profile=None, fencing_token=8)
        await other.close()


class TestTwoServers:
    async def test_that_want_one_thread_at_once_get_one_container(self, dock: Dock, thread_id: ThreadId) -> None:
        other, _ = new_provider(dock.root, dock.installation)
        wanted = [provider.ensure(thread_id, profile="default") for provider in (dock.provider, other) * 3]
        await asyncio.gather(*wanted)
        notes = (await other.stats(thread_id)).log
        assert sum("created" in note for note in notes) == 1
        await other.close()

    async def test_another_process_uses_the_container_that_is_there(self, dock: Dock, thread_id: ThreadId) -> None:
        await dock.provider.ensure(thread_id, profile="default")
        before = dock.inspect(thread_id)["Id"]
        program = (
            "import asyncio, sys; from pathlib import Path; from tests.contract.sandboxes.dock import new_provider;"
            "provider, _ = new_provider(Path(sys.argv[1]), sys.argv[2]);"
            "asyncio.run(provider.ensure(sys.argv[3], profile='default'))"
        )
        arguments = [program, str(dock.root), dock.installation, thread_id]
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", *arguments)
        assert await process.wait() == 0
        assert dock.inspect(thread_id)["Id"] == before

    async def test_pausing_and_waking_in_turn_lose_no_file(self, dock: Dock, thread_id: ThreadId) -> None:
        other, _ = new_provider(dock.root, dock.installation)
        await dock.run(thread_id, "echo kept > note")
        for _ in range(3):
            await asyncio.gather(
                dock.provider.pause(thread_id),
                other.ensure(thread_id, profile="default"),
                other.pause(thread_id),
                dock.provider.ensure(thread_id, profile="default"),
            )
        assert (await dock.run(thread_id, "cat note")).output == "kept\n"
        await other.close()

    async def test_of_two_installations_do_not_see_each_other(self, dock: Dock, thread_id: ThreadId) -> None:
        await dock.provider.ensure(thread_id, profile="default")
        async with open_dock(dock.root / "elsewhere") as other:
            assert await other.provider.list(folders=True) == []


async def test_what_is_mounted_for_nobody_is_let_go_of_shared_folders_too(tmp_path: Path) -> None:
    """Left by a server that was killed between the two."""
    async with open_dock(tmp_path) as dock:
        place = dock.folders.prepare(dock.new_thread(), SMALL)
        in_use = dock.new_thread("bob")
        await dock.provider.ensure(in_use, profile="default")
        unmount(place.workspace.path)
        assert is_mount(place.shared.path)
        assert await dock.provider.release_unused() == 1
        assert not is_mount(place.shared.path)
        assert dock.folders.mounted() == [in_use]
        dock.folders.delete(ThreadId(place.name))


class TestStats:
    async def test_say_what_a_sandbox_uses(self, dock: Dock, thread_id: ThreadId) -> None:
        await dock.run(thread_id, "head -c 2M /dev/urandom > data; sync data")
        stats = await dock.provider.stats(thread_id)
        assert stats.memory_bytes is not None
        assert 0 < stats.memory_bytes < SMALL.memory_mb * 1024 * 1024
        assert stats.processes is not None
        assert stats.processes >= 2
        assert stats.cpu_seconds is not None
        assert stats.oom_kills == 0
        assert [line.split(" ", 1)[1] for line in stats.log] == ["created under profile default"]

    async def test_count_what_was_killed_for_memory_and_the_log_remembers(
        self, dock: Dock, thread_id: ThreadId
    ) -> None:
        result = await dock.run(thread_id, "exec python3 -c 'x = bytearray(1_000_000_000)'")
        assert (result.outcome, result.exit_code) == (Outcome.OUT_OF_MEMORY, 137)
        assert (await dock.provider.stats(thread_id)).oom_kills == 1
        await dock.provider.pause(thread_id)
        stats = await dock.provider.stats(thread_id)
        assert stats.log[-1].endswith("paused after 1 out-of-memory kills")
        assert (stats.memory_bytes, stats.processes, stats.oom_kills) == (None, None, None)


class TestTheEngine:
    async def test_is_asked_and_tried_before_anything_is_promised(self, dock: Dock) -> None:
        lacks = {found.name for found in await dock.provider.check()}
        assert lacks <= {"storage", "swap", "cgroupns"}
        assert [name for name in dock.containers() if name.startswith("probe-")] == []

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"profiles": {"default": replace(SMALL, image="moorage-nowhere:none")}}, "scripts/sandbox-image"),
            ({"profiles": {**PROFILES, "x": replace(SMALL, name="x", image="nowhere:none")}}, "profile 'x'"),
            ({"runtime": "nosuchruntime"}, "SANDBOX_RUNTIME=nosuchruntime"),
        ],
    )
    async def test_that_lacks_what_was_asked_for_is_explained(
        self, dock: Dock, tmp_path: Path, options: dict[str, Any], said: str
    ) -> None:
        other, _ = new_provider(tmp_path, dock.installation, **options)
        with pytest.raises(SandboxUnavailable, match=said):
            await other.check()
        await other.close()

    async def test_that_does_not_answer_is_explained_and_worth_another_try(
        self, tmp_path: Path, dock: Dock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")  # for a unix socket the SDK leaks its own
        other, _ = new_provider(tmp_path, dock.installation)
        thread_id = dock.new_thread()
        for asked in (other.check(), other.ensure(thread_id, profile=None), other.kill_all(thread_id), other.list()):
            with pytest.raises(SandboxUnavailable, match="No Docker engine answers") as caught:
                await asked
            assert caught.value.code == "no_engine"
        await other.close()

    async def test_that_does_not_see_the_folders_is_explained(self, tmp_path: Path, dock: Dock) -> None:
        other, folders = new_provider(tmp_path, dock.installation)
        folders._host_root = "/nowhere/at/all"  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(SandboxUnavailable, match="SANDBOX_HOST_WORKSPACE_ROOT"):
            await other.ensure(dock.new_thread(), profile=None)
        await other.close()


def processes_of(uid: int) -> list[str]:
    """The living processes of this machine with this uid."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if fields["Uid"].split()[0] == str(uid) and fields["State"][0] not in "ZX":
            found.append(fields["Name"])
    return found
