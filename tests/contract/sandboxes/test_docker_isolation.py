"""What code inside a container can do, tried from inside through the agent's own helper, under each runtime."""

import asyncio
import ctypes
import os
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from tests.contract.sandboxes.dock import SMALL, Dock, open_dock, runtimes
from tests.contract.sandboxes.harness import eventually

from moorage.ids import ThreadId
from moorage.sandboxes.port import CommandResult

type Sh = Callable[[str], Awaitable[CommandResult]]

# By number, because not all have a function in libc. Arguments that do no harm if the call should work after all.
_SYSCALLS = {
    "x86_64": {
        "io_uring_setup": (425, 1, 0),
        "keyctl": (250, 0, 0),
        "add_key": (248, 0, 0, 0, 0, 0),
        "request_key": (249, 0, 0, 0, 0),
        "bpf": (321, 0, 0, 0),
        "userfaultfd": (323, 1),
        "perf_event_open": (298, 0, 0, -1, -1, 0),
        "unshare": (272, 0x10000000),
        "setns": (308, -1, 0),
        "mount": (165, 0, 0, 0, 0, 0),
        "umount2": (166, 0, 0),
        "pivot_root": (155, 0, 0),
        "chroot": (161, 0),
        "fsopen": (430, 0, 0),
        "open_tree": (428, -1, 0, 0),
        "clone": (56, 0x10000011, 0, 0, 0, 0),
        "clone3": (435, 0, 0),
        "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
        "open_by_handle_at": (304, -1, 0, 0),
        "kexec_load": (246, 0, 0, 0, 0),
        "init_module": (175, 0, 0, 0),
        "syslog": (103, 10, 0, 0),
        "modify_ldt": (154, 0, 0, 0),
        "ioctl_of_projects": (16, -1, 0x401C5820, 0),
        "ioctl_of_projects_with_bits_that_do_not_count": (16, -1, 0x5401C5820, 0),
        "ioctl_of_flags": (16, -1, 0x40086602, 0),
        "ioctl_of_flags_with_bits_that_do_not_count": (16, -1, 0x540086602, 0),
        "file_setattr": (469, -1, 0, 0, 0, 0),
    },
}
# gVisor's own kernel answers them, so that none of these reaches the host's. What it offers of namespaces, mounts,
# keys and a log are things of its own, which end with it.
_GVISOR_OWN = {
    *("unshare", "setns", "clone", "clone3", "mount", "umount2", "chroot", "keyctl", "process_vm_readv", "syslog"),
    *("ioctl_of_projects", "ioctl_of_projects_with_bits_that_do_not_count"),
    *("ioctl_of_flags", "ioctl_of_flags_with_bits_that_do_not_count"),
}
_REFUSALS = {
    "runc": {name: {"EPERM"} for name in _SYSCALLS["x86_64"]}
    | {"clone3": {"ENOSYS"}, "file_setattr": {"ENOSYS", "EPERM"}},  # as new as the engine thinks it
    "runsc": {
        name: {"EPERM", "EACCES", "ENOSYS", "EINVAL", "EFAULT", "ENOTSUP", "ENODEV"}
        for name in _SYSCALLS["x86_64"].keys() - _GVISOR_OWN
    },
}
_FAMILIES = {"AF_ALG": 38, "AF_VSOCK": 40, "AF_PACKET": 17, "AF_TIPC": 30, "AF_CAN": 29, "AF_BLUETOOTH": 31}
_SOCKET_REFUSALS = {"runc": {"EPERM"}, "runsc": {"EPERM", "EAFNOSUPPORT"}}

_CALL = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    result = libc.syscall(*map(ctypes.c_long, args))
    if name == "clone" and result == 0:
        os._exit(0)
    print(name, "worked" if result >= 0 else errno.errorcode[ctypes.get_errno()], flush=True)
"""
_SEIZE = """
import os
open("looking", "w").close()
known = set(os.listdir("/proc"))
while not os.path.exists("enough"):
    for name in set(os.listdir("/proc")) - known:
        if name.isdigit():
            try:
                os.close(os.open(f"/proc/{name}/mem", os.O_RDWR))
                print(*open(f"/proc/{name}/cmdline").read().split(chr(0))[:3])
                known.add(name)
            except OSError:
                pass
"""
_LANDLOCK_THAT_WILL_DO = 2
_INT_80 = """
import ctypes, mmap, os
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
child = os.fork()
if child == 0:
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    os._exit(0)
print("signal", os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


def _landlock_version() -> int:
    """0 or less: there is none."""
    return ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)


@pytest.fixture(scope="module", params=runtimes())
def runtime(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
async def dock(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Dock]:
    async with open_dock(tmp_path_factory.mktemp("inside"), runtime=runtime) as dock:
        yield dock


@pytest.fixture(scope="module")
async def thread_id(dock: Dock) -> ThreadId:
    return dock.new_thread()


@pytest.fixture(scope="module")
async def sh(dock: Dock, thread_id: ThreadId) -> Sh:
    sandbox = await dock.sandbox(thread_id)

    async def run(command: str) -> CommandResult:
        return await sandbox.run(command, time_limit=30)

    return run


async def python(sh: Sh, program: str) -> list[list[str]]:
    """What the program prints, in words."""
    result = await sh(f"python3 - <<'PROGRAM'\n{program}\nPROGRAM")
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.output.splitlines()]


class TestIdentity:
    async def test_the_agent_has_its_thread_s_uid_and_its_user_s_gid_and_no_other_group(
        self, dock: Dock, thread_id: ThreadId, sh: Sh
    ) -> None:
        agent = dock.folders.identity(thread_id)
        assert (await sh("id -u; id -g; id -G")).output.split() == [str(agent.uid), str(agent.gid), str(agent.gid)]
        assert agent.uid in dock.folders.registry.uids

    async def test_programs_find_their_names_and_home_in_the_environment(self, sh: Sh) -> None:
        assert (await sh("echo $HOME $USER $LOGNAME; umask")).output == "/workspace agent agent\n0007\n"

    async def test_what_it_writes_is_its_own_and_its_user_s(self, dock: Dock, thread_id: ThreadId, sh: Sh) -> None:
        await sh("echo x > mine; echo x > /shared/ours")
        agent = dock.folders.identity(thread_id)
        mine = dock.folders.path(thread_id) / "mine"
        ours = dock.root / "shared" / "alice" / "ours"
        assert [(path.stat().st_uid, path.stat().st_gid) for path in (mine, ours)] == [(agent.uid, agent.gid)] * 2
        assert mine.stat().st_mode & 0o777 == 0o660

    async def test_the_first_process_is_nobody_and_out_of_reach(self, runtime: str, sh: Sh) -> None:
        assert (await sh("grep ^Uid /proc/1/status")).output.split() == ["Uid:", *["65534"] * 4]
        assert "not permitted" in (await sh("kill -9 1")).output.lower()
        if runtime == "runc":  # gVisor shows the environment, which holds no more than the agent's own
            assert (await sh("ls /proc/1/fd || cat /proc/1/environ")).exit_code != 0

    async def test_two_threads_of_one_user_have_two_uids_and_one_gid(self, dock: Dock, thread_id: ThreadId) -> None:
        other = dock.new_thread()
        await dock.sandbox(other)
        first, second = dock.folders.identity(thread_id), dock.folders.identity(other)
        assert first.uid != second.uid
        assert first.gid == second.gid


class TestRights:
    async def test_there_are_no_capabilities_and_no_way_to_new_ones(self, sh: Sh) -> None:
        lines = (await sh("cat /proc/self/status")).output.splitlines()
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
        assert status.get("CapAmb", "0" * 16) == "0" * 16
        assert status.get("NoNewPrivs", "1") == "1"

    async def test_the_seccomp_profile_is_in_force(self, runtime: str, sh: Sh) -> None:
        expected = {"runc": "2", "runsc": "0"}  # gVisor does not filter: nothing but its own kernel answers
        assert (await sh("grep ^Seccomp: /proc/self/status")).output.split() == ["Seccomp:", expected[runtime]]

    async def test_a_program_of_root_s_with_the_setuid_bit_gives_nothing(
        self, dock: Dock, thread_id: ThreadId, sh: Sh
    ) -> None:
        """Put there from outside: nothing inside could make one."""
        await sh("cp /usr/bin/id as-root")
        planted = dock.folders.path(thread_id) / "as-root"
        os.chown(planted, 0, 0)
        planted.chmod(0o6755)
        assert (await sh("./as-root -u")).output == f"{dock.folders.identity(thread_id).uid}\n"

    async def test_no_file_of_the_image_raises_rights(self, sh: Sh) -> None:
        found = await sh("find / -xdev -perm /6000 -type f -print 2>/dev/null; getcap -r / 2>/dev/null")
        assert found.output == ""

    async def test_no_device_can_be_made(self, sh: Sh) -> None:
        names = set((await sh("ls /dev 2>/dev/null")).output.split())
        assert names <= {
            *("core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout"),
            *("tty", "urandom", "zero"),
        }
        assert (await sh("mknod disk b 8 0")).exit_code != 0


class TestSystemCalls:
    async def test_what_has_no_business_here_is_refused(self, runtime: str, sh: Sh) -> None:
        machine = (await sh("uname -m")).output.strip()
        calls = "\n".join(f"call({name!r}, {', '.join(map(str, args))})" for name, args in _SYSCALLS[machine].items())
        refused = dict(await python(sh, _CALL + calls))
        expected = _REFUSALS[runtime]
        assert {name: refused[name] for name in expected if refused[name] not in expected[name]} == {}

    async def test_only_usual_sockets_can_be_made(self, runtime: str, sh: Sh) -> None:
        program = f"""
import errno, socket
for name, number in {_FAMILIES!r}.items():
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
        try:
            socket.socket(number, kind).close()
            print(name, "worked")
        except OSError as error:
            print(name, errno.errorcode[error.errno])
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
    socket.socket(family, socket.SOCK_STREAM).close()
socket.socketpair()
"""
        answers = {answer for _, answer in await python(sh, program)}
        expected = _SOCKET_REFUSALS[runtime]
        assert answers <= (expected if runtime == "runc" else expected | {"ESOCKTNOSUPPORT", "EPROTONOSUPPORT"})

    async def test_the_kernel_s_other_door_for_32_bit_programs_is_shut(self, runtime: str, sh: Sh) -> None:
        if (await sh("uname -m")).output.strip() != "x86_64":
            pytest.skip("has no such door")
        [[_, signal]] = await python(sh, _INT_80)
        expected = {"runc": ("31",), "runsc": ("0", "11", "31")}  # SIGSYS; what gVisor answers by itself does no harm
        assert signal in expected[runtime]

    async def test_threads_and_processes_can_be_started_as_usual(self, sh: Sh) -> None:
        program = """
import subprocess, threading
said = []
threads = [threading.Thread(target=said.append, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(said), subprocess.run(["echo", "hello"], capture_output=True, text=True).stdout)
"""
        assert await python(sh, program) == [["8", "hello"], []]


class TestFileSystems:
    async def test_only_the_workspace_the_shared_folder_and_small_places_can_be_written_to(self, sh: Sh) -> None:
        program = """
import os
for line in open("/proc/self/mounts"):
    place = line.split()[1]
    if os.path.isdir(place) and os.access(place, os.W_OK) and not place.startswith("/proc"):
        print(place)
"""
        writable = {place for [place] in await python(sh, program)}
        assert writable <= {"/workspace", "/shared", "/tmp", "/dev/shm", "/dev/mqueue"}
        assert (await sh("touch /x /etc/x /usr/bin/x /opt/x /sys/x /run/x")).exit_code != 0

    @pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
    async def test_nothing_can_be_executed_from_memory(self, sh: Sh, place: str) -> None:
        result = await sh(f"cp /bin/true {place}/x && {place}/x")
        assert result.exit_code == 126, result.output

    async def test_memory_as_a_disk_is_bounded(self, sh: Sh) -> None:
        result = await sh("for n in 1 2 3; do head -c 20M /dev/zero > /tmp/flood-$n; done; rm /tmp/flood-*")
        assert "No space left" in result.output

    async def test_the_kernel_s_settings_cannot_be_changed_and_its_secrets_not_read(self, sh: Sh) -> None:
        for name in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches"):
            assert (await sh(f"echo 1 > {name}")).exit_code != 0
        for name in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware/dmi", "/proc/kmsg"):
            assert (await sh(f"head -c 1 {name} 2>/dev/null | wc -c")).output.strip() == "0"

    async def test_nothing_of_the_host_and_no_other_tenant_s_file_is_to_be_seen(self, dock: Dock, sh: Sh) -> None:
        mark = f"secret-{dock.installation}"
        other = await dock.sandbox(dock.new_thread("bob"))
        await other.run(f"echo private > {mark}; echo private > /shared/{mark}", time_limit=20)
        (dock.root / mark).write_text("the server's")
        assert (await sh(f"find / -name '{mark}*' -not -path '/proc/*' 2>/dev/null")).output == ""
        assert (await sh(f"ls {dock.root}")).exit_code != 0

    async def test_threads_of_one_user_meet_in_the_shared_folder_only(self, dock: Dock, sh: Sh) -> None:
        other = await dock.sandbox(dock.new_thread())
        await other.run("echo hidden > one; echo seen > /shared/two; mkdir /shared/folder", time_limit=20)
        assert (await sh("cat /shared/two")).output == "seen\n"
        assert (await sh("echo more >> /shared/two && echo new > /shared/folder/three && echo written")).exit_code == 0
        assert (await sh("cat one")).exit_code != 0

    async def test_there_is_no_socket_of_an_engine(self, sh: Sh) -> None:
        assert (await sh("find / -type s -not -path '/proc/*' 2>/dev/null")).output == ""
        assert (await sh("ls /var/run/docker.sock /run/docker.sock /run/containerd 2>/dev/null")).output == ""


class TestProcessesAndNetwork:
    async def test_no_other_sandbox_s_process_is_to_be_seen(self, dock: Dock, sh: Sh) -> None:
        other = dock.new_thread("bob")
        mark = f"86400.{int(dock.installation.removeprefix('test'), 16)}"
        await (await dock.sandbox(other)).run("true", time_limit=20)
        await dock.run(other, f"setsid sleep {mark} >/dev/null 2>&1 & sleep 0")
        seen = await sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert mark not in seen.output

    async def test_a_helper_that_is_just_starting_cannot_be_got_hold_of(
        self, runtime: str, dock: Dock, thread_id: ThreadId, sh: Sh
    ) -> None:
        """Another process of the server opens one whenever it likes, next to a command that waits for it."""
        if runtime == "runc" and _landlock_version() < _LANDLOCK_THAT_WILL_DO:
            pytest.skip("this kernel cannot keep processes of one uid apart")
        seizing = asyncio.create_task(python(sh, _SEIZE))
        assert await eventually((dock.folders.path(thread_id) / "looking").exists, within=20)
        for _ in range(3):
            await dock.run(thread_id, "true")
        await dock.run(thread_id, "touch enough")
        assert [line for line in await seizing if "-I" in line] == []

    async def test_it_has_its_own_ipc_and_names(self, sh: Sh) -> None:
        assert (await sh("hostname")).output == "sandbox\n"
        assert (await sh("cat /proc/sysvipc/shm /proc/sysvipc/msg 2>/dev/null | grep -c '^ *[0-9]'")).output == "0\n"

    @pytest.mark.parametrize("address", ["169.254.169.254", "1.1.1.1", "172.17.0.1", "10.0.0.1"])
    async def test_no_address_can_be_reached(self, sh: Sh, address: str) -> None:
        """Refused by this side at once: there is no way on which anything could be sent."""
        program = f"""
import errno, socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    try:
        socket.socket(socket.AF_INET, kind).connect(("{address}", 80))
        print("reached")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
        assert {answer for [answer] in await python(sh, program)} <= {"ENETUNREACH", "EHOSTUNREACH"}

    async def test_there_is_no_interface_but_its_own_loopback(self, sh: Sh) -> None:
        assert (await sh("ls /sys/class/net 2>/dev/null || tail -n +3 /proc/net/dev | cut -d: -f1")).output.split() == [
            "lo"
        ]

    async def test_bounds_of_a_process_are_set(self, sh: Sh) -> None:
        program = """
import resource
for name in ("NOFILE", "CORE", "FSIZE"):
    print(name, *resource.getrlimit(getattr(resource, f"RLIMIT_{name}")))
"""
        size = str(SMALL.file_mb * 1024 * 1024)
        assert await python(sh, program) == [["NOFILE", "4096", "4096"], ["CORE", "0", "0"], ["FSIZE", size, size]]
