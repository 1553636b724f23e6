"""What runs inside a sandbox to tell, hand over and make again a workspace, in plain folders."""

import json
import os
import socket
import stat
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from moorage.sandboxes.helper import planting, trees
from moorage.sandboxes.helper.trees import RECORD, Refused
from moorage.sandboxes.trees import Listing, ListingReader, TreeBounds, TreeEntry, TreeRefused, Verdict

BOUNDS = TreeBounds(max_files=10_000, max_bytes=2**40)

type Fetched = list[tuple[list[bytes | int], Verdict]]


def listed(root: Path, limit: int = 10_000) -> Listing:
    parts: list[bytes] = []
    trees.tree(str(root), limit, parts.append)
    return told(parts)


def by_path(root: Path) -> dict[bytes, TreeEntry]:
    return {entry.path: entry for entry in listed(root).entries}


def fetched(root: Path, *entries: TreeEntry) -> Fetched:
    out = BytesIO()
    wanted = ([os.fsdecode(entry.path), *entry.identity] for entry in entries)
    trees.fetch(str(root), wanted, lambda data: out.write(data) and None)
    return list(files_in(out.getvalue()))


def files_in(data: bytes) -> Iterator[tuple[list[bytes | int], Verdict]]:
    pieces: list[bytes | int] = []
    while data:
        kind, number = RECORD.unpack_from(data)
        data = data[RECORD.size :]
        if kind == b"e":
            yield pieces, Verdict(number)
            pieces = []
        elif kind == b"h":
            pieces.append(number)
        else:
            pieces.append(data[:number])
            data = data[number:]


def plan(entries: Sequence[TreeEntry], contents: dict[bytes, bytes], keep: Sequence[bytes] = ()) -> bytes:
    """What the server would send."""
    sent = b""
    for entry in entries:
        path = os.fsdecode(entry.path)
        line: list[Any] = ["d", path, entry.mode, entry.mtime_ns]
        if entry.type == "link":
            line = ["l", path, os.fsdecode(entry.target)]
        elif entry.type == "file":
            kept = [entry.ctime_ns, entry.inode] if entry.path in keep else None
            line = ["f", path, entry.mode, entry.size, entry.mtime_ns, kept]
        text = json.dumps(line).encode()
        sent += RECORD.pack(b"m", len(text)) + text
    sent += RECORD.pack(b"g", 0)
    for number, entry in enumerate(entries):
        if entry.type == "file" and entry.path not in keep:
            data = contents[entry.path]
            sent += RECORD.pack(b"f", number) + RECORD.pack(b"d", len(data)) + data + RECORD.pack(b"e", 0)
    return sent + RECORD.pack(b"z", 0)


def plant(root: Path, sent: bytes, max_bytes: int = 2**40) -> list[Any]:
    source, out = BytesIO(sent), BytesIO()

    def read(size: int) -> bytes:
        if len(data := source.read(size)) < size:
            raise Refused("bad_order")
        return data

    planting.plant(str(root), read, lambda data: out.write(data) and None, max_bytes=max_bytes)
    return json.loads(out.getvalue())


def contents(root: Path) -> dict[bytes, bytes]:
    return {
        path: (root / os.fsdecode(path)).read_bytes() for path, entry in by_path(root).items() if entry.type == "file"
    }


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other"
    path.mkdir()
    return path


# Telling -------------------------------------------------------------------------------------------------------------


def test_files_folders_and_links_are_told_folders_first(work: Path) -> None:
    (work / "b").mkdir(mode=0o751)
    (work / "b" / "x.sh").write_text("echo")
    (work / "b" / "x.sh").chmod(0o4755)
    (work / "a").symlink_to("/etc/passwd")
    (work / os.fsdecode(b"\xff\n")).write_text("")
    found = listed(work).entries
    assert [entry.path for entry in found] == [b"a", b"b", b"b/x.sh", b"\xff\n"]
    assert (found[0].type, found[0].target) == ("link", b"/etc/passwd")
    status = (work / "b/x.sh").stat()
    assert found[2] == TreeEntry(b"b/x.sh", "file", 0o755, 4, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def test_pipes_and_sockets_are_left_out_and_block_nothing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(work / "pipe")
    monkeypatch.chdir(work)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert listed(work) == Listing([], left_out=2)


def test_more_files_than_allowed_are_refused_before_they_are_looked_at(work: Path) -> None:
    for number in range(4):
        (work / str(number)).mkdir()
        (work / str(number) / "x").touch()
    assert len(listed(work, 8).entries) == 8
    with pytest.raises(Refused, match="too_many_files"):
        listed(work, 7)


def deep(root: Path, levels: int) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 30, dir_fd=descriptor)
        inner = os.open("d" * 30, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)


def test_a_tree_without_end_is_refused(work: Path) -> None:
    deep(work, 1000)
    with pytest.raises(Refused, match="too_deep"):
        listed(work)


def test_what_its_owner_may_not_read_is_read_and_left_as_it_was(work: Path) -> None:
    (work / "shut").mkdir()
    (work / "shut" / "file").write_text("secret")
    (work / "shut" / "file").chmod(0)
    (work / "shut").chmod(0)
    entries = by_path(work)
    assert fetched(work, entries[b"shut/file"])[0][0] == [b"secret"]
    assert stat.S_IMODE((work / "shut").stat().st_mode) == 0
    assert stat.S_IMODE((work / "shut" / "file").stat().st_mode) == 0


# Handing over --------------------------------------------------------------------------------------------------------


def test_contents_come_in_the_order_asked_for(work: Path) -> None:
    (work / "a").write_bytes(b"A" * 100_000)
    (work / "b").write_bytes(b"")
    entries = by_path(work)
    files = fetched(work, entries[b"b"], entries[b"a"])
    assert [(b"".join(map(bytes, pieces)), verdict) for pieces, verdict in files] == [
        (b"", Verdict.WHOLE),
        (b"A" * 100_000, Verdict.WHOLE),
    ]


def test_holes_are_told_and_not_sent(work: Path) -> None:
    with (work / "sparse").open("wb") as file:
        file.seek(2**30)
        file.write(b"end")
    [(pieces, verdict)] = fetched(work, by_path(work)[b"sparse"])
    assert pieces[0] == 2**30
    assert (pieces[-1], verdict) == (b"end", Verdict.WHOLE)


def test_what_was_changed_since_it_was_listed_says_so(work: Path) -> None:
    for name in ("written", "gone", "replaced", "linked", "piped"):
        (work / name).write_text("one")
    entries = list(by_path(work).values())
    (work / "written").write_text("two")
    for name in ("gone", "replaced", "linked", "piped"):
        (work / name).rename(work.parent / name)
    (work / "replaced").write_text("two")
    (work / "linked").symlink_to(work.parent / "linked")
    os.mkfifo(work / "piped")
    assert {verdict for _, verdict in fetched(work, *entries)} == {Verdict.CHANGED}


def test_a_folder_that_became_a_link_leads_nowhere(work: Path, other: Path) -> None:
    (work / "folder").mkdir()
    (work / "folder" / "file").write_text("mine")
    entry = by_path(work)[b"folder/file"]
    (work / "folder").rename(other / "folder")
    (work / "folder").symlink_to(other / "folder")
    assert fetched(work, entry) == [([], Verdict.CHANGED)]


def test_a_time_in_the_future_is_not_waited_for(work: Path) -> None:
    (work / "file").write_text("x")
    assert not trees._comes_to_rest(2**62)  # pyright: ignore[reportPrivateUsage]


# Making again --------------------------------------------------------------------------------------------------------


def test_an_empty_folder_becomes_the_same_tree(work: Path, other: Path) -> None:
    (work / "a" / "b").mkdir(parents=True)
    (work / "a" / "b" / "run.sh").write_text("#!/bin/sh\n")
    (work / "a" / "b" / "run.sh").chmod(0o751)
    os.utime(work / "a" / "b" / "run.sh", ns=(1, 10**18))
    (work / "a" / "b").chmod(0o500)
    os.utime(work / "a", ns=(1, 10**18))
    (work / "outside").symlink_to("/etc/passwd")
    plant(other, plan(listed(work).entries, contents(work)))
    was, became = by_path(work), by_path(other)
    assert contents(other) == contents(work)
    assert [(e.path, e.type, e.mode, e.mtime_ns, e.target) for e in became.values()] == [
        (e.path, e.type, e.mode, e.mtime_ns, e.target) for e in was.values()
    ]


def test_what_is_not_in_the_tree_is_removed_whatever_it_is(work: Path, other: Path) -> None:
    (work / "file").write_text("x")
    (work / "folder").mkdir()
    deep(other, 600)
    (other / "folder").write_text("a file in a folder's place")
    (other / "file").mkdir()
    (other / "shut" / "in").mkdir(parents=True)
    (other / "shut" / "in" / "x").write_text("")
    (other / "shut" / "in").chmod(0)
    (other / "shut").chmod(0)
    os.mkfifo(other / "pipe")
    (other / ".moorage-planting-0123").mkdir()
    assert plant(other, plan(listed(work).entries, contents(work))) == ["end", 1, 4]
    assert sorted(os.listdir(other)) == ["file", "folder"]


def test_what_is_kept_stays_the_same_file(work: Path) -> None:
    (work / "kept").write_text("kept")
    (work / "lost").write_text("lost")
    entries = listed(work).entries
    (work / "lost").write_text("something else")
    inode = (work / "kept").stat().st_ino
    assert plant(work, plan(entries, {b"lost": b"lost"}, keep=[b"kept"])) == ["end", 1, 0]
    assert contents(work) == {b"kept": b"kept", b"lost": b"lost"}
    assert (work / "kept").stat().st_ino == inode


def test_what_should_be_kept_and_has_changed_refuses_all_before_anything_is_done(work: Path) -> None:
    (work / "kept").write_text("kept")
    entries = listed(work).entries
    (work / "kept").write_text("kepT")
    (work / "new").write_text("")
    with pytest.raises(Refused, match="changed"):
        plant(work, plan(entries, {}, keep=[b"kept"]))
    assert (work / "new").exists()


def test_what_does_not_fit_is_refused_before_anything_is_done(work: Path, other: Path) -> None:
    (work / "large").write_bytes(b"x" * 1000)
    (other / "mine").touch()
    with pytest.raises(Refused, match="no_space"):
        plant(other, plan(listed(work).entries, contents(work)), max_bytes=999)
    assert os.listdir(other) == ["mine"]


def test_links_in_the_way_are_not_followed(work: Path, other: Path, tmp_path: Path) -> None:
    (work / "folder").mkdir()
    (work / "folder" / "file").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (other / "folder").symlink_to(tmp_path / "elsewhere")
    plant(other, plan(listed(work).entries, contents(work)))
    assert contents(other) == {b"folder/file": b"x"}
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_broke_off_may_be_repeated(work: Path, other: Path) -> None:
    for name in "abc":
        (work / name).write_text(name * 1000)
    sent = plan(listed(work).entries, contents(work))
    for length in range(0, len(sent), 101):
        with pytest.raises(Refused):
            plant(other, sent[:length])
    plant(other, sent)
    assert contents(other) == contents(work)
    assert sorted(os.listdir(other)) == ["a", "b", "c"]


# What the server believes --------------------------------------------------------------------------------------------

GOOD = ["f", "a", 0o644, 1, 1, 1, 1]


def told(parts: Iterable[bytes], bounds: TreeBounds = BOUNDS) -> Listing:
    reader = ListingReader(bounds)
    for part in parts:
        reader.feed(part)
    return reader.finish()


@pytest.mark.parametrize(
    "lines",
    [
        [["f", "../x", 0o644, 1, 1, 1, 1]],
        [["f", "/etc/x", 0o644, 1, 1, 1, 1]],
        [["f", "a//b", 0o644, 1, 1, 1, 1]],
        [["f", ".", 0o644, 1, 1, 1, 1]],
        [["f", "", 0o644, 1, 1, 1, 1]],
        [["f", "a\0b", 0o644, 1, 1, 1, 1]],
        [["f", "\ud800", 0o644, 1, 1, 1, 1]],
        [["f", "x" * 256, 0o644, 1, 1, 1, 1]],
        [["f", "missing/b", 0o644, 1, 1, 1, 1]],
        [GOOD, GOOD],
        [GOOD, ["d", "a", 0o755, 1]],
        [GOOD, ["f", "a/b", 0o644, 1, 1, 1, 1]],
        [["l", "a", "x"], ["f", "a/b", 0o644, 1, 1, 1, 1]],
        [["f", "a", 0o4755, 1, 1, 1, 1]],
        [["f", "a", 0o644, -1, 1, 1, 1]],
        [["f", "a", 0o644, 2**63, 1, 1, 1]],
        [["f", "a", 0o644, 1.5, 1, 1, 1]],
        [["f", "a", 0o644, 1, 1, 1]],
        [["l", "a", ""]],
        [["l", "a", "x" * 5000]],
        [["x", "a"]],
        [[]],
        ["f"],
        [None],
        [["end", 0], GOOD],
        [["end", -1]],
        [["end", 0], ["end", 0]],
    ],
)
def test_a_tree_that_cannot_be_is_refused(lines: list[Any]) -> None:
    reader = ListingReader(BOUNDS)
    with pytest.raises(TreeRefused):
        reader.feed(b"".join(json.dumps(line).encode() + b"\n" for line in lines))


@pytest.mark.parametrize("data", [b"", b"[", b'["end",0]', b"[" * 60_000 + b"\n", b"x" * 70_000, b"1" * 50_000 + b"\n"])
def test_what_does_not_end_well_is_refused(data: bytes) -> None:
    with pytest.raises(TreeRefused):
        told([data])


def test_nobody_has_to_listen_to_ten_million_entries() -> None:
    endless = (json.dumps(["d", str(number), 0o755, 1]).encode() + b"\n" for number in range(10_000_000))
    with pytest.raises(TreeRefused) as refused:
        told(endless, TreeBounds(max_files=100, max_bytes=10))
    assert refused.value.code == "too_many_files"


def test_nobody_has_to_remember_hundreds_of_megabytes_of_names() -> None:
    links = (json.dumps(["l", str(number), "x" * 4000]).encode() + b"\n" for number in range(100_000))
    with pytest.raises(TreeRefused) as refused:
        told(links, TreeBounds(max_files=100_000, max_bytes=10))
    assert refused.value.code == "too_many_files"


def test_files_longer_than_allowed_in_all_are_refused() -> None:
    reader = ListingReader(TreeBounds(max_files=100, max_bytes=10))
    reader.feed(b'["f","a",420,6,1,1,1]\n')
    with pytest.raises(TreeRefused) as refused:
        reader.feed(b'["f","b",420,6,1,1,1]\n')
    assert refused.value.code == "workspace_too_large"
