"""The broker and its client: what is asked arrives, what is answered comes back, whatever happens to the broker."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.contract.sandboxes.brokered import SHORTCOMINGS, BrokerAtWork, NotedSandboxes, broker_at

from moorage.errors import AppError, Conflict, InvalidInput, Unavailable
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.runtime import providers
from moorage.runtime.providers import disk_of_broker
from moorage.sandboxes.port import (
    Bounds,
    PathError,
    SandboxDied,
    SandboxesFull,
    SandboxGone,
    SandboxInfo,
    SandboxStats,
    SandboxUnavailable,
    Shortcoming,
    StaleClaim,
    StartedTooLate,
)

THREAD = new_thread_id(UserId("alice"))


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncGenerator[BrokerAtWork]:
    async with broker_at(tmp_path / "run" / "broker.sock") as broker:
        yield broker


async def test_each_verb_arrives_as_it_was_asked(broker: BrokerAtWork) -> None:
    client = broker.client
    await client.prepare_folder(THREAD, profile="big")
    await client.ensure(THREAD, profile=None, fencing_token=7)
    await (await client.open_helper(THREAD, fencing_token=2**63 - 1)).close()
    await client.kill_all(THREAD)
    await client.pause(THREAD)
    await client.remove(THREAD, files=True)
    await client.list(folders=True)
    await client.list(thread_id=THREAD)
    await client.stats(THREAD)
    assert broker.provider.calls == [
        ("prepare_folder", THREAD, "big"),
        ("ensure", THREAD, None, 7),
        ("open_helper", THREAD, 2**63 - 1),
        ("kill_all", THREAD, None),
        ("pause", THREAD),
        ("remove", THREAD, True),
        ("list", True, None),
        ("list", False, THREAD),
        ("stats", THREAD),
    ]


async def test_what_a_verb_gives_comes_back_as_it_was(broker: BrokerAtWork) -> None:
    noted = broker.provider
    noted.bounds = Bounds({"NPROC": 256}, disk_bytes=10**12, max_files=100_000)
    noted.usage = SandboxStats(1, 2, 0.5, 0, None, 2**40, ("created", "killed ✗"))
    noted.infos = [SandboxInfo(THREAD, True, "big", datetime(2026, 11, 1, 12, 30, 0, 123456, tzinfo=UTC))]
    assert await broker.client.ensure(THREAD, profile="default") == noted.bounds
    assert await broker.client.stats(THREAD) == noted.usage
    assert await broker.client.list() == noted.infos


async def test_a_list_may_be_long(broker: BrokerAtWork) -> None:
    threads = [new_thread_id(UserId("alice")) for _ in range(20_000)]
    broker.provider.infos = [SandboxInfo(thread, running=False) for thread in threads]
    assert [info.thread_id for info in await broker.client.list(folders=True)] == threads


@pytest.mark.parametrize(
    "error",
    [
        SandboxesFull("No room.", retry_after=3),
        StaleClaim("A newer one has asked."),
        SandboxGone("It does not run."),
        SandboxDied("It died."),
        StartedTooLate("Too late."),
        SandboxUnavailable("No engine.", code="no_engine", retry_after=5),
        PathError("The disk is full.", code="no_space"),
        InvalidInput("Not that."),
        Conflict("Not now."),
        Unavailable("Not yet.", retry_after=1),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_is_raised_again_as_what_it_was(broker: BrokerAtWork, error: AppError) -> None:
    async def fail() -> None:
        raise error

    broker.provider.answer = fail
    with pytest.raises(AppError) as raised:
        await broker.client.ensure(THREAD, profile="default")
    same = raised.value
    assert type(same) is type(error)
    assert (same.code, same.detail, same.retry_after) == (error.code, error.detail, error.retry_after)


async def test_an_error_that_the_client_does_not_know_is_the_nearest_that_it_does(broker: BrokerAtWork) -> None:
    class LoopDeviceGone(SandboxGone):
        code = "loop_device_gone"

    async def fail() -> None:
        raise LoopDeviceGone("Away.")

    broker.provider.answer = fail
    with pytest.raises(SandboxGone) as raised:
        await broker.client.kill_all(THREAD)
    assert raised.value.code == "loop_device_gone"


async def test_a_check_tells_what_the_broker_found_lacking(broker: BrokerAtWork) -> None:
    assert await broker.client.check() == list(SHORTCOMINGS)
    assert broker.client.isolation_note == "only noted"


async def test_a_disk_that_fills_while_the_broker_runs_is_told_from_then_on(broker: BrokerAtWork) -> None:
    await broker.client.check()
    full = Shortcoming("disk", "It is full.")
    broker.provider.passing.append(full)
    assert await broker.client.check() == [*SHORTCOMINGS, full]
    broker.provider.passing.clear()
    assert await broker.client.shortcomings() == list(SHORTCOMINGS)


async def test_readiness_tells_of_the_brokers_disk_and_waits_for_no_broker(
    broker: BrokerAtWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "_BROKER_SECONDS", 0.2)
    assert await disk_of_broker(broker.path) == "ok"
    broker.provider.passing.append(Shortcoming("disk", "It is full."))
    assert await disk_of_broker(broker.path) == "It is full."
    broker.path.unlink()
    assert "does not answer" in await disk_of_broker(broker.path)
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(broker.path))
        frozen.listen()
        assert await disk_of_broker(broker.path) == "The sandbox broker does not answer in time."


async def test_a_check_fails_while_the_brokers_engine_is_away(broker: BrokerAtWork) -> None:
    async def fail() -> None:
        raise SandboxUnavailable("No Docker engine answers.", code="no_engine")

    broker.provider.answer = fail
    with pytest.raises(SandboxUnavailable, match="No Docker engine"):
        await broker.client.check()


async def test_a_helpers_stream_passes_bytes_both_ways_and_ends_with_the_channel(broker: BrokerAtWork) -> None:
    channel = await broker.client.open_helper(THREAD)
    helper = broker.provider.helper_ends[0]
    await channel.send(b"an order")
    assert helper.recv(100) == b"an order"
    helper.sendall(b"a report")
    assert await channel.receive() == b"a report"
    await channel.close()
    assert helper.recv(100) == b""  # the broker holds no end of it


async def test_a_helpers_stream_outlives_the_broker(tmp_path: Path) -> None:
    noted = NotedSandboxes(close_helpers=False)
    async with broker_at(tmp_path / "broker.sock", provider=noted) as broker:
        channel = await broker.client.open_helper(THREAD)
    with pytest.raises(SandboxUnavailable):
        await broker.client.list()
    with noted.helper_ends[0] as helper:
        helper.sendall(b"still here")
        assert await channel.receive() == b"still here"
        await channel.close()


async def test_while_the_broker_is_away_it_is_as_if_the_engine_restarted(tmp_path: Path) -> None:
    async with broker_at(tmp_path / "broker.sock") as broker:
        client = broker.client
    with pytest.raises(SandboxUnavailable) as raised:
        await client.list()
    assert (raised.value.code, raised.value.retry_after) == ("no_engine", 5)
    async with broker_at(tmp_path / "broker.sock"):
        assert await client.list() == []


async def test_many_requests_at_once_are_all_answered(broker: BrokerAtWork) -> None:
    answered = await asyncio.gather(*(broker.client.ensure(THREAD, profile="default") for _ in range(500)))
    assert len(answered) == len(broker.provider.calls) == 500


async def test_a_broker_that_stops_finishes_what_was_asked_for(tmp_path: Path) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        asked.set()
        await go.wait()

    noted = NotedSandboxes(answer=wait, bounds=Bounds(disk_bytes=5))
    async with broker_at(tmp_path / "broker.sock", provider=noted) as broker:
        waiting = asyncio.create_task(broker.client.ensure(THREAD, profile="default"))
        await asked.wait()
        broker.stop.set()
        go.set()
        assert (await waiting).disk_bytes == 5


async def test_no_thread_id_is_refused_before_the_broker_hears_of_it(broker: BrokerAtWork) -> None:
    with pytest.raises(InvalidInput):
        await broker.client.ensure(ThreadId("../etc"), profile="default")
    with pytest.raises(InvalidInput):
        await broker.client.list(thread_id=ThreadId(""))
    assert broker.provider.calls == []
