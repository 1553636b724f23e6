"""The real broker, a process of its own, over a real engine."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moorage.adapters.docker import open_channel
from moorage.adapters.sandboxd import BrokerSandboxes
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.sandboxes.port import Channel, SandboxGone, SandboxUnavailable, StaleClaim

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the broker's place is where root is")

type StartBroker = Callable[[], Awaitable[Process]]


@pytest.fixture(scope="module")
def folder(public_tmp_path: Path) -> Path:
    folder = public_tmp_path / f"b{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o711)
    return folder


@asynccontextmanager
async def broker_process(folder: Path) -> AsyncGenerator[Process]:
    """`moorage sandboxd` from its readiness on; stopped at the end unless it is gone."""
    environment = {
        "PATH": os.environ["PATH"],
        "WORKSPACE_ROOT": str(folder / "workspaces"),
        "SHARED_DIR": str(folder / "shared"),
        "SANDBOX_BROKER": str(folder / "run" / "s"),
        "SANDBOX_MEMORY_MB": "128",
        "SANDBOX_PIDS": "64",
        "SANDBOX_DISK_MB": "64",
    }
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("moorage"), "sandboxd", cwd=folder, env=environment, stdout=PIPE
    )
    assert process.stdout is not None
    try:
        ready = await process.stdout.readline()
        assert ready == f"Moorage sandboxd is ready: {folder}/run/s\n".encode()
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.fixture(scope="module")
async def broker(folder: Path) -> AsyncGenerator[Process]:
    async with broker_process(folder) as process:
        yield process


@pytest.fixture
def client(folder: Path) -> BrokerSandboxes:
    return BrokerSandboxes(folder / "run" / "s", open_channel=open_channel)


@pytest.fixture
async def thread_id(broker: Process, client: BrokerSandboxes) -> AsyncGenerator[ThreadId]:
    thread_id = new_thread_id(UserId("alice"))
    yield thread_id
    await client.remove(thread_id, files=True)


async def _hello(channel: Channel) -> bytes:
    """The kind of the frame in which the helper says hello."""
    return (await channel.receive())[:1]


async def _rest(channel: Channel) -> bytes:
    received = b""
    while data := await channel.receive():
        received += data
    return received


async def test_a_helper_is_reached_through_the_broker(client: BrokerSandboxes, thread_id: ThreadId) -> None:
    await client.ensure(thread_id, profile="default")
    channel = await client.open_helper(thread_id)
    assert await _hello(channel) == b"h"
    await channel.close()
    assert [info.thread_id for info in await client.list() if info.running] == [thread_id]
    assert (await client.stats(thread_id)).memory_bytes


async def test_an_older_claim_is_refused(client: BrokerSandboxes, thread_id: ThreadId) -> None:
    await client.ensure(thread_id, profile="default", fencing_token=8)
    with pytest.raises(StaleClaim):
        await client.open_helper(thread_id, fencing_token=7)
    with pytest.raises(StaleClaim):
        await client.kill_all(thread_id, fencing_token=7)


async def test_where_nothing_runs_no_helper_starts(client: BrokerSandboxes, thread_id: ThreadId) -> None:
    with pytest.raises(SandboxGone):
        await client.open_helper(thread_id)


async def test_kill_all_ends_the_helper(client: BrokerSandboxes, thread_id: ThreadId) -> None:
    await client.ensure(thread_id, profile="default")
    channel = await client.open_helper(thread_id)
    await _hello(channel)
    await client.kill_all(thread_id)
    await _rest(channel)
    await channel.close()


async def test_a_helpers_stream_is_no_way_to_the_engine(client: BrokerSandboxes, thread_id: ThreadId) -> None:
    """It is a connection to the engine's own socket, of which the engine must have let go as one for requests."""
    request = b"GET /containers/json HTTP/1.1\r\nHost: docker\r\n\r\n"
    await client.ensure(thread_id, profile="default")
    channel = await client.open_helper(thread_id)
    await channel.send(request * 10)
    said = await _hello(channel)
    await channel.send(request * 10)
    await client.kill_all(thread_id)
    await channel.send(request * 10)
    said += await _rest(channel)
    await channel.send(request * 10)
    said += await channel.receive() + (await channel.close()).encode()
    assert b"HTTP/1" not in said
    assert b"Api-Version" not in said


async def test_a_helper_outlives_a_broker_that_is_killed(tmp_path: Path, public_tmp_path: Path) -> None:
    folder = public_tmp_path / f"b{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o711)
    client = BrokerSandboxes(folder / "run" / "s", open_channel=open_channel)
    thread_id = new_thread_id(UserId("alice"))
    async with broker_process(folder) as broker:
        await client.ensure(thread_id, profile="default")
        channel = await client.open_helper(thread_id)
        broker.send_signal(signal.SIGKILL)
        await broker.wait()
        with pytest.raises(SandboxUnavailable) as raised:
            await client.list()
        assert raised.value.code == "no_engine"
        assert await _hello(channel) == b"h"
    async with broker_process(folder):  # what the dead one left does not keep it from starting
        assert [info.running for info in await client.list()] == [True]
        await client.kill_all(thread_id)
        await _rest(channel)
        await channel.close()
        await client.remove(thread_id, files=True)
        assert await client.list(folders=True) == []


async def test_what_a_dead_broker_left_mounted_is_let_go_of_by_the_next(public_tmp_path: Path) -> None:
    folder = public_tmp_path / f"b{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o711)
    client = BrokerSandboxes(folder / "run" / "s", open_channel=open_channel)
    thread_id = new_thread_id(UserId("alice"))
    async with broker_process(folder) as broker:
        await client.ensure(thread_id, profile="default")
        if not (folder / "workspaces" / "alice" / thread_id).is_mount():
            pytest.skip("workspaces are no file systems here")
        broker.send_signal(signal.SIGKILL)
        await broker.wait()
    await asyncio.to_thread(_remove_containers_with, thread_id)
    async with broker_process(folder):
        while await client.list():  # the thread, then its user's shared folder
            pass
        assert not (folder / "workspaces" / "alice" / thread_id).is_mount()
        assert [info.thread_id for info in await client.list(folders=True)] == [thread_id]
        await client.remove(thread_id, files=True)


def _remove_containers_with(thread_id: ThreadId) -> None:
    """As somebody does who knows nothing of brokers."""
    found = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", f"name={thread_id}"],
        capture_output=True,
        text=True,
        check=True,
    )
    subprocess.run(["docker", "rm", "--force", *found.stdout.split()], capture_output=True, check=True)


async def test_it_stops_when_told_to_and_takes_its_socket_along(public_tmp_path: Path) -> None:
    folder = public_tmp_path / f"b{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o711)
    async with broker_process(folder) as broker:
        broker.send_signal(signal.SIGTERM)
        assert await broker.wait() == 0
    assert not (folder / "run" / "s").exists()


async def test_without_a_socket_it_says_what_is_missing(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("moorage"), "sandboxd", cwd=tmp_path, env={}, stderr=PIPE
    )
    _, complaint = await process.communicate()
    assert process.returncode == 2
    assert b"SANDBOX_BROKER is not set" in complaint
