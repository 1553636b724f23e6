import hashlib
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.agent.changes import (
    MAX_DIFF_BYTES,
    MAX_TEXT_BYTES,
    change_inspector,
    file_hash,
    inspect_change,
    unified_diff,
)
from moorage.approvals import Change
from moorage.ids import ThreadId
from moorage.sandboxes.port import PathError

PATH = "/workspace/a.txt"
texts = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "d"]), max_size=12).map("".join)


async def change(present: bytes | None, tool: str = "write_file", **args: Any) -> Change:
    async def read(path: str) -> bytes | None:
        assert path == PATH
        return present

    found = await inspect_change(read, tool, {"file_path": PATH, **args})
    assert found is not None
    return found


async def edit(present: bytes | None, old: str, new: str, **args: Any) -> Change:
    return await change(present, "edit_file", old_string=old, new_string=new, **args)


async def test_a_new_file_comes_from_nothing() -> None:
    found = await change(None, content="one\ntwo\n")
    assert found == Change("absent", "--- /dev/null\n+++ b/workspace/a.txt\n@@ -0,0 +1,2 @@\n+one\n+two\n", None)


async def test_an_overwritten_file_shows_the_lines_that_change_and_its_hash() -> None:
    found = await change(b"one\ntwo\nthree\n", content="one\n2\nthree\n")
    assert found.base_file_hash == hashlib.sha256(b"one\ntwo\nthree\n").hexdigest()
    assert found.diff == ("--- a/workspace/a.txt\n+++ b/workspace/a.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n")


async def test_the_same_content_is_told_as_such() -> None:
    found = await change(b"same\n", content="same\n")
    assert (found.diff, found.note) == ("", "The file already holds exactly this")


@pytest.mark.parametrize(
    ("present", "old", "new", "options", "expected"),
    [
        (b"a b a", "b", "c", {}, "a c a"),
        (b"a b a", "a", "c", {"replace_all": True}, "c b c"),
        (b"x\r\ny\r\n", "x\ny", "1\n2", {}, "1\r\n2\r\n"),
        (b"x\ny\n", "x\r\ny", "1\r\n2", {}, "1\n2\n"),
    ],
)
async def test_an_edit_is_shown_as_the_sandbox_will_do_it(
    present: bytes, old: str, new: str, options: dict[str, Any], expected: str
) -> None:
    found = await edit(present, old, new, **options)
    assert found.diff == unified_diff(PATH, present.decode(), expected)


@pytest.mark.parametrize(
    ("present", "old", "note"),
    [
        (b"abc", "x", "old_string is not in the file"),
        (b"a a", "a", "old_string occurs 2 times, and replace_all is not set"),
        (b"abc", "", "old_string is empty"),
        (None, "x", "there is no such file"),
    ],
)
async def test_an_edit_that_will_fail_says_so(present: bytes | None, old: str, note: str) -> None:
    found = await edit(present, old, "new")
    assert (found.diff, found.note) == (None, f"The edit will fail: {note}")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\x00b", b"x" * (MAX_TEXT_BYTES + 1)])
async def test_a_file_without_a_diff_is_still_bound_by_its_hash(content: bytes) -> None:
    found = await change(content, content="new")
    assert found.base_file_hash == hashlib.sha256(content).hexdigest()
    assert found.diff is None
    assert found.note


async def test_an_edit_that_would_blow_up_is_not_carried_out_to_be_shown() -> None:
    found = await edit(b"a" * 1_000_000, "a", "b" * 200_000, replace_all=True)
    assert found.diff is None
    assert "larger" in (found.note or "")


async def test_what_cannot_be_read_is_told() -> None:
    async def read(path: str) -> bytes | None:
        raise PathError("no", code="is_directory")

    found = await inspect_change(read, "write_file", {"file_path": "/workspace", "content": ""})
    assert found is not None
    assert (found.base_file_hash, found.diff) == ("unreadable", None)
    assert "is_directory" in (found.note or "")
    assert await file_hash(read, "/workspace") == "unreadable"


async def test_a_path_that_the_tool_refuses_is_not_read() -> None:
    async def read(path: str) -> bytes | None:
        raise AssertionError(path)

    found = await inspect_change(read, "write_file", {"file_path": "/workspace/../etc/passwd", "content": ""})
    assert found is not None
    assert found.base_file_hash == "unreadable"


@pytest.mark.parametrize("tool", ["execute", "delete", "read_file"])
async def test_other_tools_have_no_change_to_show(tool: str) -> None:
    async def read(path: str) -> bytes | None:
        raise AssertionError(path)

    assert await inspect_change(read, tool, {"file_path": PATH}) is None


async def test_the_inspector_reads_in_the_thread_that_asks() -> None:
    asked: list[tuple[str, str]] = []

    async def read(thread_id: ThreadId, path: str) -> bytes | None:
        asked.append((thread_id, path))
        return b"x"

    await change_inspector(read)(ThreadId("t"), "write_file", {"file_path": PATH, "content": "y"})
    assert asked == [("t", PATH)]


async def test_a_long_diff_is_cut_at_a_line_and_says_so() -> None:
    found = await change(None, content="x" * 99 + "\n" + ("y" * 99 + "\n") * 2000)
    assert len((found.diff or "").encode()) <= MAX_DIFF_BYTES
    assert (found.diff or "").endswith("y\n")
    assert "cut" in (found.note or "")


def test_the_header_keeps_to_its_line() -> None:
    assert unified_diff("/a\n+++ b/evil\u202e", "", "x\n").splitlines()[:2] == [
        "--- a/a?+++ b/evil?",
        "+++ b/a?+++ b/evil?",
    ]


@given(texts, texts)
def test_a_diff_leads_from_one_text_to_the_other(before: str, after: str) -> None:
    assert patched(before, unified_diff("/f", before, after)) == after


def test_a_large_change_is_shown_quickly_and_right() -> None:
    before = "".join(f"{number}\n" for number in range(20_000))
    after = "top\n" + "".join(f"{number}\n" for number in reversed(range(20_000))) + "end"
    began = time.monotonic()
    diff = unified_diff("/f", before, after)
    assert time.monotonic() - began < 2
    assert patched(before, diff) == after


@pytest.mark.skipif(shutil.which("patch") is None, reason="no patch program")
@pytest.mark.parametrize(("before", "after"), [("a\nb\n" * 50, "a\nb\n" * 20 + "c" + "a\nb\n" * 30), ("a", "a\n")])
def test_the_patch_program_reads_it(tmp_path: Path, before: str, after: str) -> None:
    (tmp_path / "f").write_text(before)
    subprocess.run(["patch", "-p1"], cwd=tmp_path, input=unified_diff("/f", before, after), text=True, check=True)
    assert (tmp_path / "f").read_text() == after


def patched(before: str, diff: str) -> str:
    """Apply a unified diff by its line numbers."""
    old = before.split("\n")
    old = [line + "\n" for line in old[:-1]] + ([old[-1]] if old[-1] else [])
    out: list[str] = []
    at, last = 0, ""
    lines = re.split(r"(?<=\n)", diff)
    for line in lines[2:]:
        if header := re.match(r"@@ -(\d+)(?:,(\d+))? ", line):
            start = int(header[1]) - (header[2] != "0")
            out += old[at:start]
            at = start
        elif line.startswith("\\"):
            out[-1:] = [out[-1].removesuffix("\n")] if last != "-" else out[-1:]
        elif line:
            last = line[0]
            if last in " -":
                assert old[at].removesuffix("\n") == line[1:].removesuffix("\n")
                at += 1
            if last in " +":
                out.append(line[1:])
    return "".join(out + old[at:])
