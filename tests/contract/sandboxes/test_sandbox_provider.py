"""What every sandbox must do, run against real Docker containers and real bubblewrap namespaces."""

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import pytest
from tests.contract.sandboxes.harness import Harbour, eventually, processes_with

from moorage.adapters.folders.mounts import is_mount, unmount
from moorage.errors import InvalidInput
from moorage.ids import ThreadId, UserId
from moorage.sandboxes.port import CommandResult, Outcome, PathError, Sandbox, SandboxGone, SandboxInfo

type Sh = Callable[[str], Awaitable[CommandResult]]

FORK_BOMB = "bomb() { bomb | bomb & }; bomb & exec sleep 30"

HEADLESS = """
import ctypes, os, subprocess, sys, threading, time
subprocess.Popen(["sleep", sys.argv[1]])
def go_on():
    while open(f"/proc/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    open("headless", "w").close()
    time.sleep(3600)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def unique_seconds() -> str:
    """A sleep's argument that no other process of this machine has."""
    return f"86400.{secrets.randbelow(10**12):012d}"


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


class TestCommands:
    async def test_answers_the_exit_code_and_what_was_written(self, sh: Sh) -> None:
        result = await sh("echo out; exit 3")
        assert (result.exit_code, result.output, result.outcome) == (3, "out\n", Outcome.EXITED)

    async def test_death_by_a_signal_is_128_plus_its_number(self, sh: Sh) -> None:
        assert (await sh("kill -TERM $$")).exit_code == 143

    async def test_keeps_stdout_and_stderr_apart_in_the_live_output(self, sandbox: Sandbox) -> None:
        seen: list[tuple[str, str]] = []
        await sandbox.run(
            "echo a; echo b >&2", time_limit=10, on_output=lambda stream, text: seen.append((stream, text))
        )
        assert sorted(seen) == [("stderr", "b\n"), ("stdout", "a\n")]

    async def test_shows_output_while_the_command_still_runs(self, sandbox: Sandbox) -> None:
        first = asyncio.Event()
        await sandbox.run("mkfifo go", time_limit=10)
        running = asyncio.create_task(
            sandbox.run("echo first; cat go", time_limit=20, on_output=lambda _stream, _text: first.set())
        )
        await asyncio.wait_for(first.wait(), 10)
        assert not running.done()
        await sandbox.run("echo second > go", time_limit=10)
        assert (await running).output == "first\nsecond\n"

    async def test_gives_the_command_its_stdin(self, sandbox: Sandbox) -> None:
        data = b"\x00line\n" * 100_000
        result = await sandbox.run("wc -c", time_limit=20, stdin=data)
        assert result.output.strip() == str(len(data))

    async def test_a_command_that_ignores_its_stdin_ends_all_the_same(self, sandbox: Sandbox) -> None:
        result = await sandbox.run("echo done", time_limit=20, stdin=b"x" * 5_000_000)
        assert (result.exit_code, result.output) == (0, "done\n")

    async def test_without_stdin_the_command_reads_the_end_of_file(self, sh: Sh) -> None:
        assert (await sh("cat; echo end")).output == "end\n"

    async def test_starts_in_the_workspace(self, sh: Sh) -> None:
        assert (await sh("pwd; echo $HOME")).output == "/workspace\n/workspace\n"

    async def test_has_python_under_both_names(self, sh: Sh) -> None:
        result = await sh("python -c 'print(1)' && python3 -c 'import json, sqlite3; print(2)'")
        assert result.output == "1\n2\n"

    async def test_puts_a_character_that_is_cut_between_writes_together_again(self, sandbox: Sandbox) -> None:
        result = await sandbox.run(r"printf '\344\275'; sleep 0.1; printf '\240\n'", time_limit=10)
        assert result.output == "你\n"

    async def test_replaces_what_is_not_text_and_drops_control_characters(self, sh: Sh) -> None:
        assert (await sh(r"printf 'a\000\033[31mb\377\tc\r\n'")).output == "a[31mb\ufffd\tc\r\n"

    @pytest.mark.parametrize("command", ["", " \n", "echo \0", "echo \ud800"])
    async def test_refuses_what_is_no_command(self, sandbox: Sandbox, command: str) -> None:
        with pytest.raises(InvalidInput):
            await sandbox.run(command, time_limit=10)

    async def test_refuses_a_command_longer_than_the_kernel_takes(self, sandbox: Sandbox) -> None:
        with pytest.raises(InvalidInput) as caught:
            await sandbox.run("echo " + "x" * 200_000, time_limit=10)
        assert caught.value.code == "command_too_long"

    async def test_runs_sixteen_commands_at_once(self, sandbox: Sandbox) -> None:
        results = await asyncio.gather(*(sandbox.run(f"sleep 0.2; echo {n}", time_limit=30) for n in range(16)))
        assert [result.output for result in results] == [f"{n}\n" for n in range(16)]


class TestIsolation:
    async def test_commands_are_the_thread_s_own_user(self, harbour: Harbour, thread_id: ThreadId, sh: Sh) -> None:
        agent = harbour.folders.registry.identity(thread_id)
        assert (await sh("id -u; id -g")).output == f"{agent.uid}\n{agent.gid}\n"
        assert agent.uid != 0

    async def test_has_no_capabilities_and_cannot_gain_any(self, sh: Sh) -> None:
        lines = (await sh("cat /proc/self/status")).output.splitlines()
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        capabilities = [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
        assert set(capabilities) == {"0" * 16}
        assert status["NoNewPrivs"] == "1"

    async def test_has_no_network(self, sh: Sh) -> None:
        code = "import socket; socket.create_connection(('1.1.1.1', 53), 2)"
        result = await sh(f'python3 -c "{code}"')
        assert result.exit_code != 0
        assert (await sh("tail -n +3 /proc/net/dev | grep -v ' lo:' | wc -l")).output == "0\n"

    async def test_cannot_reach_a_server_on_this_machine(self, sh: Sh) -> None:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
            result = await sh(f'python3 -c "{code}"')
        assert "ConnectionRefusedError" in result.output

    @pytest.mark.parametrize("place", ["/", "/etc", "/usr", "/usr/local/bin", "/opt", "/dev"])
    async def test_cannot_write_outside_its_own_folders(self, sh: Sh, place: str) -> None:
        assert (await sh(f"touch {place}/x")).exit_code != 0

    @pytest.mark.parametrize("place", ["/workspace", "/shared", "/tmp"])
    async def test_can_write_in_its_own_folders(self, sh: Sh, place: str) -> None:
        assert (await sh(f"touch {place}/x")).exit_code == 0

    async def test_cannot_change_the_kernel_s_settings(self, sh: Sh) -> None:
        for name in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches"):
            assert (await sh(f"echo 1 > {name}")).exit_code != 0

    async def test_sees_neither_the_server_s_files_nor_other_tenants(self, harbour: Harbour, sh: Sh) -> None:
        other = await harbour.open("bob")
        await other.run("echo private > secret", time_limit=20)
        found = await sh(
            f"find / -xdev -name secret 2>/dev/null; ls {harbour.folder} /root /home/* 2>/dev/null; cat /etc/shadow"
        )
        assert "secret" not in found.output
        assert "root:" not in found.output
        assert found.exit_code != 0

    async def test_sees_no_process_but_its_own(self, sh: Sh) -> None:
        result = await sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "pytest" not in result.output

    async def test_gets_none_of_the_server_s_variables(self, monkeypatch: pytest.MonkeyPatch, sh: Sh) -> None:
        monkeypatch.setenv("SECRET_KEY", "not-for-sandboxes")
        result = await sh("env; cat /proc/[0-9]*/environ")
        assert "not-for-sandboxes" not in result.output
        names = {line.partition("=")[0] for line in (await sh("env")).output.splitlines()}
        allowed = {
            "HOME",
            "HOSTNAME",
            "LANG",
            "LD_LIBRARY_PATH",
            "LOGNAME",
            "PATH",
            "PWD",
            "PYTHONUNBUFFERED",
            "SHLVL",
            "TMPDIR",
            "USER",
            "_",
        }
        of_the_image = tuple(name for name in names if name.startswith(("PIP_", "UV_", "MPL")))
        assert names - set(of_the_image) <= allowed

    async def test_no_descriptor_of_the_server_leaks_in(self, sh: Sh) -> None:
        assert (await sh("ls /proc/self/fd | wc -w")).output == "4\n"  # 0, 1, 2 and ls's own

    async def test_cannot_touch_its_helper_s_descriptors(self, sh: Sh) -> None:
        result = await sh(
            "for pid in $PPID 1; do (true > /proc/$pid/fd/1) 2>/dev/null && echo opened; done; echo tried"
        )
        assert result.output == "tried\n"

    async def test_a_file_cannot_grow_over_its_limit(self, sh: Sh) -> None:
        assert (await sh("head -c 100M /dev/zero > big")).exit_code != 0

    async def test_leaves_no_core_dumps(self, sh: Sh) -> None:
        assert (await sh("ulimit -c")).output == "0\n"


class TestLimits:
    async def test_keeps_both_ends_of_a_long_output_and_says_what_is_missing(self, sh: Sh) -> None:
        result = await sh("echo start; yes | head -c 1M; echo end")
        assert result.output.startswith("start\n")
        assert result.output.endswith("end\n")
        assert "bytes cut here" in result.output
        assert (result.truncated, result.bytes_out) == (True, 1024 * 1024 + 10)
        assert len(result.output) < 2 * 64 * 1024 + 100

    async def test_of_a_long_output_the_first_and_last_bytes_are_kept_to_the_byte(self, sandbox: Sandbox) -> None:
        whole = "".join(f"{number}\n" for number in range(1, 300_001))
        result = await sandbox.run("seq 300000", time_limit=20, keep=1000)
        assert result.output == f"{whole[:1000]}\n... [{len(whole) - 2000} bytes cut here] ...\n{whole[-1000:]}"
        assert (result.truncated, result.bytes_out) == (True, len(whole))

    async def test_both_streams_are_kept_in_the_order_of_arrival_to_the_end(self, sandbox: Sandbox) -> None:
        result = await sandbox.run(
            "seq 300000; for i in 1 2 3; do echo out $i; sleep 0.1; echo err $i >&2; sleep 0.1; done",
            time_limit=20,
        )
        assert result.output.endswith("300000\nout 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n")

    async def test_three_hundred_megabytes_of_output_are_cut_off(self, sh: Sh) -> None:
        result = await sh("yes | head -c 300MB")
        assert result.outcome is Outcome.OUTPUT_LIMIT
        assert result.bytes_out < 20 * 1024 * 1024

    async def test_a_flood_of_output_does_not_fill_the_server_s_memory(self, sandbox: Sandbox) -> None:
        before = resident_megabytes()
        await sandbox.run("head -c 1GB /dev/zero | tr '\\0' x", time_limit=30, on_output=lambda _stream, _text: None)
        assert resident_megabytes() - before < 32

    async def test_the_time_limit_ends_the_command_and_all_it_started(self, sandbox: Sandbox) -> None:
        """They are dead two seconds after the limit; how long the sandbox takes to start is not counted."""
        marker, begun = unique_seconds(), asyncio.Event()
        command = f"setsid sleep {marker} & sleep {marker} & echo on; wait"
        running = asyncio.create_task(sandbox.run(command, time_limit=1, on_output=lambda _stream, _text: begun.set()))
        await asyncio.wait_for(begun.wait(), 30)
        assert await eventually(lambda: not processes_with(marker), within=1 + 2)
        result = await asyncio.wait_for(running, 30)
        assert (result.outcome, result.output) == (Outcome.TIMED_OUT, "on\n")

    async def test_what_is_left_in_the_background_dies_with_the_command(self, sh: Sh) -> None:
        marker = unique_seconds()
        result = await sh(f"setsid sleep {marker} & (setsid sh -c 'sleep {marker} & sleep {marker}' &) ; echo back")
        assert result.output == "back\n"
        assert await eventually(lambda: not processes_with(marker), within=2)

    async def test_what_goes_on_without_its_first_thread_dies_with_the_command_too(self, sandbox: Sandbox) -> None:
        """The kernel calls such a process a zombie. No other command is killed for its sake."""
        marker = unique_seconds()
        await sandbox.write_file("/workspace/headless.py", HEADLESS.encode())
        other = asyncio.create_task(sandbox.run("while [ ! -e go ]; do sleep 0.05; done; echo alive", time_limit=30))
        result = await sandbox.run(
            f"setsid python3 headless.py {marker} & until [ -e headless ]; do sleep 0.05; done; echo back",
            time_limit=20,
        )
        assert result.output == "back\n"
        assert not processes_with(marker)
        await sandbox.run("touch go", time_limit=10)
        assert (await other).output == "alive\n"

    async def test_cancelling_ends_the_command_within_two_seconds(self, sandbox: Sandbox) -> None:
        marker = unique_seconds()
        running = asyncio.create_task(sandbox.run(f"setsid sleep {marker} & sleep {marker}", time_limit=60))
        assert await eventually(lambda: len(processes_with(f"sleep\0{marker}")) == 2, within=10)
        running.cancel()
        assert await eventually(lambda: not processes_with(marker), within=2)
        with pytest.raises(asyncio.CancelledError):
            await running

    async def test_cancelling_one_command_leaves_another_running(self, sandbox: Sandbox) -> None:
        marker = unique_seconds()
        other = asyncio.create_task(sandbox.run("while [ ! -e go ]; do sleep 0.05; done; echo alive", time_limit=30))
        running = asyncio.create_task(sandbox.run(f"sleep {marker}", time_limit=60))
        assert await eventually(lambda: bool(processes_with(f"sleep\0{marker}")), within=10)
        running.cancel()
        await asyncio.wait([running])
        await sandbox.run("touch go", time_limit=10)
        assert (await other).output == "alive\n"

    async def test_a_fork_bomb_is_put_out_and_the_next_command_works(self, sandbox: Sandbox) -> None:
        result = await sandbox.run(FORK_BOMB, time_limit=2)
        assert result.outcome is Outcome.TIMED_OUT
        start = time.monotonic()
        assert (await sandbox.run("echo fine", time_limit=10)).output == "fine\n"
        assert time.monotonic() - start < 5

    async def test_a_fork_bomb_does_not_outlive_a_cancelled_command(self, sandbox: Sandbox) -> None:
        marker = unique_seconds()
        bomb = f"bomb() {{ sleep {marker} & bomb | bomb & }}; bomb; sleep 30"
        running = asyncio.create_task(sandbox.run(bomb, time_limit=30))
        assert await eventually(lambda: len(processes_with(f"sleep\0{marker}")) > 10, within=10)
        running.cancel()
        await asyncio.wait([running])
        assert await eventually(lambda: not processes_with(marker), within=2)
        assert (await sandbox.run("echo fine", time_limit=10)).output == "fine\n"

    async def test_a_command_that_kills_all_it_can_harms_only_itself(self, sandbox: Sandbox) -> None:
        await sandbox.run("kill -9 -1; kill -9 $PPID; echo still here", time_limit=10)
        assert (await sandbox.run("echo fine", time_limit=10)).output == "fine\n"

    async def test_a_process_that_allocates_too_much_dies_and_the_next_command_works(self, sandbox: Sandbox) -> None:
        result = await sandbox.run("python3 -c 'x = bytearray(3_000_000_000)'", time_limit=20)
        assert result.exit_code != 0
        assert (await sandbox.run("echo fine", time_limit=10)).output == "fine\n"


class TestFiles:
    async def test_five_mebibytes_of_any_bytes_come_back_unchanged(self, sandbox: Sandbox) -> None:
        content = os.urandom(5 * 1024 * 1024)
        await sandbox.write_file("/workspace/deep/down/data.bin", content)
        assert await sandbox.read_file("/workspace/deep/down/data.bin", limit=len(content)) == content

    @pytest.mark.parametrize("name", ["a b", "-rf", "'\"$x", "ü你\u202e", "line\nbreak", "..."])
    async def test_any_name_can_be_written_and_read(self, sandbox: Sandbox, name: str) -> None:
        await sandbox.write_file(f"/workspace/{name}", b"content")
        assert await sandbox.read_file(f"/workspace/{name}", limit=100) == b"content"

    async def test_a_written_file_keeps_its_mode_and_leaves_nothing_aside(self, sandbox: Sandbox, sh: Sh) -> None:
        await sh("echo old > run.sh; chmod 755 run.sh")
        await sandbox.write_file("/workspace/run.sh", b"new")
        assert (await sh("stat -c %a run.sh; ls -A")).output == "755\nrun.sh\n"

    @pytest.mark.parametrize(
        ("path", "code"),
        [
            ("/workspace/missing", "file_not_found"),
            ("/workspace", "is_directory"),
            ("/workspace/locked", "permission_denied"),
            ("/workspace/pipe", "invalid_path"),
            ("/dev/zero", "invalid_path"),
            ("relative", "invalid_path"),
            ("/workspace/nul\0", "invalid_path"),
            ("/workspace/" + "x" * 5000, "invalid_path"),
            ("/workspace/" + "\1" * 200_000, "invalid_path"),
            ("/workspace/long", "file_too_large"),
        ],
    )
    async def test_says_why_a_file_cannot_be_read(self, sandbox: Sandbox, sh: Sh, path: str, code: str) -> None:
        await sh("touch locked; chmod 0 locked; mkfifo pipe; head -c 101 /dev/zero > long")
        with pytest.raises(PathError) as caught:
            await sandbox.read_file(path, limit=100)
        assert caught.value.code == code

    @pytest.mark.parametrize(
        ("path", "code"),
        [
            ("/workspace", "is_directory"),
            ("/etc/x", "permission_denied"),
            ("/workspace/locked", "permission_denied"),
            ("/workspace/pipe", "invalid_path"),
            ("/workspace/pipe/x", "not_a_directory"),
            ("relative", "invalid_path"),
        ],
    )
    async def test_says_why_a_file_cannot_be_written(self, sandbox: Sandbox, sh: Sh, path: str, code: str) -> None:
        await sh("touch locked; chmod 0 locked; mkfifo pipe")
        with pytest.raises(PathError) as caught:
            await sandbox.write_file(path, b"x")
        assert caught.value.code == code

    async def test_files_are_in_the_thread_s_folder_on_this_machine(
        self, harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox, sh: Sh
    ) -> None:
        await sh("echo hello > note")
        assert (harbour.folder / "workspaces" / "alice" / thread_id / "note").read_text() == "hello\n"

    async def test_other_users_of_this_machine_cannot_read_them(
        self, harbour: Harbour, thread_id: ThreadId, sh: Sh
    ) -> None:
        await sh("echo hello > note")
        assert harbour.path(thread_id).stat().st_mode & 0o007 == 0

    async def test_a_user_s_threads_share_one_folder_and_nobody_else_s(
        self, harbour: Harbour, sandbox: Sandbox
    ) -> None:
        mine, theirs = await harbour.open("alice"), await harbour.open("bob")
        await sandbox.run("echo hello > /shared/note", time_limit=10)
        assert (await mine.run("cat /shared/note", time_limit=10)).output == "hello\n"
        assert (await theirs.run("ls -A /shared", time_limit=10)).output == ""


class TestLife:
    async def test_nothing_exists_before_the_first_use(self, harbour: Harbour) -> None:
        thread_id = harbour.new_thread()
        await harbour.sandboxes.acquire(thread_id)
        assert thread_id not in {info.thread_id for info in await harbour.provider.list()}

    async def test_a_used_sandbox_is_listed_as_running(self, harbour: Harbour, thread_id: ThreadId, sh: Sh) -> None:
        await sh("true")
        running = {info.thread_id: info.running for info in await harbour.provider.list()}
        assert running[thread_id] is True

    async def test_creating_it_twice_at_once_makes_one(self, harbour: Harbour, thread_id: ThreadId) -> None:
        sandboxes = [await harbour.sandboxes.acquire(thread_id) for _ in range(4)]
        await asyncio.gather(*(sandbox.run("true", time_limit=20) for sandbox in sandboxes))
        assert [info.thread_id for info in await harbour.provider.list()].count(thread_id) == 1

    async def test_helpers_opened_at_once_are_all_in_the_sandbox_that_stays(
        self, harbour: Harbour, thread_id: ThreadId
    ) -> None:
        helpers = await asyncio.gather(*(harbour.direct(thread_id) for _ in range(8)))
        try:
            for helper in helpers:
                assert (await helper.run("true", time_limit=20)).exit_code == 0
        finally:
            for helper in helpers:
                await helper.close()

    async def test_a_sandbox_removed_behind_our_back_is_made_again(
        self, harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox, sh: Sh
    ) -> None:
        await sh("echo kept > note")
        await harbour.provider.remove(thread_id, files=False)
        assert (await sh("cat note")).output == "kept\n"

    async def test_a_paused_sandbox_wakes_up_for_the_next_command(
        self, harbour: Harbour, thread_id: ThreadId, sh: Sh
    ) -> None:
        await sh("echo kept > note")
        await harbour.sandboxes.release(thread_id)
        running = {info.thread_id for info in await harbour.provider.list() if info.running}
        assert thread_id not in running
        assert (await sh("cat note")).output == "kept\n"

    async def test_pausing_kills_what_runs_and_says_so(
        self, harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox
    ) -> None:
        marker = unique_seconds()
        running = asyncio.create_task(sandbox.run(f"sleep {marker}", time_limit=60))
        assert await eventually(lambda: bool(processes_with(f"sleep\0{marker}")), within=10)
        await harbour.provider.pause(thread_id)
        assert (await running).outcome is Outcome.LOST
        assert await eventually(lambda: not processes_with(marker), within=2)
        assert (await sandbox.run("echo fine", time_limit=10)).output == "fine\n"

    async def test_a_handle_on_a_stopped_sandbox_says_that_it_is_gone(
        self, harbour: Harbour, thread_id: ThreadId
    ) -> None:
        handle = await harbour.direct(thread_id)
        await handle.run("true", time_limit=10)
        await harbour.provider.pause(thread_id)
        with pytest.raises(SandboxGone):
            await handle.run("true", time_limit=10)
        with pytest.raises(SandboxGone):
            await harbour.provider.open_helper(thread_id)
        await handle.close()

    async def test_asked_about_one_thread_it_answers_that_one_only_or_nothing(
        self, harbour: Harbour, thread_id: ThreadId
    ) -> None:
        other, never = harbour.new_thread(), harbour.new_thread()
        await harbour.provider.ensure(other, profile="tight")
        assert await _asked(harbour, thread_id) == ([], [])
        await harbour.provider.prepare_folder(thread_id)
        assert [info.running for info in (await _asked(harbour, thread_id))[1]] == [False]
        await harbour.provider.ensure(thread_id, profile="tight")
        assert [(info.running, info.profile) for info in (await _asked(harbour, thread_id))[0]] == [(True, "tight")]
        await harbour.provider.pause(thread_id)
        without, with_folders = await _asked(harbour, thread_id)
        assert (without, [info.running for info in with_folders]) == ([], [False])
        await harbour.sandboxes.delete(other)
        for gone in (other, never):
            assert await _asked(harbour, gone) == ([], [])

    async def test_deleting_removes_the_sandbox_and_its_files(
        self, harbour: Harbour, thread_id: ThreadId, sh: Sh
    ) -> None:
        await sh("echo x > note")
        await harbour.sandboxes.delete(thread_id)
        assert thread_id not in {info.thread_id for info in await harbour.provider.list()}
        assert not harbour.path(thread_id).exists()

    async def test_deleting_what_never_existed_is_no_error(self, harbour: Harbour) -> None:
        thread_id = harbour.new_thread()
        await harbour.sandboxes.delete(thread_id)
        await harbour.provider.remove(thread_id, files=True)
        await harbour.provider.pause(thread_id)
        await harbour.provider.kill_all(thread_id)

    async def test_a_workspace_made_to_resist_is_deleted_all_the_same(
        self, harbour: Harbour, thread_id: ThreadId, sh: Sh
    ) -> None:
        outside = harbour.folder / "outside"
        outside.mkdir(exist_ok=True)
        (outside / "precious").write_text("kept")
        deep = "import os\nfor _ in range(3000):\n os.mkdir('d' * 40); os.chdir('d' * 40)"
        await sh(f"ln -s {outside} link; ln -s / root; mkfifo pipe; mkdir -p a/b; touch a/b/c; chmod 0 a/b a")
        await sh(f'python3 -c "{deep}"; touch "$(printf \'bad\\377name\')"; mkdir ro; touch ro/x; chmod 500 ro')
        await harbour.sandboxes.delete(thread_id)
        assert not harbour.path(thread_id).exists()
        assert (outside / "precious").read_text() == "kept"

    async def test_the_check_runs_a_real_sandbox_and_leaves_none(self, harbour: Harbour) -> None:
        before = len(await harbour.provider.list())
        await harbour.provider.check()
        assert len(await harbour.provider.list()) == before

    async def test_reconciling_removes_only_the_sandboxes_of_vanished_threads(self, harbour: Harbour) -> None:
        kept, lost = harbour.new_thread(), harbour.new_thread()
        for thread_id in (kept, lost):
            await harbour.provider.ensure(thread_id, profile=None)

        async def existing(thread_ids: object) -> set[ThreadId]:
            return {info.thread_id for info in await harbour.provider.list()} - {lost}

        assert await harbour.sandboxes.reconcile(existing) == 1
        left = {info.thread_id for info in await harbour.provider.list()}
        assert kept in left
        assert lost not in left
        await harbour.sandboxes.delete(kept)

    async def test_reconciling_lets_go_of_folders_that_no_sandbox_uses(self, harbour: Harbour) -> None:
        """As a server leaves them that is killed, or a container that somebody removes."""
        thread_id, owner = harbour.new_thread("frederica"), UserId("frederica")
        await harbour.provider.prepare_folder(thread_id)
        await harbour.sandboxes.reconcile(_every)
        assert not is_mount(harbour.path(thread_id))
        assert not is_mount(harbour.folders.shared_path(owner))
        await harbour.provider.ensure(thread_id, profile=None)
        unmount(harbour.path(thread_id))
        await harbour.provider.remove(thread_id, files=False)
        await harbour.provider.prepare_folder(thread_id)
        unmount(harbour.path(thread_id))
        await harbour.sandboxes.reconcile(_every)
        assert not is_mount(harbour.folders.shared_path(owner))
        await harbour.sandboxes.delete(thread_id)


async def _asked(harbour: Harbour, thread_id: ThreadId) -> tuple[list[SandboxInfo], list[SandboxInfo]]:
    """What is answered about one thread, without and with folders: what is said of it among all."""
    answers: list[list[SandboxInfo]] = []
    for folders in (False, True):
        answer = await harbour.provider.list(folders=folders, thread_id=thread_id)
        assert answer == [info for info in await harbour.provider.list(folders=folders) if info.thread_id == thread_id]
        answers.append(answer)
    return answers[0], answers[1]


async def _every(thread_ids: Collection[ThreadId]) -> set[ThreadId]:
    return set(thread_ids)
