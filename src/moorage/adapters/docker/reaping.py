"""Killing a container's processes from outside, when the engine cannot: by a container that sees those of the host.

An agent can stop (SIGSTOP) a process that the engine is just starting beside it under the same uid. The engine then
waits for that start without end, and meanwhile answers nothing about the container: it neither kills nor removes it.
"""

type Body = dict[str, object]

# Every process says which container it is in, by the name of its control group.
_KILLER = """
import os, signal, sys
found = True
while found:
    found = False
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cgroup") as file:
                if sys.argv[1] in file.read():
                    os.kill(int(name), signal.SIGKILL)
                    found = True
        except OSError:
            continue
"""
_MEMORY_BYTES = 128 * 1024 * 1024
_PIDS = 16


def reaper_body(*, image_id: str, container_id: str) -> Body:
    """The Engine API's description of a container that ends when no process of `container_id` is left."""
    return {
        "Image": image_id,
        "Entrypoint": ["python3", "-I", "-S", "-c", _KILLER, container_id],
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        "HostConfig": {
            "PidMode": "host",
            "UsernsMode": "host",
            "NetworkMode": "none",
            "IpcMode": "private",
            "CapDrop": ["ALL"],
            "CapAdd": ["KILL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "Memory": _MEMORY_BYTES,
            "PidsLimit": _PIDS,
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": True,  # also when the server is killed meanwhile
        },
    }
