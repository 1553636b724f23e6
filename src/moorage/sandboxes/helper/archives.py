"""Runs INSIDE a sandbox, as the agent: many files at once, as a zip archive or as copies in the shared folder."""

import contextlib
import os
import stat
import time
import zipfile
import zlib

from moorage.sandboxes.helper.file_orders import answer, hidden_names, order_of, path_of
from moorage.sandboxes.helper.folders import (
    DEEPEST,
    TRIES,
    Aside,
    Refused,
    contents,
    entry,
    folder,
    open_file,
    open_folder,
    walk,
)
from moorage.sandboxes.helper.names import shown_name
from moorage.sandboxes.helper.wire import CHUNK, ERROR_CODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from moorage.sandboxes.helper.file_orders import Order
    from moorage.sandboxes.helper.folders import Names
    from moorage.sandboxes.helper.wire import Link

_EARLIEST, _LATEST = 315532800, 4354819198  # the years 1980 to 2107, all that an archive knows
_LARGE = 2**31
_LEVEL = 1
_WORTH = 0.95


class Archive:
    """A zip archive that is sent while it is made, bounded in files and bytes; counts what it leaves out."""

    def __init__(self, link: "Link", *, max_files: int, max_bytes: int) -> None:
        self._out = _Pieces(link)
        self._zip = zipfile.ZipFile(self._out, "w", zipfile.ZIP_DEFLATED)
        self._files, self._bytes = max_files, max_bytes
        self.left_out = 0

    def add(self, names: "Names", parent: int, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or not self._files or status.st_size > self._bytes:
            self.left_out += 1
            return
        try:
            descriptor, status = open_file(parent, names[-1])
        except (OSError, Refused):
            self.left_out += 1
            return
        size = min(status.st_size, self._bytes)
        info = _zip_info(names, status)
        try:
            # Of an entry that is given, not its archive's counts. Its name is without the underscore since Python 3.13.
            info._compresslevel = _level(descriptor, size)  # pyright: ignore[reportAttributeAccessIssue]
            with self._zip.open(info, "w", force_zip64=size >= _LARGE) as member:
                for data in contents(descriptor, 0, size):
                    member.write(data)
        finally:
            os.close(descriptor)
        self._files -= 1
        self._bytes -= size

    def finish(self) -> None:
        if self.left_out:
            note = (
                f"{self.left_out} entries are missing: links, what cannot be read, or more than an archive may hold.\n"
            )
            self._zip.writestr("_missing.txt", note)
        self._zip.close()
        self._out.send_rest()


class _Pieces:
    """A file to write to; what is written goes out in pieces."""

    def __init__(self, link: "Link") -> None:
        self._link = link
        self._buffer = bytearray()

    def write(self, data: "bytes | bytearray | memoryview") -> int:
        self._buffer += data
        while len(self._buffer) >= CHUNK:
            self._link.write(bytes(self._buffer[:CHUNK]))
            del self._buffer[:CHUNK]
        return len(data)

    def flush(self) -> None:
        """Called after each file: small ones go together."""

    def close(self) -> None:
        """Not by us."""

    def send_rest(self) -> None:
        self._link.write(bytes(self._buffer))


def _level(descriptor: int, size: int) -> int:
    """0 for what does not shrink, such as pictures: to try all of it takes ten times as long as the rest."""
    start = b"".join(contents(descriptor, 0, min(size, CHUNK)))
    return _LEVEL if len(zlib.compress(start, _LEVEL)) < _WORTH * len(start) else 0


def _zip_info(names: "Names", status: os.stat_result) -> zipfile.ZipInfo:
    """Names as they are shown, but for the backslash, which separates folders on some systems."""
    shown = "/".join(shown_name(name).replace("\\", "%") for name in names)
    info = zipfile.ZipInfo(shown, time.gmtime(min(max(int(status.st_mtime), _EARLIEST), _LATEST))[:6])
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (stat.S_IFREG | status.st_mode & 0o777) << 16
    return info


def zip_folder(link: "Link", order: "Order") -> None:
    """An archive of the regular files below a folder. If something is missing, a file in it says how much."""
    names = path_of(order)
    os.close(open_folder(order["root"], names))  # before the first byte
    archive = Archive(link, max_files=order["max_files"], max_bytes=order["max_bytes"])
    for parent, path, name, status in walk(order["root"], names, hidden_names(order)):
        link.check()
        if not stat.S_ISDIR(status.st_mode) or len(path) >= DEEPEST:
            archive.add([*path[len(names) :], name], parent, status)
    archive.finish()


def keep_documents(link: "Link", order: "Order") -> None:
    """Copy files that end so into the folder `target` of `target_root`, each under a name with `stamp`."""
    suffixes = tuple(suffix.encode("latin-1") for suffix in order["suffixes"])
    kept: list[object] = []
    left_out: list[object] = []
    for parent, path, name, status in walk(order["root"], [], hidden_names(order)):
        link.check()
        if not stat.S_ISREG(status.st_mode) or not name.lower().endswith(suffixes):
            continue
        try:
            if len(kept) >= order["max_files"]:
                raise Refused("too_many_files")
            kept.append(_keep(order, parent, name))
            continue
        except Refused as refused:
            code = str(refused)
        except OSError as error:
            code = ERROR_CODES.get(error.errno or 0, "invalid_path")
        if len(left_out) < order["max_files"]:
            left_out.append([[part.decode("latin-1") for part in [*path, name]], code])
    answer(link, {"kept": kept, "left_out": left_out})


def _keep(order: "Order", parent: int, name: bytes) -> "list[object]":
    stem, suffix = os.path.splitext(name)
    descriptor, status = open_file(parent, name)
    try:
        if status.st_size > order["limit"]:
            raise Refused("file_too_large")
        with folder(order["target_root"], path_of(order, "target"), made=[]) as target, Aside(target) as aside:
            for data in contents(descriptor, 0, status.st_size):
                view = memoryview(data)
                while view:
                    view = view[os.write(aside.descriptor, view) :]
            status = os.fstat(aside.descriptor)
            for number in range(1, TRIES):
                again = f"-{number}" if number > 1 else ""
                mark = f"_{order['stamp']}{again}".encode() + suffix
                with contextlib.suppress(FileExistsError):
                    kept = stem[: 255 - len(mark)] + mark
                    aside.publish(kept, overwrite=False)
                    return entry(kept, status)
        raise Refused("file_exists")
    finally:
        os.close(descriptor)


ORDERS = {"zip": order_of(zip_folder), "keep_documents": order_of(keep_documents)}
