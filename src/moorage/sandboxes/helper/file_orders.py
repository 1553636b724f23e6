"""Runs INSIDE a sandbox, in a child of the zygote, as the agent: files for people (see `moorage.sandboxes.files`).

In orders and answers a name is its bytes, each as the character of that number. Answers come as output: one JSON text,
or for contents a JSON text with its length (4 bytes, big-endian) before it, then the contents.
"""

import contextlib
import heapq
import json
import os
import stat
import struct

from moorage.sandboxes.helper.folders import (
    Aside,
    Refused,
    contents,
    delete_tree,
    entry,
    folder,
    look,
    open_file,
    rename_to_new,
    require_file,
)
from moorage.sandboxes.helper.storage import Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from moorage.sandboxes.helper.folders import Names
    from moorage.sandboxes.helper.wire import Link

    Order = dict[str, Any]


def list_folder(link: "Link", order: "Order") -> None:
    """The `limit` first entries after the name `after`, in the order of their bytes, and whether there are more."""
    limit: int = order["limit"]
    with folder(order["root"], path_of(order)) as descriptor:
        first = first_names(descriptor, limit + 1, order["after"].encode("latin-1"), hidden_names(order))
        entries: list[object] = []
        for name in first[:limit]:
            with contextlib.suppress(FileNotFoundError):
                entries.append(entry(name, look(descriptor, name)))
    more = first[limit - 1].decode("latin-1") if len(first) > limit else None
    answer(link, {"items": entries, "next_after": more})


def first_names(descriptor: int, number: int, after: bytes, hidden: "set[bytes]") -> "Names":
    """However many there are, only so many are kept."""
    with os.scandir(descriptor) as found:
        names = (os.fsencode(item.name) for item in found)
        return heapq.nsmallest(number, (name for name in names if name > after and name not in hidden))


def stat_file(link: "Link", order: "Order") -> None:
    names = path_of(order)
    if names:
        with folder(order["root"], names[:-1]) as parent:
            answer(link, entry(names[-1], look(parent, names[-1])))
    else:
        answer(link, entry(b"", os.lstat(order["root"])))


def read_file(link: "Link", order: "Order") -> None:
    """The file as it was when it was opened, then its bytes from `start`, at most `length` (None: all it had then)."""
    names, name = split(path_of(order))
    with folder(order["root"], names) as parent:
        descriptor, status = open_file(parent, name)
    try:
        head = json.dumps(entry(name, status), ensure_ascii=False).encode()
        link.write(struct.pack(">I", len(head)) + head)
        left = max(0, status.st_size - order["start"])
        for data in contents(descriptor, order["start"], left if order["length"] is None else order["length"]):
            link.write(data)
    finally:
        os.close(descriptor)


def write_file(link: "Link", order: "Order") -> None:
    """Take the file's bytes and write them aside, then put it in its place. Of one that fails nothing is left."""
    names, name = split(path_of(order))
    room = room_in(link, order)
    made: Names = []
    try:
        with folder(order["root"], names, made=made) as parent:
            mode = replaced_mode(parent, name, overwrite=order["overwrite"])
            with Aside(parent) as aside:
                receive_into(link, aside.descriptor, limit=order["limit"], room=room)
                if mode is not None:
                    os.fchmod(aside.descriptor, mode & 0o777)
                status = os.fstat(aside.descriptor)
                created = aside.publish(name, overwrite=order["overwrite"])
    except BaseException:
        for depth in range(len(names), len(names) - len(made), -1):
            with contextlib.suppress(OSError), folder(order["root"], names[: depth - 1]) as parent:
                os.rmdir(names[depth - 1], dir_fd=parent)
        raise
    answer(link, {"entry": entry(name, status), "created": created})


def room_in(link: "Link", order: "Order") -> "int | None":
    """How many bytes may still come, where nothing but the helper sees to that; raises Refused when none may."""
    bounds: dict[str, Any] = order.get("bounds") or {}
    most_bytes, most_files = bounds.get("disk_bytes"), bounds.get("max_files")
    if most_bytes is None and most_files is None:
        return None
    used = look_through(link, order["root"])
    room = None if most_bytes is None else most_bytes - used.size
    if (room is not None and room <= 0) or (most_files is not None and used.files >= most_files):
        raise Refused("no_space")
    return room


def look_through(link: "Link", root: str) -> Usage:
    looked = Usage(root)
    while looked.step():
        link.check()
    return looked


def replaced_mode(parent: int, name: bytes, *, overwrite: bool) -> "int | None":
    """The mode of the file that is to be replaced, None when there is none."""
    try:
        status = look(parent, name)
    except FileNotFoundError:
        return None
    require_file(status)
    if not overwrite:
        raise Refused("file_exists")
    return status.st_mode


def receive_into(link: "Link", descriptor: int, *, limit: int, room: "int | None") -> None:
    size = 0
    while (data := link.read()) is not None:
        size += len(data)
        if size > limit:
            raise Refused("file_too_large")
        if room is not None and size > room:
            raise Refused("no_space")
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]


def make_folder(link: "Link", order: "Order") -> None:
    if not order["path"]:
        raise Refused("file_exists")
    names, name = split(path_of(order))
    room_in(link, order)
    with folder(order["root"], names, made=[]) as parent:
        os.mkdir(name, dir_fd=parent)
        answer(link, entry(name, look(parent, name)))


def move_file(link: "Link", order: "Order") -> None:
    (names, source), (target_names, target) = split(path_of(order)), split(path_of(order, "target"))
    with folder(order["root"], names) as parent, folder(order["root"], target_names) as target_parent:
        if order["overwrite"]:
            replace(parent, source, target_parent, target)
        else:
            rename_to_new(parent, source, target_parent, target)
        answer(link, entry(target, look(target_parent, target)))


def replace(from_folder: int, source: bytes, to_folder: int, target: bytes) -> None:
    before = look(from_folder, source)
    os.rename(source, target, src_dir_fd=from_folder, dst_dir_fd=to_folder)
    if before.st_nlink < 2 or stat.S_ISDIR(before.st_mode):
        return
    # Of two names of one file, `rename` leaves both.
    here, there = os.fstat(from_folder), os.fstat(to_folder)
    same_place = source == target and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
    with contextlib.suppress(FileNotFoundError):
        if not same_place and look(from_folder, source).st_ino == before.st_ino:
            os.unlink(source, dir_fd=from_folder)


def delete_file(_link: "Link", order: "Order") -> None:
    names, name = split(path_of(order))
    with folder(order["root"], names) as parent:
        if stat.S_ISDIR(look(parent, name).st_mode):
            delete_tree(parent, name)
        else:
            os.unlink(name, dir_fd=parent)


def usage(link: "Link", order: "Order") -> None:
    """[bytes, entries, most bytes, most entries] as the file system says, where it bounds the root; else as counted."""
    if order["counted"]:
        looked = look_through(link, order["root"])
        answer(link, [looked.size, looked.files, None, None])
        return
    found = os.statvfs(order["root"])
    used_blocks, used_files = found.f_blocks - found.f_bfree, found.f_files - found.f_ffree
    answer(link, [used_blocks * found.f_frsize, used_files, found.f_blocks * found.f_frsize, found.f_files or None])


# What is common ----------------------------------------------------------------------------------------------------


def path_of(order: "Order", key: str = "path") -> "Names":
    return [name.encode("latin-1") for name in order[key]]


def split(names: "Names") -> "tuple[Names, bytes]":
    """The folder of an entry, and its name. The root has none."""
    if not names:
        raise Refused("is_directory")
    return names[:-1], names[-1]


def hidden_names(order: "Order") -> "set[bytes]":
    """What is not shown of the root."""
    return set() if order["path"] else {name.encode("latin-1") for name in order["hidden"]}


def answer(link: "Link", value: object) -> None:
    link.write(json.dumps(value, ensure_ascii=False).encode())


def order_of(carry_out: "Callable[[Link, Order], None]") -> "Callable[[Link, Order], dict[str, object]]":
    """What the zygote calls."""

    def run(link: "Link", order: "Order") -> "dict[str, object]":
        try:
            carry_out(link, order)
        except Refused as refused:
            return {"outcome": "exited", "error": str(refused)}
        return {"outcome": "exited"}

    return run


ORDERS = {
    "list": order_of(list_folder),
    "stat": order_of(stat_file),
    "read": order_of(read_file),
    "write": order_of(write_file),
    "make_folder": order_of(make_folder),
    "move": order_of(move_file),
    "delete": order_of(delete_file),
    "usage": order_of(usage),
}
