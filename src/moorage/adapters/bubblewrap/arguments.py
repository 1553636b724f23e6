"""What a bubblewrap sandbox sees: bwrap's arguments (https://github.com/containers/bubblewrap, bwrap(1))."""

import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from moorage.sandboxes.port import AgentIdentity

_SYSTEM_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = ("/etc/ld.so.cache", "/etc/alternatives")
_SHM_MB = 64
_MIB = 1024 * 1024
_TOOLS = "/opt/bin"
_LIBRARIES = "/opt/lib"
_PYTHON = "/opt/python"
PYTHON_ARGV0 = f"{_TOOLS}/python3"


@dataclass(frozen=True, slots=True)
class View:
    """The folders as bwrap finds them when it starts."""

    bwrap: str
    python: str
    workspace: str
    shared: str


def arguments(
    view: View,
    *,
    agent: AgentIdentity,
    tmp_mb: int,
    targets: tuple[str, str],
    etc_files: Mapping[str, int],
) -> list[str]:
    """bwrap's arguments up to and without the program to run inside.

    `targets`: where workspace and shared folder appear. `etc_files` maps paths to descriptors that bwrap reads their
    content from.
    """
    workspace, shared = targets
    return [
        *_namespaces(agent),
        *("--tmpfs", "/"),
        *(word for folder in ("/etc", "/opt", _TOOLS, _LIBRARIES) for word in ("--perms", "0755", "--dir", folder)),
        *_system(),
        *_python(view.python),
        *_kernel_interfaces(tmp_mb),
        *(word for path, descriptor in etc_files.items() for word in ("--file", str(descriptor), path)),
        *("--bind", view.workspace, workspace, "--bind", view.shared, shared),
        *("--remount-ro", "/"),
        *_environment(workspace),
        *("--chdir", workspace, "--"),
    ]


def _namespaces(agent: AgentIdentity) -> list[str]:
    """No network, no capabilities, no further user namespaces; all of it dies with its first process."""
    names = ["--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent", "--new-session", "--as-pid-1"]
    return [*names, "--cap-drop", "ALL", "--uid", str(agent.uid), "--gid", str(agent.gid), "--hostname", "sandbox"]


def _system() -> Iterator[str]:
    """The host's programs, read-only, and of /etc only what they cannot start without."""
    yield from ("--ro-bind", "/usr", "/usr")
    for folder in (Path("/", name) for name in _SYSTEM_FOLDERS):
        if folder.is_symlink():
            yield from ("--symlink", os.readlink(folder), str(folder))
        elif folder.is_dir():
            yield from ("--ro-bind", str(folder), str(folder))
    for path in _ETC:
        yield from ("--ro-bind-try", path, path)


def _python(prefix: str) -> Iterator[str]:
    """The server's own interpreter under a neutral name, as `python` and `python3`."""
    program = Path(sys.executable).resolve()
    inside = str(program)
    if program.is_relative_to(sys.base_prefix) and sys.base_prefix != "/usr":
        yield from ("--ro-bind", prefix, _PYTHON)
        inside = f"{_PYTHON}/{program.relative_to(sys.base_prefix)}"
    for name in ("python", "python3"):
        yield from ("--symlink", inside, f"{_TOOLS}/{name}")
    library = sysconfig.get_config_var("INSTSONAME")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and inside.startswith(_PYTHON):
        yield from ("--symlink", f"{_PYTHON}/lib/{library}", f"{_LIBRARIES}/{library}")


def _kernel_interfaces(tmp_mb: int) -> Iterator[str]:
    """proc and dev. /proc/sys and its like stay read-only whoever the agent is mapped to."""
    yield from ("--proc", "/proc")
    for path in ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"):
        yield from ("--ro-bind-try", path, path)
    yield from ("--dev", "/dev", "--perms", "1777", "--size", str(_SHM_MB * _MIB), "--tmpfs", "/dev/shm")  # noqa: S108
    yield from ("--remount-ro", "/dev")
    yield from ("--perms", "1777", "--size", str(tmp_mb * _MIB), "--tmpfs", "/tmp")  # noqa: S108


def _environment(home: str) -> Iterator[str]:
    yield "--clearenv"
    values = {
        "PATH": f"{_TOOLS}:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "USER": "agent",
        "LOGNAME": "agent",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108
        "LD_LIBRARY_PATH": _LIBRARIES,
        "PYTHONUNBUFFERED": "1",
    }
    for name, value in values.items():
        yield from ("--setenv", name, value)
