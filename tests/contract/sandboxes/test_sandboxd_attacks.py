"""Who has the right to reach the broker, and means it ill, gets no further than the eight verbs."""

import array
import asyncio
import json
import os
import socket
import sys
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.contract.sandboxes.brokered import BrokerAtWork, NotedSandboxes, broker_at

from moorage.adapters.sandboxd.server import BrokerLimits
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.sandboxes.port import SandboxInfo, SandboxUnavailable

THREAD = ThreadId("alice-798a286d-a0bd-49ec-baf6-41be3627a6eb")
UUID = "41adf2b3-7def-47f9-b6aa-3c816d4d8ba2"
_STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
try:
    connection.sendall(b'{{"verb":"list","folders":false,"only":null}}\\n')
except BrokenPipeError:
    pass
try:
    print(connection.recv(100))
except ConnectionResetError:
    print(b"")
"""


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncGenerator[BrokerAtWork]:
    async with broker_at(tmp_path / "run" / "broker.sock") as broker:
        yield broker


async def _as_stranger(path: Path, *, uid: int) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _STRANGER.format(uid=uid), str(path), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()


def _let_everybody_connect(path: Path) -> None:
    """Take the file's rights away, so that only the peer's credentials are left."""
    path.chmod(0o666)
    path.parent.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become somebody else")
async def test_a_stranger_is_closed_without_a_word(public_tmp_path: Path) -> None:
    async with broker_at(public_tmp_path / f"b{uuid.uuid4().hex[:8]}" / "s") as broker:
        _let_everybody_connect(broker.path)
        with capture_logs() as logs:
            assert await _as_stranger(broker.path, uid=12345) == "b''"
        assert broker.provider.calls == []
        assert [(entry["event"], entry["uid"]) for entry in logs] == [("broker_refused_peer", 12345)]


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become somebody else")
async def test_who_is_listed_is_heard_and_root_is_not_unless_listed(public_tmp_path: Path) -> None:
    async with broker_at(public_tmp_path / f"b{uuid.uuid4().hex[:8]}" / "s", uids=(12345,)) as broker:
        _let_everybody_connect(broker.path)
        assert (await _as_stranger(broker.path, uid=12345)).startswith('b\'{"sandboxd":1')
        with pytest.raises(SandboxUnavailable):  # this process is root
            await broker.client.list()


@pytest.mark.parametrize(
    "thread_id",
    [
        "",
        "../../etc",
        f"../alice-{UUID}",
        f"alice/../bob-{UUID}",
        f"alice-{UUID}/../../bob",
        f"alice-{UUID}\x00",
        f"alice\x00-{UUID}",
        f"alice-{UUID}\n",
        f"-{UUID}",
        f".-{UUID}",
        f"..-{UUID}",
        f"Alice-{UUID}",
        f"alice-{UUID.upper()}",
        f"a{'x' * 40}-{UUID}",
        f"alice-{UUID}-{UUID} --privileged",
        "probe-0011223344556677",
        None,
        7,
        ["alice"],
        {"owner": "alice"},
    ],
)
@pytest.mark.parametrize("verb", ["pause", "stats"])
async def test_what_is_no_thread_id_reaches_no_provider(broker: BrokerAtWork, verb: str, thread_id: object) -> None:
    answer = await broker.ask(verb=verb, thread_id=thread_id)
    assert answer["error"]["type"] == "InvalidInput"
    assert broker.provider.calls == []


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"verb": "exec", "thread_id": THREAD, "argv": ["sh"]},
        {"verb": "check"},
        {"verb": "close"},
        {"verb": ["list"], "folders": False, "only": None},
        {"verb": "list"},
        {"verb": "list", "folders": True},
        {"verb": "list", "folders": 1, "only": None},
        {"verb": "list", "folders": True, "only": ""},
        {"verb": "list", "folders": True, "only": "../etc"},
        {"verb": "list", "folders": True, "only": [THREAD]},
        {"verb": "pause", "thread_id": THREAD, "owner": "bob"},
        {"verb": "ensure", "thread_id": THREAD, "profile": "default", "fencing_token": 1, "image": "alpine"},
        {"verb": "ensure", "thread_id": THREAD, "profile": "default", "fencing_token": 1, "uid": 0},
        {"verb": "ensure", "thread_id": THREAD, "profile": "default"},
        {"verb": "ensure", "thread_id": THREAD, "profile": "root", "fencing_token": None},
        {"verb": "ensure", "thread_id": THREAD, "profile": "", "fencing_token": None},
        {"verb": "ensure", "thread_id": THREAD, "profile": "../default", "fencing_token": None},
        {"verb": "ensure", "thread_id": THREAD, "profile": {"image": "alpine"}, "fencing_token": None},
        {"verb": "ensure", "thread_id": THREAD, "profile": "default", "fencing_token": -1},
        {"verb": "ensure", "thread_id": THREAD, "profile": "default", "fencing_token": 2**63},
        {"verb": "ensure", "thread_id": THREAD, "profile": "default", "fencing_token": 1.5},
        {"verb": "ensure", "thread_id": THREAD, "profile": "default", "fencing_token": True},
        {"verb": "ensure", "thread_id": THREAD, "profile": "default", "fencing_token": "7"},
        {"verb": "prepare_folder", "thread_id": THREAD, "profile": None},
        {"verb": "remove", "thread_id": THREAD, "files": "yes"},
    ],
    ids=str,
)
async def test_what_is_not_exactly_a_request_is_refused(broker: BrokerAtWork, request_: dict[str, object]) -> None:
    answer = await broker.ask(**request_)
    assert answer["error"]["type"] == "InvalidInput"
    assert broker.provider.calls == []


@pytest.mark.parametrize(
    "line",
    [
        b"GET /containers/json HTTP/1.1\r\n",
        b"[]\n",
        b'"list"\n',
        b"{\n",
        b'{"verb":"list","folders":NaN,"only":null}\n',
        b"\xff\xfe\n",
        b"[" * 60_000 + b"\n",
        b'{"verb":"list","folders":false,"only":null}{"verb":"list","folders":false,"only":null}\n',
    ],
)
async def test_what_is_no_json_object_is_refused(broker: BrokerAtWork, line: bytes) -> None:
    assert (await broker.say(line))["error"]["type"] == "InvalidInput"
    assert broker.provider.calls == []


async def test_an_answer_never_repeats_what_was_sent(broker: BrokerAtWork) -> None:
    answer = await broker.ask(verb="pause", thread_id="<script>")
    assert "script" not in json.dumps(answer)


async def test_a_line_of_a_megabyte_is_not_read_to_its_end(broker: BrokerAtWork) -> None:
    answer = await broker.say(b'{"verb":"' + b"x" * 2**20)
    assert "64 KiB" in answer["error"]["detail"]
    assert await broker.client.list() == []


async def test_half_a_line_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    async with broker_at(tmp_path / "s", limits=BrokerLimits(line_seconds=0.2)) as broker:
        assert await broker.say(b'{"verb":"li') is None
        assert broker.provider.calls == []


async def test_half_a_line_and_gone_is_nothing(broker: BrokerAtWork) -> None:
    _, writer = await broker.raw()
    writer.write(b'{"verb":"list","folders":false,"only":null}')
    writer.close()
    await writer.wait_closed()
    assert await broker.client.list() == []
    assert broker.provider.calls == [("list", False, None)]


async def test_a_thousand_silent_connections_keep_nobody_out(broker: BrokerAtWork) -> None:
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(1000)]
    try:
        for one in crowd:
            one.setblocking(False)
            while True:
                try:
                    one.connect(str(broker.path))
                    break
                except BlockingIOError:
                    await asyncio.sleep(0)
        assert await broker.client.list() == []
        assert len(await asyncio.gather(*(broker.client.list() for _ in range(100)))) == 100
    finally:
        for one in crowd:
            one.close()


async def test_who_does_not_read_the_answer_is_dropped(tmp_path: Path) -> None:
    long = [SandboxInfo(new_thread_id(UserId("alice")), running=False) for _ in range(20_000)]
    noted, limits = NotedSandboxes(infos=long), BrokerLimits(requests=1, connections=2, send_seconds=0.2)
    async with broker_at(tmp_path / "s", provider=noted, limits=limits) as broker:
        _, writer = await broker.raw()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b'{"verb":"list","folders":false,"only":null}\n')
        await broker.client.pause(THREAD)
        while not writer.transport.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)


async def test_who_leaves_before_the_answer_stops_nothing_and_leaves_nothing_open(tmp_path: Path) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        asked.set()
        await go.wait()

    noted = NotedSandboxes(answer=wait)
    async with broker_at(tmp_path / "s", provider=noted) as broker:
        _, writer = await broker.raw()
        writer.write(json.dumps({"verb": "open_helper", "thread_id": THREAD, "fencing_token": None}).encode() + b"\n")
        await asked.wait()
        writer.close()
        await writer.wait_closed()
        go.set()
        await noted.helper_opened.wait()
        assert await asyncio.to_thread(noted.helper_ends[0].recv, 1) == b""


async def test_garbage_after_a_request_is_not_looked_at(broker: BrokerAtWork) -> None:
    reader, writer = await broker.raw()
    writer.write(b'{"verb":"list","folders":false,"only":null}\n{"verb":"remove"' + b"\x00\xff" * 1000)
    assert json.loads(await reader.readline()) == {"ok": []}
    writer.close()
    assert await broker.client.list() == []
    assert [call[0] for call in broker.provider.calls] == ["list", "list"]


async def test_descriptors_given_to_the_broker_are_not_taken(broker: BrokerAtWork) -> None:
    theirs, ours = os.pipe()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(broker.path))
        rights = array.array("i", [ours])
        connection.sendmsg([b'{"verb":'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        os.close(ours)
        connection.setblocking(False)
        received = b""
        while b"\n" not in received:  # the greeting
            received += await asyncio.get_running_loop().sock_recv(connection, 65536)
        await asyncio.get_running_loop().sock_sendall(connection, b'"list","folders":false,"only":null}\n')
        assert json.loads(await asyncio.get_running_loop().sock_recv(connection, 65536)) == {"ok": []}
    assert await asyncio.to_thread(os.read, theirs, 1) == b""  # nobody holds its other end
    os.close(theirs)


async def test_a_fault_in_the_broker_ends_one_request_and_not_the_broker(broker: BrokerAtWork) -> None:
    async def fail() -> None:
        raise KeyError("State")

    broker.provider.answer = fail
    with capture_logs() as logs, pytest.raises(SandboxUnavailable):
        await broker.client.ensure(THREAD, profile="default")
    assert [entry["event"] for entry in logs] == ["broker_request_failed"]
    broker.provider.answer = None
    assert await broker.client.list() == []


async def test_slow_requests_of_one_kind_do_not_keep_the_broker_from_stopping(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def wait() -> None:
        asked.set()
        await asyncio.Event().wait()

    noted, limits = NotedSandboxes(answer=wait), BrokerLimits(drain_seconds=0.1)
    async with broker_at(tmp_path / "s", provider=noted, limits=limits) as broker:
        waiting = asyncio.create_task(broker.client.pause(THREAD))
        await asked.wait()
        broker.stop.set()
        with pytest.raises(SandboxUnavailable) as raised:
            await waiting
        assert raised.value.code == "no_engine"
