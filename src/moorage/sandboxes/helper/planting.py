"""Runs INSIDE a sandbox: makes a workspace again as the server says. It imports the standard library only.

`planting.plant` takes records as trees.py gives them: `m`, a line of a tree, but for a file `["f", path, mode, size,
mtime_ns, keep]`, with `[ctime_ns, inode]` for one that is there already, else null; `g`, no more lines; then for all
other files, in order, `f` with the line's number, `d` and `h` as there, `e`. `z` ends it. `m` and `d` are followed by
as many bytes as they say. Answers `["end", files written, entries removed]`.
"""

import contextlib
import json
import os
import stat

from moorage.sandboxes.helper.trees import (
    ASIDE,
    RECORD,
    Folder,
    Input,
    Refused,
    Trail,
    Walk,
    carry_out,
    identity_of,
    line_of,
    path_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from moorage.sandboxes.helper.wire import Link

    Write = Callable[[bytes], None]
    Read = Callable[[int], bytes]


def plant(root: str, read: "Read", write: "Write", *, max_bytes: int) -> None:
    """Make the folder `root` what the server says, and nothing else in it.

    What is to stay is looked at before anything is changed. Files are written aside and renamed.
    """
    lines = list(_lines(read))
    wanted = {path_of(line[1]): line for line in lines}
    if sum(line[3] for line in lines if line[0] == "f") > max_bytes:
        raise Refused("no_space")
    _check_kept(root, lines)
    aside = ASIDE + os.urandom(8).hex()
    with Trail(root, writable=True) as trail:
        os.mkdir(aside, 0o700, dir_fd=trail.root)
        with Trail(os.path.join(root, aside), writable=True) as place:
            removed = _clear(root, wanted, place, aside)
            _make_folders_and_links(trail, lines)
            written = _write_files(trail, lines, place.root, read)
        os.rmdir(aside, dir_fd=trail.root)
        for line in reversed(lines):
            if line[0] == "d":
                descriptor = trail.go(path_of(line[1]).split(b"/"))
                os.fchmod(descriptor, line[2] & 0o1777)
                os.utime(descriptor, ns=(line[3], line[3]))
    write(line_of(["end", written, removed]))


def _lines(read: "Read") -> "Iterator[list[Any]]":
    while True:
        kind, length = RECORD.unpack(read(RECORD.size))
        if kind == b"g":
            return
        if kind != b"m":
            raise Refused("bad_order")
        yield json.loads(read(length))


def _check_kept(root: str, lines: "list[list[Any]]") -> None:
    with Trail(root) as trail:
        for line in lines:
            if line[0] != "f" or line[5] is None:
                continue
            try:
                folder, name = trail.to(path_of(line[1]))
                status = os.lstat(name, dir_fd=folder)
            except OSError:
                raise Refused("changed") from None
            if not stat.S_ISREG(status.st_mode) or identity_of(status) != (line[3], *line[5]):
                raise Refused("changed")


def _clear(root: str, wanted: "dict[bytes, list[Any]]", place: Trail, aside: str) -> int:
    """Remove what is not wanted, and links whatever they are: they are made anew."""
    removed = 0
    walk = Walk(root, 1 << 62)
    for folder, name, path, status in walk:
        if name == aside and b"/" not in path:
            continue
        line = wanted.get(path)
        kind = "d" if stat.S_ISDIR(status.st_mode) else "f" if stat.S_ISREG(status.st_mode) else "other"
        if kind == "d":
            inner = Folder(name, folder, writable=True)
            inner.keep_open()
            if line is not None and line[0] == "d":
                walk.enter(inner, path)
                continue
            inner.close()
            os.rename(name, "0", src_dir_fd=folder, dst_dir_fd=place.root)
            _empty(place.root)
        elif line is not None and line[0] == kind:
            continue
        else:
            os.unlink(name, dir_fd=folder)
        removed += line is None
    return removed


def _empty(top: int) -> None:
    """Empty the folder: what is deeper is moved up first, so that no depth needs a long path or many descriptors."""
    serial = 0
    while names := os.listdir(top):
        for name in names:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=top).st_mode):
                os.unlink(name, dir_fd=top)
                continue
            folder = Folder(name, top, writable=True)
            folder.keep_open()
            try:
                for child in os.listdir(folder.fd):
                    if not stat.S_ISDIR(os.lstat(child, dir_fd=folder.fd).st_mode):
                        os.unlink(child, dir_fd=folder.fd)
                        continue
                    inner = Folder(child, folder.fd, writable=True)  # moving it needs the right to write in it
                    inner.keep_open()
                    inner.close()
                    serial += 1
                    os.rename(child, f"_{serial}", src_dir_fd=folder.fd, dst_dir_fd=top)
            finally:
                folder.close()
            os.rmdir(name, dir_fd=top)


def _make_folders_and_links(trail: Trail, lines: "list[list[Any]]") -> None:
    for line in lines:
        if line[0] == "f":
            continue
        folder, name = trail.to(path_of(line[1]))
        if line[0] == "l":
            os.symlink(os.fsdecode(path_of(line[2])), name, dir_fd=folder)
        else:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=folder)


def _write_files(trail: Trail, lines: "list[list[Any]]", place: int, read: "Read") -> int:
    written = 0
    while True:
        kind, number = RECORD.unpack(read(RECORD.size))
        if kind == b"z":
            return written
        if kind != b"f":
            raise Refused("bad_order")
        _, text, mode, size, mtime_ns, _ = lines[number]
        descriptor = os.open("file", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=place)
        try:
            if _receive_content(descriptor, read) != size:
                raise Refused("bad_order")
            os.fchmod(descriptor, mode & 0o1777)
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        except BaseException:
            os.unlink("file", dir_fd=place)
            raise
        finally:
            os.close(descriptor)
        folder, name = trail.to(path_of(text))
        os.rename("file", name, src_dir_fd=place, dst_dir_fd=folder)
        written += 1


def _receive_content(descriptor: int, read: "Read") -> int:
    size = 0
    while True:
        kind, number = RECORD.unpack(read(RECORD.size))
        if kind == b"e":
            os.ftruncate(descriptor, size)
            return size
        if kind == b"d":
            view = memoryview(read(number))
            while view:
                done = os.pwrite(descriptor, view, size)
                view, size = view[done:], size + done
        elif kind == b"h":
            size += number
        else:
            raise Refused("bad_order")


def _plant_order(link: "Link", order: "dict[str, Any]") -> "dict[str, object]":
    reading = Input(link).read
    return carry_out(link, lambda output: plant(order["cwd"], reading, output.write, max_bytes=order["max_bytes"]))


ORDERS = {"plant": _plant_order}
