"""Helpers: programs that turn against the one they run under, and several of one sandbox."""

import asyncio

import pytest
from tests.contract.sandboxes.harness import Harbour, eventually, processes_with
from tests.contract.sandboxes.test_sandbox_provider import unique_seconds

from moorage.ids import ThreadId
from moorage.sandboxes.helper.wire import CHUNK, CREDIT
from moorage.sandboxes.helper_sandbox import HelperSandbox
from moorage.sandboxes.port import Outcome, Sandbox, SandboxGone, StaleClaim

_MIB = 1024 * 1024
# The command's parent carries out its order; that one's parent is the helper that forks one such process per order.
_HELPER = "$(cut -d' ' -f4 /proc/$PPID/stat)"


class TestTurningAgainstIt:
    @pytest.mark.parametrize("victim", ["$PPID", _HELPER, f"$PPID {_HELPER}"])
    @pytest.mark.parametrize("signal", ["KILL", "STOP"])
    async def test_a_command_that_kills_or_stops_its_watchers_leaves_nothing_and_harms_only_itself(
        self, sandbox: Sandbox, signal: str, victim: str
    ) -> None:
        marker = unique_seconds()
        command = f"setsid sleep {marker} & kill -{signal} {victim}; sleep {marker}"
        result = await sandbox.run(command, time_limit=1)
        assert result.outcome in (Outcome.LOST, Outcome.TIMED_OUT)
        assert await eventually(lambda: not processes_with(marker), within=2)
        assert (await sandbox.run("echo fine", time_limit=10)).output == "fine\n"

    async def test_cancelling_a_command_that_stopped_its_watchers_ends_it_within_two_seconds(
        self, sandbox: Sandbox
    ) -> None:
        marker = unique_seconds()
        command = f"setsid sleep {marker} & kill -STOP $PPID {_HELPER}; sleep {marker}"
        running = asyncio.create_task(sandbox.run(command, time_limit=60))
        assert await eventually(lambda: len(processes_with(f"sleep\0{marker}")) == 2, within=10)
        running.cancel()
        assert await eventually(lambda: not processes_with(marker), within=2)
        with pytest.raises(asyncio.CancelledError):
            await running

    async def test_a_command_that_kills_its_watcher_is_not_run_again(self, sandbox: Sandbox) -> None:
        commands = [f"echo {n} >> tally; kill -9 $PPID {_HELPER}; sleep 60" for n in range(8)]
        await asyncio.gather(*(sandbox.run(each, time_limit=20) for each in commands), return_exceptions=True)
        tally = (await sandbox.run("cat tally", time_limit=10)).output.split()
        assert len(tally) == len(set(tally)) > 0

    async def test_programs_cannot_trace_their_watchers_nor_read_their_memory(self, sandbox: Sandbox) -> None:
        watchers = f"for pid in $PPID {_HELPER}; do"
        looks = "cat /proc/$pid/mem /proc/$pid/environ /proc/$pid/maps 2>/dev/null; ls /proc/$pid/fd 2>/dev/null"
        result = await sandbox.run(f"{watchers} {looks}; done; echo tried", time_limit=10)
        assert result.output == "tried\n"

    async def test_the_kernel_would_rather_kill_commands_than_the_helper(self, sandbox: Sandbox) -> None:
        result = await sandbox.run(f"cat /proc/self/oom_score_adj /proc/{_HELPER}/oom_score_adj", time_limit=10)
        command, helper = (int(line) for line in result.output.split())
        assert command > helper


class TestOneCommandAfterTheOther:
    """The process that carried out one carries out the next."""

    async def test_nothing_of_one_reaches_the_next(self, sandbox: Sandbox) -> None:
        look = (
            "echo $PPID; pwd; env; umask; ulimit -a; ulimit -Ha; ls /proc/self/fd; nice; "
            "grep -E '^(Sig|Shd|Seccomp|Groups|NoNewPrivs)' /proc/self/status"
        )
        mess = (
            "trap '' INT TERM HUP CHLD; export LEFT=behind; umask 0; ulimit -n 20; ulimit -f 1; exec 7>left 8<left; "
            "cd /tmp; (setsid sleep 86400 &) ; renice -n 19 $$; true"
        )
        before = (await sandbox.run(look, time_limit=20)).output
        assert (await sandbox.run(mess, time_limit=20)).exit_code == 0
        assert (await sandbox.run(look, time_limit=20)).output == before

    async def test_what_one_left_behind_is_gone_before_the_next(self, sandbox: Sandbox) -> None:
        for _ in range(5):
            marker = unique_seconds()
            await sandbox.run(f"setsid sleep {marker} & sleep {marker} & (sleep {marker} &)", time_limit=20)
            assert processes_with(marker) == []

    @pytest.mark.parametrize("signal", ["KILL", "STOP", "INT", "TERM"])
    async def test_another_command_that_kills_or_stops_the_waiting_process_harms_no_later_one(
        self, harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox, signal: str
    ) -> None:
        shoot = "until read victim < victim; do sleep 0.02; done 2>/dev/null"
        shooting = asyncio.create_task(
            sandbox.run(f"touch ready; {shoot}; sleep 0.2; kill -{signal} $victim; touch shot; sleep 60", time_limit=60)
        )
        await sandbox.run("until [ -e ready ]; do sleep 0.02; done; echo $PPID > victim", time_limit=20)
        assert await eventually((harbour.path(thread_id) / "shot").exists, within=20)
        for number in range(3):
            result = await sandbox.run(f"echo {number} >> tally; cat tally", time_limit=20)
            assert result.output.split() == [str(each) for each in range(number + 1)]
        shooting.cancel()
        await asyncio.wait([shooting])

    async def test_a_command_that_keeps_killing_what_waits_for_orders_gets_none_done_twice(
        self, sandbox: Sandbox
    ) -> None:
        shoot = (
            f"helper={_HELPER}; while :; do for stat in /proc/[0-9]*/stat; do "
            'read -r pid name state parent rest < $stat; if [ "$parent" = "$helper" ] && [ "$pid" != "$PPID" ]; '
            "then kill -KILL $pid; fi; done; done 2>/dev/null"
        )
        shooting = asyncio.create_task(sandbox.run(shoot, time_limit=60))
        results = [await sandbox.run(f"echo {number} >> tally", time_limit=20) for number in range(40)]
        shooting.cancel()
        await asyncio.wait([shooting])
        tally = (await sandbox.run("cat tally", time_limit=20)).output.split()
        assert len(tally) == len(set(tally))
        assert {str(number) for number, result in enumerate(results) if result.exit_code == 0} <= set(tally)


class TestOneConnection:
    async def test_a_hundred_orders_at_once_share_it(self, sandbox: Sandbox) -> None:
        async def one(number: int) -> str:
            await sandbox.write_file(f"/workspace/many/{number}", str(number).encode())
            assert await sandbox.read_file(f"/workspace/many/{number}", limit=10) == str(number).encode()
            return (await sandbox.run(f"cat many/{number}", time_limit=30)).output

        assert await asyncio.gather(*(one(number) for number in range(50))) == [str(n) for n in range(50)]

    async def test_a_command_that_writes_and_one_that_reads_much_hold_up_nobody(self, sandbox: Sandbox) -> None:
        blocked = asyncio.create_task(sandbox.run("sleep 30", time_limit=30, stdin=b"x" * (8 * _MIB)))
        flooding = asyncio.create_task(sandbox.run("cat /dev/zero", time_limit=30))
        assert (await sandbox.run("echo fine", time_limit=10)).output == "fine\n"
        assert (await flooding).outcome is Outcome.OUTPUT_LIMIT
        blocked.cancel()
        await asyncio.wait([blocked])

    async def test_the_last_output_waits_for_its_reader_though_its_writer_is_gone(
        self, harbour: Harbour, thread_id: ThreadId
    ) -> None:
        sandbox = await harbour.direct(thread_id)
        size = CREDIT + CHUNK // 2  # more than may be sent, and the rest fits into the pipe
        order = sandbox.command_order(f"head -c {size} /dev/zero; touch ended", time_limit=20)
        async with sandbox.connection.stream(order) as talk:
            assert await eventually((harbour.path(thread_id) / "ended").exists, within=10)
            assert (await sandbox.run("true", time_limit=10)).exit_code == 0
            assert sum([len(data) async for _, data in talk]) == size
        await sandbox.close()

    async def test_a_flood_of_output_costs_the_server_no_more_than_what_it_keeps(
        self, harbour: Harbour, thread_id: ThreadId
    ) -> None:
        sandbox = await harbour.direct(thread_id)
        order = sandbox.command_order("yes | head -c 10M", time_limit=20, keep=CHUNK)
        async with sandbox.connection.stream(order) as talk:
            sent = sum([len(data) async for _, data in talk])
        assert 3 * CHUNK <= sent <= 6 * CHUNK
        assert sent + talk.result.skipped == 10 * 1024 * 1024
        await sandbox.close()

    async def test_several_helpers_of_one_thread_work_side_by_side(self, harbour: Harbour, thread_id: ThreadId) -> None:
        first, second = [await harbour.direct(thread_id) for _ in range(2)]
        await first.run("echo from the first > note", time_limit=10)
        assert await second.read_file("/workspace/note", limit=100) == b"from the first\n"
        await first.close()
        assert (await second.run("cat note", time_limit=10)).output == "from the first\n"
        await second.close()

    async def test_closing_one_ends_its_commands(self, harbour: Harbour, thread_id: ThreadId) -> None:
        marker = unique_seconds()
        sandbox = await harbour.direct(thread_id)
        running = asyncio.create_task(sandbox.run(f"setsid sleep {marker} & sleep {marker}", time_limit=60))
        assert await eventually(lambda: len(processes_with(f"sleep\0{marker}")) == 2, within=10)
        await sandbox.close()
        assert (await running).outcome is Outcome.LOST
        assert await eventually(lambda: not processes_with(marker), within=2)

    async def test_killing_all_ends_every_helper_and_a_new_one_can_be_opened(
        self, harbour: Harbour, thread_id: ThreadId
    ) -> None:
        marker = unique_seconds()
        helpers = [await harbour.direct(thread_id) for _ in range(2)]
        running = [asyncio.create_task(each.run(f"sleep {marker}", time_limit=60)) for each in helpers]
        assert await eventually(lambda: len(processes_with(f"sleep\0{marker}")) == 2, within=10)
        await harbour.provider.kill_all(thread_id)
        assert processes_with(marker) == []
        assert [(await each).outcome for each in running] == [Outcome.LOST, Outcome.LOST]
        await _close(helpers)
        again = await harbour.direct(thread_id)
        assert (await again.run("echo fine", time_limit=10)).output == "fine\n"
        await again.close()


class TestFencing:
    async def test_an_older_claim_reaches_the_sandbox_no_more(self, harbour: Harbour, thread_id: ThreadId) -> None:
        provider = harbour.provider
        await provider.ensure(thread_id, profile=None, fencing_token=5)
        for refused in (
            provider.ensure(thread_id, profile=None, fencing_token=4),
            provider.open_helper(thread_id, fencing_token=4),
            provider.kill_all(thread_id, fencing_token=4),
        ):
            with pytest.raises(StaleClaim):
                await refused
        channel = await provider.open_helper(thread_id, fencing_token=5)
        await channel.close()

    async def test_a_sandbox_that_does_not_run_opens_no_helper(self, harbour: Harbour, thread_id: ThreadId) -> None:
        with pytest.raises(SandboxGone):
            await harbour.provider.open_helper(thread_id)


async def _close(sandboxes: list[HelperSandbox]) -> None:
    for sandbox in sandboxes:
        await sandbox.close()
