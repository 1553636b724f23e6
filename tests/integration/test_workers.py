"""The workers of a real helper, which runs as an unprivileged user of this machine.

What they may take to the next order, and what becomes of an order whose worker is killed or stopped by what the agent
runs.
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.contract.sandboxes.harness import eventually

from moorage.sandboxes.helper import HELPER_ARGV, HELPER_SOURCE
from moorage.sandboxes.helper.wire import CREDIT_BYTES, HEADER

NOBODY = 65534
_MIB = 1024 * 1024
_TIMEOUT = 20
_PACE = "cut -d ' ' -f 19,41 /proc/$PPID/stat; grep Cpus_allowed: /proc/self/status"  # of the worker: nice, policy


class Server:
    """The server's end of a helper's stream, word by word."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self._last = 0
        self._heard: dict[int, list[tuple[bytes, bytes]]] = {}

    def say(self, kind: bytes, number: int, payload: bytes = b"") -> None:
        assert self.process.stdin
        self.process.stdin.write(HEADER.pack(kind, number, len(payload)) + payload)

    async def hear(self, kind: bytes, number: int) -> bytes:
        """The payload of the next such frame."""
        assert self.process.stdout
        async with asyncio.timeout(_TIMEOUT):
            while kind not in (known := dict(self._heard.get(number, []))):
                heard, about, size = HEADER.unpack(await self.process.stdout.readexactly(HEADER.size))
                payload = await self.process.stdout.readexactly(size)
                self._heard.setdefault(about, []).append((heard, payload))
                if heard == b"o":
                    self.say(b"W", about, CREDIT_BYTES.pack(size))
        return known[kind]

    async def give(self, do: str, **order: Any) -> int:
        """An order that the helper has received, and was not told to begin."""
        self._last += 1
        text = json.dumps({"do": do, "cwd": str(self.folder)} | order).encode()
        self.say(b"C", self._last, text)
        await self.hear(b"r", self._last)
        return self._last

    async def give_command(self, command: str, **order: Any) -> int:
        order.setdefault("time_limit", 10)
        order.setdefault("rlimits", {})
        limits = {"output_limit": 16 * _MIB, "keep": 64 * 1024, "stdin": False}
        return await self.give("commands.run", command=command, **limits, **order)

    async def end_of(self, number: int) -> tuple[dict[str, Any], str]:
        """Tell it to begin, and wait for its report; and its output."""
        self.say(b"G", number)
        report = json.loads(await self.hear(b"x", number))
        return report, b"".join(data for kind, data in self._heard[number] if kind == b"o").decode()

    async def run(self, command: str, **order: Any) -> str:
        """The output of a command that does well."""
        report, output = await self.end_of(await self.give_command(command, **order))
        assert (report["outcome"], report.get("exit_code")) == ("exited", 0), report
        return output

    async def read(self, name: str, *, limit: int = 2000) -> str:
        number = await self.give("whole_files.read", path=str(self.folder / name), limit=limit)
        return (await self.end_of(number))[1]

    async def worker(self) -> int:
        """The one that waits for an order, made when there is none."""
        return int(await self.run("echo $PPID"))


_UNTIDY = b"""
import os, sys, types
from moorage.sandboxes.helper import worker

worker.REST_SECONDS = 0.2

def leave_open(link, order):
    lower = os.open("/", os.O_RDONLY)
    os.open("/", os.O_RDONLY)
    os.close(lower)

def fail(link, order):
    os.posix_spawn("/bin/sleep", ["sleep", order["seconds"]], {})
    raise PermissionError(13, "no")

untidy = types.ModuleType("moorage.sandboxes.helper.untidy")
untidy.ORDERS = {"leave_open": leave_open, "fail": fail}
sys.modules[untidy.__name__] = untidy
"""
"""Orders that no helper knows: what some future one could do wrong."""


@pytest.fixture
async def server(public_tmp_path: Path) -> AsyncGenerator[Server]:
    async with open_server(public_tmp_path, HELPER_SOURCE) as server:
        yield server


@pytest.fixture
async def untidy_server(public_tmp_path: Path) -> AsyncGenerator[Server]:
    """Of a helper that also knows orders which leave something behind, and whose workers do not wait long."""
    async with open_server(public_tmp_path, HELPER_SOURCE.removesuffix(b"main()\n") + _UNTIDY + b"main()\n") as server:
        yield server


@asynccontextmanager
async def open_server(parent: Path, source: bytes) -> AsyncGenerator[Server]:
    folder = parent / f"workers-{os.urandom(4).hex()}"
    folder.mkdir(parents=True)
    os.chown(folder, NOBODY, NOBODY)
    *python, bootstrap = HELPER_ARGV
    process = await asyncio.create_subprocess_exec(
        *python,
        bootstrap.replace(str(len(HELPER_SOURCE)), str(len(source))),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=NOBODY,
        group=NOBODY,
        cwd="/",
        env={"PATH": os.defpath},  # a Python that every user may run
    )
    assert process.stdin
    process.stdin.write(source)
    server = Server(process, folder)
    await server.hear(b"h", 0)
    yield server
    process.stdin.close()
    await process.wait()


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def until_gone(pid: int) -> None:
    assert await eventually(lambda: not is_alive(pid), within=_TIMEOUT)


def descriptors(pid: int) -> list[str]:
    """What they are of; not which pipe or socket."""
    return sorted(os.readlink(path).partition("[")[0] for path in Path(f"/proc/{pid}/fd").iterdir())


def own_memory(pid: int) -> int:
    """In bytes; also what it shares with the process that forked it."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(fields["Anonymous"].split()[0]) * 1024


class TestGoingOn:
    async def test_one_that_did_well_carries_out_the_next_order_too(self, server: Server) -> None:
        (server.folder / "note").write_text("hello")
        assert await server.read("note") == "hello"
        worker = await server.worker()
        assert await server.read("note") == "hello"
        assert await server.worker() == worker

    async def test_it_keeps_no_descriptor_of_what_it_did(self, server: Server) -> None:
        (server.folder / "large").write_bytes(b"x" * 1000)
        await server.read("large")
        worker = await server.worker()
        before = descriptors(worker)
        for limit in (10, 2000):  # one is too large, one is not
            await server.read("large", limit=limit)
        await server.run("cat large; exec 9>kept; echo left 1>&2; exit 0")
        assert await server.worker() == worker
        assert descriptors(worker) == before

    @pytest.mark.parametrize("command", ["sleep 30", "head -c 20M /dev/zero"], ids=["out of time", "too much output"])
    async def test_one_whose_command_had_to_be_killed_is_replaced(self, server: Server, command: str) -> None:
        worker = await server.worker()
        report, _ = await server.end_of(await server.give_command(command, time_limit=1))
        assert report["outcome"] in ("timed_out", "output_limit")
        assert await server.worker() != worker
        await until_gone(worker)

    async def test_one_whose_limits_somebody_changed_is_replaced(self, server: Server) -> None:
        worker = await server.worker()
        change = "import resource, sys; resource.prlimit(int(sys.argv[1]), resource.RLIMIT_NOFILE, (32, 32))"
        await server.run(f"python3 -c '{change}' $PPID")
        assert await server.worker() != worker
        assert await server.run("ulimit -n") != "32\n"

    @pytest.mark.parametrize(
        "change",
        [
            "os.setpriority(os.PRIO_PROCESS, pid, 19)",
            "os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))})",
            "os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))",
        ],
        ids=["nice", "processors", "scheduling"],
    )
    async def test_one_that_somebody_slowed_down_is_replaced(self, server: Server, change: str) -> None:
        worker = await server.worker()
        before = await server.run(_PACE)
        await server.run(f"python3 -c 'import os, sys; pid = int(sys.argv[1]); {change}' $PPID")
        assert await server.worker() != worker
        assert await server.run(_PACE) == before

    async def test_one_whose_limits_somebody_changed_while_it_waited_is_replaced(self, server: Server) -> None:
        worker = await server.worker()
        change = "import resource, sys; resource.prlimit(int(sys.argv[1]), resource.RLIMIT_NOFILE, (32, 32))"
        changing = await asyncio.create_subprocess_exec(
            "python3", "-c", change, str(worker), user=NOBODY, group=NOBODY, env={"PATH": os.defpath}
        )
        assert await changing.wait() == 0
        assert await server.worker() != worker
        assert await server.run("ulimit -n") != "32\n"

    async def test_one_that_was_left_with_a_descriptor_is_replaced(self, untidy_server: Server) -> None:
        worker = await untidy_server.worker()
        await untidy_server.end_of(await untidy_server.give("untidy.leave_open"))
        assert await untidy_server.worker() != worker

    async def test_one_that_waits_in_vain_ends(self, untidy_server: Server) -> None:
        worker = await untidy_server.worker()
        await until_gone(worker)
        assert await untidy_server.worker() != worker

    async def test_orders_under_different_limits_have_workers_of_their_own(self, server: Server) -> None:
        bound = {"NOFILE": 64}
        assert await server.run("ulimit -n", rlimits=bound) == "64\n"
        assert await server.run("ulimit -n") != "64\n"
        workers = {await server.run("echo $PPID", rlimits=bound) for _ in range(3)}
        assert len(workers) == 1
        assert workers != {f"{await server.worker()}\n"}

    async def test_a_flood_leaves_it_no_larger_than_it_was(self, server: Server) -> None:
        before = own_memory(await server.worker())
        await server.run("head -c 8M /dev/zero | tail -c 1; head -c 300k /dev/zero")
        assert own_memory(await server.worker()) < before + 1.5 * _MIB

    async def test_two_at_once_have_two_workers_of_which_one_is_kept(self, server: Server) -> None:
        numbers = [await server.give_command("echo $PPID") for _ in range(2)]
        first, second = [int((await server.end_of(number))[1]) for number in numbers]
        assert first != second
        assert await server.worker() == first
        await until_gone(second)


class TestOrdersThatFail:
    async def test_what_one_started_before_it_failed_is_said_to_be_left(self, untidy_server: Server) -> None:
        number = await untidy_server.give("untidy.fail", seconds="1")
        report, _ = await untidy_server.end_of(number)
        assert (report["error"], report["clean"]) == ("permission_denied", False)

    async def test_one_that_failed_before_it_started_anything_left_nothing(self, server: Server) -> None:
        report, _ = await server.end_of(await server.give_command("true", cwd="/there is no such folder"))
        assert (report["error"], report["clean"]) == ("file_not_found", True)

    async def test_a_helper_that_was_slowed_down_runs_commands_all_the_same(self, server: Server) -> None:
        os.setpriority(os.PRIO_PROCESS, server.process.pid, 19)
        assert await server.run("nice") == "19\n"


class TestOnesThatAreKilled:
    async def test_while_it_waits_is_replaced(self, server: Server) -> None:
        worker = await server.worker()
        os.kill(worker, signal.SIGKILL)
        assert await server.worker() != worker

    async def test_an_order_that_it_was_not_told_to_begin_is_done_once_by_another(self, server: Server) -> None:
        worker = await server.worker()
        number = await server.give_command("echo done >> tally; echo $PPID")
        os.kill(worker, signal.SIGKILL)
        await until_gone(worker)
        report, output = await server.end_of(number)
        assert report["outcome"] == "exited"
        assert int(output) != worker
        assert (server.folder / "tally").read_text() == "done\n"

    async def test_an_order_that_came_while_it_was_dying_is_done_once(self, server: Server) -> None:
        for _ in range(50):
            worker = await server.worker()
            os.kill(worker, signal.SIGKILL)
            await server.run("echo done >> tally")
        assert (server.folder / "tally").read_text() == "done\n" * 50

    async def test_an_order_that_it_began_is_not_done_again(self, server: Server) -> None:
        number = await server.give_command("echo $PPID >> tally; echo began; kill -KILL $PPID; sleep 30")
        report, _ = await server.end_of(number)
        assert report == {"outcome": "killed", "clean": False}
        assert len((server.folder / "tally").read_text().split()) == 1

    async def test_an_order_that_is_called_off_before_it_is_begun_is_not_done(self, server: Server) -> None:
        worker = await server.worker()
        number = await server.give_command("touch done")
        os.kill(worker, signal.SIGSTOP)
        server.say(b"K", number)
        os.kill(worker, signal.SIGKILL)
        assert json.loads(await server.hear(b"x", number))["outcome"] == "killed"
        await server.worker()
        assert not (server.folder / "done").exists()


class TestOnesThatAreStopped:
    async def test_while_it_waits_goes_on_with_the_next_order(self, server: Server) -> None:
        worker = await server.worker()
        os.kill(worker, signal.SIGSTOP)
        assert await server.worker() == worker

    async def test_while_it_waits_ends_with_its_helper(self, server: Server) -> None:
        worker = await server.worker()
        os.kill(worker, signal.SIGSTOP)
        assert server.process.stdin
        server.process.stdin.close()
        await until_gone(worker)
