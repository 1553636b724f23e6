"""What the helper does with files, in a plain folder and without a sandbox: odd names, races, bounds, what is left."""

import io
import json
import os
import struct
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from moorage.sandboxes.helper import archives, file_orders
from moorage.sandboxes.helper.wire import ERROR_CODES, Killed

ODD = b"a\xff\n\\ \xe2\x80\xae"


class TheirLink:
    """What an order reads and writes; `break_after` so many pieces of input it is killed."""

    def __init__(self, given: Sequence[bytes] = (), break_after: int | None = None) -> None:
        self.out = bytearray()
        self.notes: list[bytes] = []
        self._given = list(given)
        self._left = break_after

    def write(self, data: bytes, kind: bytes = b"o") -> None:
        self.out += data

    def read(self) -> bytes | None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Killed
        return self._given.pop(0) if self._given else None

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        self.notes.append(payload)

    def check(self) -> None: ...


class Place:
    """A folder, and orders for it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def order(self, do: str, path: bytes = b"", link: TheirLink | None = None, **more: Any) -> tuple[Any, bytes]:
        """The report's error and the output."""
        link = link or TheirLink()
        report = {**file_orders.ORDERS, **archives.ORDERS}[do](
            link,  # pyright: ignore[reportArgumentType]
            {"root": str(self.root), "path": names(path), "hidden": [".agent"], **more},
        )
        return report.get("error"), bytes(link.out)

    def ask(self, do: str, path: bytes = b"", **more: Any) -> Any:
        error, out = self.order(do, path, **more)
        assert error is None
        return json.loads(out)

    def list(self, path: bytes = b"", after: bytes = b"", limit: int = 100) -> list[bytes]:
        found = self.ask("list", path, after=after.decode("latin-1"), limit=limit)
        return [item[0].encode("latin-1") for item in found["items"]]

    def write(self, path: bytes, *given: bytes, break_after: int | None = None, **more: Any) -> tuple[Any, bytes]:
        order = {"limit": 1000, "overwrite": True, **more}
        return self.order("write", path, TheirLink(given, break_after), **order)

    def everything(self) -> set[bytes]:
        return {os.fsencode(path.relative_to(self.root)) for path in self.root.rglob("*")}


def names(path: bytes) -> list[str]:
    return [part.decode("latin-1") for part in path.split(b"/")] if path else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("canary")
    return Place(root)


def refused(call: Any) -> str:
    """The code with which an order fails, as the zygote would tell it."""
    try:
        error, out = call()
    except OSError as failed:
        return ERROR_CODES.get(failed.errno or 0, "invalid_path")
    assert error is not None, out
    return error


# Listing ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_listed_in_the_order_of_names_page_by_page(place: Place):
    for number in range(25):
        (place.root / f"{number:02}").touch()
    found, after = list[bytes](), ""
    while True:
        page = place.ask("list", after=after, limit=10)
        found += [item[0].encode() for item in page["items"]]
        if page["next_after"] is None:
            break
        after = page["next_after"]
    assert found == [b"%02d" % number for number in range(25)]


def test_entries_say_what_they_are_without_being_opened(place: Place):
    (place.root / "file").write_text("four")
    (place.root / "folder").mkdir()
    (place.root / "link").symlink_to("/etc/passwd")
    os.mkfifo(place.root / "pipe")
    items = place.ask("list", after="", limit=10)["items"]
    assert [item[:3] for item in items] == [
        ["file", "file", 4],
        ["folder", "dir", 0],
        ["link", "link", 0],
        ["pipe", "other", 0],
    ]


def test_odd_names_arrive_as_they_are(place: Place):
    Path(os.fsdecode(os.fsencode(place.root) + b"/" + ODD)).touch()
    assert place.list() == [ODD]
    assert place.order("delete", ODD) == (None, b"")
    assert place.list() == []


def test_what_is_hidden_of_the_root_is_shown_elsewhere(place: Place):
    (place.root / ".agent").mkdir()
    (place.root / "in" / ".agent").mkdir(parents=True)
    assert place.list() == [b"in"]
    assert place.list(b"in") == [b".agent"]


# Reading ---------------------------------------------------------------------------------------------------------


def read(place: Place, path: bytes, start: int = 0, length: int | None = None) -> tuple[list[Any], bytes]:
    error, out = place.order("read", path, start=start, length=length)
    assert error is None
    [size] = struct.unpack_from(">I", out)
    return json.loads(out[4 : 4 + size]), out[4 + size :]


@pytest.mark.parametrize(
    ("start", "length", "expected"), [(0, None, b"0123456789"), (3, 4, b"3456"), (8, 9, b"89"), (20, 5, b"")]
)
def test_parts_of_a_file(place: Place, start: int, length: int | None, expected: bytes):
    (place.root / "a").write_text("0123456789")
    entry, data = read(place, b"a", start, length)
    assert (entry[:3], data) == (["a", "file", 10], expected)


def test_a_part_of_a_sparse_terabyte(place: Place):
    with (place.root / "big").open("wb") as file:
        file.truncate(2**40)
    entry, data = read(place, b"big", 2**40 - 3, 10)
    assert (entry[2], data) == (2**40, b"\0\0\0")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path.mkdir(), "is_directory"),
        (lambda path: path.symlink_to("../secret"), "invalid_path"),
        (lambda path: os.mkfifo(path), "invalid_path"),
        (lambda path: os.mknod(path, 0o20666, os.makedev(1, 5)), "invalid_path"),
        (lambda _: None, "file_not_found"),
    ],
    ids=["folder", "link", "pipe", "device", "nothing"],
)
def test_only_regular_files_are_read_or_replaced(place: Place, make: Any, code: str):
    make(place.root / "it")
    assert refused(lambda: place.order("read", b"it", start=0, length=None)) == code
    if code not in ("file_not_found", "is_directory"):
        assert refused(lambda: place.write(b"it", b"data")) == code


@pytest.mark.parametrize("do", ["list", "stat", "read", "write", "make_folder", "move", "delete", "zip"])
def test_no_order_goes_through_a_link(place: Place, do: str):
    (place.root.parent / "outside").mkdir()
    (place.root.parent / "outside" / "a").write_text("canary")
    (place.root / "link").symlink_to("../outside")
    more = {"after": "", "limit": 10, "start": 0, "length": None, "overwrite": True, "target": ["b"]}
    path = b"link" if do in ("list", "zip") else b"link/a"
    code = refused(lambda: place.order(do, path, **more, max_files=10, max_bytes=1000))
    assert code == "not_a_directory"
    assert (place.root.parent / "outside" / "a").read_text() == "canary"


def test_a_name_that_turns_into_links_while_it_is_used_leads_nowhere(place: Place):
    """A program swaps a folder for a link to another, over and over; whatever is asked meanwhile stays inside."""
    outside = place.root.parent / "outside"
    outside.mkdir()
    (outside / "a").write_text("canary")
    (place.root / "one").mkdir()
    (place.root / "one" / "a").write_text("mine")
    (place.root / "two").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for source, target in (("one", "x"), ("two", "one"), ("one", "two"), ("x", "one")):
                with suppress(OSError):
                    os.rename(place.root / source, place.root / target)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(2000):
            with suppress(OSError):
                assert b"canary" not in place.order("read", b"one/a", start=0, length=None)[1]
            with suppress(OSError):
                place.write(b"one/b", b"data")
            with suppress(OSError):
                place.order("delete", b"one/b")
    finally:
        done.set()
        thread.join()
    assert os.listdir(outside) == ["a"]
    assert (outside / "a").read_text() == "canary"


# Writing ---------------------------------------------------------------------------------------------------------


def test_a_file_is_written_with_its_folders(place: Place):
    error, out = place.write(b"a/b/c", b"one", b"two")
    assert error is None
    assert (json.loads(out)["entry"][:3], json.loads(out)["created"]) == (["c", "file", 6], True)
    assert (place.root / "a/b/c").read_text() == "onetwo"


def test_a_file_that_is_replaced_keeps_its_mode_but_not_its_rights_to_be_somebody_else(place: Place):
    (place.root / "run").write_text("old")
    (place.root / "run").chmod(0o4751)
    error, out = place.write(b"run", b"new")
    assert (error, json.loads(out)["created"]) == (None, False)
    assert (place.root / "run").read_text() == "new"
    assert (place.root / "run").stat().st_mode & 0o7777 == 0o751


@pytest.mark.parametrize(
    "case",
    [{"given": (b"x" * 600, b"x" * 401)}, {"given": (b"a", b"b"), "break_after": 1}],
    ids=["too large", "cut off"],
)
def test_nothing_is_left_of_a_file_that_did_not_come(place: Place, case: dict[str, Any]):
    (place.root / "kept").mkdir()
    with suppress(Killed):
        assert (
            place.write(b"kept/new/er/file", *case["given"], break_after=case.get("break_after"))[0] == "file_too_large"
        )
    assert place.everything() == {b"kept"}


def test_a_file_that_is_there_is_only_replaced_when_that_is_meant(place: Place):
    (place.root / "a").write_text("old")
    assert place.write(b"a", b"new", overwrite=False)[0] == "file_exists"
    assert (place.root / "a").read_text() == "old"


def test_where_nothing_else_bounds_the_workspace_the_order_does(place: Place):
    (place.root / "a").write_bytes(b"x" * 50_000)
    bounds = {"path": str(place.root), "disk_bytes": 60_000, "max_files": None}
    assert place.write(b"b", b"x" * 20_000, limit=10**6, bounds=bounds)[0] == "no_space"
    assert place.write(b"b", b"x" * 500, limit=10**6, bounds=bounds)[0] is None
    bounds = {"path": str(place.root), "disk_bytes": None, "max_files": 1}
    assert place.write(b"c", b"x", bounds=bounds)[0] == "no_space"
    assert place.order("make_folder", b"d", bounds=bounds)[0] == "no_space"


def test_without_unnamed_files_they_are_written_under_a_name_aside(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "O_TMPFILE", 0)  # so the kernel answers as one without: EISDIR
    assert place.write(b"a", b"data")[0] is None
    with pytest.raises(Killed):
        place.write(b"b", b"data", break_after=1)
    assert place.everything() == {b"a"}


# Folders, moving, deleting ---------------------------------------------------------------------------------------


def test_folders_are_made_with_their_parents_once(place: Place):
    assert place.ask("make_folder", b"a/b")[:2] == ["b", "dir"]
    assert refused(lambda: place.order("make_folder", b"a/b")) == "file_exists"
    assert refused(lambda: place.order("make_folder")) == "file_exists"


def move(place: Place, source: bytes, target: bytes, *, overwrite: bool = False) -> tuple[Any, bytes]:
    return place.order("move", source, target=names(target), overwrite=overwrite)


@pytest.mark.parametrize("flags", [True, False], ids=["renameat2", "without"])
def test_moving_never_replaces_unless_that_is_meant(place: Place, monkeypatch: pytest.MonkeyPatch, flags: bool):
    if not flags:
        monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    for name in ("a", "b"):
        (place.root / name).write_text(name)
    (place.root / "folder" / "in").mkdir(parents=True)
    (place.root / "full" / "in").mkdir(parents=True)
    assert refused(lambda: move(place, b"a", b"b")) == "file_exists"
    assert refused(lambda: move(place, b"folder", b"full")) == "file_exists"
    assert refused(lambda: move(place, b"folder", b"folder/in/self")) == "invalid_path"
    assert refused(lambda: move(place, b"folder", b"full", overwrite=True)) == "not_empty"
    assert refused(lambda: move(place, b"a", b"folder", overwrite=True)) == "is_directory"
    assert refused(lambda: move(place, b"folder", b"a", overwrite=True)) == "not_a_directory"
    assert move(place, b"a", b"folder/c")[0] is None
    assert move(place, b"folder", b"renamed")[0] is None
    assert move(place, b"b", b"renamed/c", overwrite=True)[0] is None
    assert place.everything() == {b"renamed", b"renamed/in", b"renamed/c", b"full", b"full/in"}
    assert (place.root / "renamed" / "c").read_text() == "b"


def test_of_two_names_of_one_file_moving_leaves_the_new_one(place: Place):
    (place.root / "a").write_text("one")
    (place.root / "b").hardlink_to(place.root / "a")
    assert move(place, b"a", b"b", overwrite=True)[0] is None
    assert place.everything() == {b"b"}
    assert move(place, b"b", b"b", overwrite=True)[0] is None
    assert place.everything() == {b"b"}


def test_a_link_is_moved_and_deleted_itself(place: Place):
    (place.root / "link").symlink_to("../secret")
    assert move(place, b"link", b"moved")[0] is None
    assert place.order("delete", b"moved") == (None, b"")
    assert (place.root.parent / "secret").read_text() == "canary"


def test_the_root_is_neither_moved_nor_deleted(place: Place):
    assert refused(lambda: place.order("delete")) == "is_directory"
    assert refused(lambda: move(place, b"", b"a")) == "is_directory"
    assert refused(lambda: place.write(b"")) == "is_directory"


def deep(root: Path, levels: int) -> None:
    """A chain of folders with a file in each, deeper than any path could be."""
    here = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.mkdir("in", dir_fd=here)
        inner = os.open("in", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def test_trees_are_deleted_however_deep_and_wide_they_are(place: Place):
    for name in ("deep", "deeper"):
        (place.root / "tree" / name).mkdir(parents=True)
        deep(place.root / "tree" / name, 2000)
    for number in range(1500):
        (place.root / "tree" / f"wide{number}" / "in").mkdir(parents=True)
    (place.root / "tree" / "link").symlink_to(place.root.parent)
    assert place.order("delete", b"tree") == (None, b"")
    assert place.list() == []
    assert (place.root.parent / "secret").read_text() == "canary"


def test_a_tree_that_grows_while_it_is_deleted_is_gone_or_said_to_be_not_empty(place: Place):
    done = threading.Event()
    (place.root / "tree").mkdir()

    def grow() -> None:
        number = 0
        while not done.is_set():
            number += 1
            with suppress(OSError):
                (place.root / "tree" / str(number % 7)).mkdir()
                (place.root / "tree" / str(number % 7) / "x").touch()

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        codes = {place.order("delete", b"tree")[0]}
    except FileNotFoundError:
        codes = {None}
    finally:
        done.set()
        thread.join()
    assert codes <= {None, "not_empty"}


# Archives --------------------------------------------------------------------------------------------------------


def archive(place: Place, path: bytes = b"", max_files: int = 100, max_bytes: int = 10**6) -> zipfile.ZipFile:
    error, out = place.order("zip", path, max_files=max_files, max_bytes=max_bytes)
    assert error is None
    found = zipfile.ZipFile(io.BytesIO(out))
    assert found.testzip() is None
    return found


def test_an_archive_holds_regular_files_only_and_says_what_is_missing(place: Place):
    (place.root / "a").write_text("one")
    (place.root / "b" / "c").mkdir(parents=True)
    (place.root / "b" / "c" / "d").write_bytes(b"two" * 100_000)
    (place.root / ".agent").write_text("ours")
    assert archive(place).namelist() == ["a", "b/c/d"]
    assert archive(place).read("b/c/d") == b"two" * 100_000
    assert archive(place, b"b").namelist() == ["c/d"]
    (place.root / "b" / "link").symlink_to("../../secret")
    os.mkfifo(place.root / "b" / "pipe")
    found = archive(place)
    assert set(found.namelist()) == {"a", "b/c/d", "_missing.txt"}
    assert found.read("_missing.txt").startswith(b"2 entries")


def test_an_archive_is_bounded(place: Place):
    for number in range(5):
        (place.root / str(number)).write_bytes(b"x" * 1000)
    with (place.root / "big").open("wb") as file:
        file.truncate(2**40)
    assert len(archive(place, max_files=3).namelist()) == 3 + 1
    assert len(archive(place, max_bytes=2500).namelist()) == 2 + 1


def test_names_in_an_archive_cannot_lead_out_of_it(place: Place):
    for name in (b"..\\up", b"C:x", ODD, b"~root"):
        Path(os.fsdecode(os.fsencode(place.root) + b"/" + name)).touch()
    assert set(archive(place).namelist()) == {
        "..%x5cup", "C%x3ax", "a%xff%x0a%x5c %xe2%x80%xae", "%x7eroot",
    }  # fmt: skip


# Documents -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


def keep(place: Place, shared: Path, **more: Any) -> Any:
    order = {"target_root": str(shared), "target": ["outputs"], "suffixes": [".pdf", ".xlsx"], "stamp": "T1"}
    return place.ask("keep_documents", **{**order, "limit": 10_000, "max_files": 10, **more})


def test_documents_are_kept_under_a_name_with_the_time(place: Place, shared: Path):
    (place.root / "sub").mkdir()
    (place.root / "sub" / "report.pdf").write_text("one")
    (place.root / "REPORT.PDF").write_text("loud")
    (place.root / "report.pdf").write_text("two")
    (place.root / "notes.txt").write_text("no document")
    (place.root / "link.pdf").symlink_to("../secret")
    found = keep(place, shared)
    assert (len(found["kept"]), found["left_out"]) == (3, [])
    contents = {path.name: path.read_text() for path in (shared / "outputs").iterdir()}
    assert set(contents) == {"report_T1.pdf", "report_T1-2.pdf", "REPORT_T1.PDF"}
    assert set(contents.values()) == {"one", "two", "loud"}


def test_a_document_that_cannot_be_kept_is_named_and_stops_no_other(place: Place, shared: Path):
    (place.root / "large.pdf").write_bytes(b"x" * 20_000)
    (place.root / "small.pdf").write_text("x")
    found = keep(place, shared)
    assert [item[0] for item in found["kept"]] == ["small_T1.pdf"]
    assert found["left_out"] == [[["large.pdf"], "file_too_large"]]
    for number in range(12):
        (place.root / f"{number}.xlsx").touch()
    assert {code for _, code in keep(place, shared, max_files=5)["left_out"]} == {"file_too_large", "too_many_files"}


def test_outputs_that_are_a_link_are_not_followed(place: Place, shared: Path):
    (shared / "outputs").symlink_to(place.root.parent)
    (place.root / "a.pdf").write_text("x")
    assert keep(place, shared)["left_out"] == [[["a.pdf"], "not_a_directory"]]
    assert not list(place.root.parent.glob("*.pdf"))


def test_a_long_name_still_has_room_for_the_time(place: Place, shared: Path):
    (place.root / ("x" * 251 + ".pdf")).write_text("x")
    [entry] = keep(place, shared)["kept"]
    assert len(entry[0]) == 255
    assert entry[0].endswith("_T1.pdf")
