"""Started as root, in place of bwrap: gives root up first, and keeps in reach what bwrap must mount.

Left to itself, a root bwrap maps the agent onto the owner of /proc/sys: a way out to the host. An unprivileged one
cannot walk to folders below /root. So: in a mount namespace of its own, bind those folders to a place that everybody
may enter, become the agent's uid, and turn into bwrap.

Given as text to `python3 -I -S -c` with one JSON argument: uid, gid, place (an existing folder), folders
(name -> path), program (below `place`), argv (it begins with the name that the program shows to others).
"""

import ctypes
import json
import os
import sys

CLONE_NEWNS = 0x00020000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000


def call(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(source: str, target: str, kind: "str | None", flags: int, data: "str | None" = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    libc = ctypes.CDLL(None, use_errno=True)
    call(libc.mount(*texts, ctypes.c_ulong(flags), data.encode() if data else None))


def main() -> None:
    order = json.loads(sys.argv[1])
    place: str = order["place"]
    call(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS))
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    # Opened before `place` is covered, as it may hold them; after unshare, as a mount's source must be in here.
    opened = {name: os.open(path, os.O_PATH | os.O_DIRECTORY) for name, path in order["folders"].items()}
    mount("moorage", place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64k")
    for name, descriptor in opened.items():
        os.mkdir(f"{place}/{name}", 0o755)
        mount(f"/proc/self/fd/{descriptor}", f"{place}/{name}", None, MS_BIND | MS_REC)
        os.close(descriptor)
    os.setgroups([])
    os.setresgid(order["gid"], order["gid"], order["gid"])
    os.setresuid(order["uid"], order["uid"], order["uid"])
    os.execve(order["program"], order["argv"], {})  # noqa: S606


if __name__ == "__main__":
    main()
