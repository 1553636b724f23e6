"""Copies of threads: rows on a real Postgres with real agent state, and files on a real disk."""

import asyncio
import os
import socket
import stat
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from tests.conftest import AddUser
from tests.fake_agent import call, calls
from tests.integration.runs_harness import ALICE, APPROVE, Harbor, end_of, open_harbor, text_of, types

from moorage.adapters.postgres.copies import PostgresCopyStore
from moorage.adapters.postgres.pool import Database
from moorage.copies import Copies, ThreadBusy
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.sandboxes.workspace import WorkspaceNotCopied, Workspaces
from moorage.threads import SessionQuotaExceeded, Thread, ThreadNotFound

SCRIPT = {
    "delegate": [
        calls(call("task", "t1", description="look around", subagent_type="general-purpose")),
        calls(call("write_todos", "w1", todos=[{"content": "think", "status": "pending"}])),
        "delegated",
    ],
    "look around": [calls(call("ls", "s1", path="/")), "seen"],
    "risky": [calls(call("execute", "e1", command="rm -rf /")), "done it"],
    "more": ["here is more"],
}


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path / "workspaces", tmp_path / "shared")


@pytest.fixture(autouse=True)
async def _alice(add_user: AddUser) -> None:
    await add_user(ALICE)


def copies(database: Database, workspaces: Workspaces, *, quota: int = 0) -> Copies:
    return Copies(
        PostgresCopyStore(database, session_life=timedelta(hours=1)),
        quota=quota,
        copy_files=partial(asyncio.to_thread, workspaces.copy),
        remove_files=partial(asyncio.to_thread, workspaces.delete),
    )


async def history(harbor: Harbor, thread: Thread) -> list[tuple[int, str, str, str]]:
    found = await harbor.store.messages(ALICE, thread.thread_id, limit=100, after=0)
    return [(item.position, item.message.id, item.message.role.value, item.message.content) for item in found]


async def seen_by_model(harbor: Harbor, thread: Thread, text: str) -> list[tuple[str, str]]:
    """Say this, and answer what the model was shown."""
    assert end_of(await harbor.say(thread, text)) == "success"
    return [(message.type, message.text) for message in harbor.agent.model.seen[-1] if message.type != "system"]


# Rows ----------------------------------------------------------------------------------------------------------------


async def test_both_conversations_go_on_from_where_the_first_stood(database: Database, workspaces: Workspaces) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "delegate")
        before = await history(harbor, thread)
        copy = await harbor.thread(await copies(database, workspaces).copy(await harbor.thread(thread.thread_id)))
        assert await history(harbor, copy) == before
        theirs = await seen_by_model(harbor, copy, "more")
        assert theirs == await seen_by_model(harbor, thread, "more")
        assert ("human", "delegate") in theirs
        assert len(await history(harbor, copy)) == len(before) + 2


async def test_a_copy_is_a_thread_of_its_own(database: Database, workspaces: Workspaces) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "delegate")
        await harbor.threads.rename(thread, "first")
        thread = await harbor.thread(thread.thread_id)
        copy = await harbor.thread(await copies(database, workspaces).copy(thread))
        named = await harbor.thread(await copies(database, workspaces).copy(thread, title="other\x00 way"))
        assert (copy.title, copy.run_status.value, copy.status.value) == ("first", "idle", "active")
        assert (copy.message_count, copy.turn_count) == (thread.message_count, thread.turn_count)
        assert named.title == "other way"
        await harbor.threads.delete(thread)
        assert text_of(await harbor.say(copy, "more")) == "here is more"


async def test_the_first_event_of_a_copy_comes_after_its_messages(database: Database, workspaces: Workspaces) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "more")
        thread = await harbor.thread(thread.thread_id)
        copy = await harbor.thread(await copies(database, workspaces).copy(thread))
        assert copy.last_seq == thread.last_seq
        told = await harbor.say(copy, "more")
        assert told[0].seq == thread.last_seq + 1
        assert [event.seq for event in await harbor.log.read(copy.thread_id, after=copy.last_seq, limit=100)] == [
            event.seq for event in told
        ]


async def test_a_question_is_not_asked_in_the_copy_and_its_call_never_ran_there(
    database: Database, workspaces: Workspaces
) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        assert end_of(await harbor.say(thread, "risky")) == "interrupted"
        copy = await harbor.thread(await copies(database, workspaces).copy(await harbor.thread(thread.thread_id)))
        assert copy.run_status.value == "idle"
        assert await harbor.approvals.pending(ALICE, copy.thread_id) == []
        shown = await seen_by_model(harbor, copy, "more")
        assert [kind for kind, _ in shown] == ["human", "ai", "tool", "human"]
        assert "not run" in shown[2][1]
        assert harbor.sandbox.ran == []
        assert end_of(await harbor.told(thread, await harbor.answer(thread, e1=APPROVE))) == "success"
        assert harbor.sandbox.ran == ["rm -rf /"]


async def test_nothing_that_was_told_before_is_told_again_in_the_copy(
    database: Database, workspaces: Workspaces
) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "risky")
        copy = await harbor.thread(await copies(database, workspaces).copy(await harbor.thread(thread.thread_id)))
        told = await harbor.say(copy, "more")
        assert types(told).count("message_complete") == 1
        assert types(told).count("tool_call") == 0
        ids = [message_id for _, message_id, _, _ in await history(harbor, copy)]
        assert len(ids) == len(set(ids))


async def test_a_busy_thread_is_not_copied(database: Database, workspaces: Workspaces) -> None:
    async with open_harbor(database, SCRIPT, workers=0) as harbor:
        thread = await harbor.new_thread()
        await harbor.start(thread, "more")
        with pytest.raises(ThreadBusy):
            await copies(database, workspaces).copy(await harbor.thread(thread.thread_id))
        assert await harbor.store.count_active(ALICE) == 1


async def test_what_happens_while_files_are_copied_refuses_the_copy_and_leaves_nothing(
    database: Database, workspaces: Workspaces
) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        workspaces.open_workspace(thread.thread_id).path.joinpath("a").write_text("x")

        async def copy_slowly(source: ThreadId, target: ThreadId) -> None:
            workspaces.copy(source, target)
            await harbor.say(thread, "more")

        made = Copies(
            PostgresCopyStore(database, session_life=timedelta(0)),
            quota=0,
            copy_files=copy_slowly,
            remove_files=partial(asyncio.to_thread, workspaces.delete),
        )
        with pytest.raises(ThreadBusy):
            await made.copy(thread)
        assert await harbor.store.count_active(ALICE) == 1
        assert [path.name for path in workspaces.path(thread.thread_id).parent.iterdir()] == [thread.thread_id]


async def test_copies_count_in_the_quota(database: Database, workspaces: Workspaces) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        made = copies(database, workspaces, quota=3)
        tries = [made.copy(thread) for _ in range(5)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(outcome, SessionQuotaExceeded) for outcome in outcomes) == 3
        assert await harbor.store.count_active(ALICE) == 3


async def test_a_thread_that_is_gone_is_not_copied(database: Database, workspaces: Workspaces) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.threads.delete(thread)
        with pytest.raises(ThreadNotFound):
            await copies(database, workspaces).copy(thread)


# Files ---------------------------------------------------------------------------------------------------------------

OLD, NEW = new_thread_id(UserId("alice")), new_thread_id(UserId("alice"))


def test_files_are_copied_with_modes_owners_times_and_links(workspaces: Workspaces, tmp_path: Path) -> None:
    old = workspaces.open_workspace(OLD).path
    (old / "a" / "b").mkdir(parents=True)
    (old / "a" / "b" / "run.sh").write_text("#!/bin/sh\n")
    (old / "a" / "b" / "run.sh").chmod(0o751)
    (old / "a").chmod(0o2770)
    os.utime(old / "a" / "b" / "run.sh", ns=(1, 10**18))
    (old / "outside").symlink_to("/etc/passwd")
    (old / "folder").symlink_to("a/b")
    (old / "nowhere").symlink_to("gone")
    workspaces.copy(OLD, NEW)
    new = workspaces.path(NEW)
    copied = (new / "a" / "b" / "run.sh").stat()
    assert (stat.S_IMODE(copied.st_mode), copied.st_mtime_ns) == (0o751, 10**18)
    assert stat.S_IMODE((new / "a").stat().st_mode) == 0o2770
    assert (copied.st_uid, copied.st_gid) == ((old / "a/b/run.sh").stat().st_uid, (old / "a/b/run.sh").stat().st_gid)
    assert [os.readlink(new / name) for name in ("outside", "folder", "nowhere")] == ["/etc/passwd", "a/b", "gone"]
    assert (new.stat().st_mode, new.stat().st_uid) == (old.stat().st_mode, old.stat().st_uid)


def test_nothing_is_shared_with_the_copy(workspaces: Workspaces) -> None:
    old = workspaces.open_workspace(OLD).path
    (old / "one").write_text("same")
    os.link(old / "one", old / "two")
    workspaces.copy(OLD, NEW)
    new = workspaces.path(NEW)
    (old / "one").write_text("changed")
    assert [(new / name).read_text() for name in ("one", "two")] == ["same", "same"]
    assert (new / "one").stat().st_nlink == 1


def test_pipes_and_sockets_are_left_out_and_block_nothing(workspaces: Workspaces) -> None:
    old = workspaces.open_workspace(OLD).path
    os.mkfifo(old / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(old)  # a socket's path must be short
        listener.bind("socket")
        os.chdir(here)
        (old / "file").write_text("x")
        workspaces.copy(OLD, NEW)
    assert [path.name for path in workspaces.path(NEW).iterdir()] == ["file"]


def test_a_file_that_is_mostly_hole_costs_what_is_in_it(workspaces: Workspaces) -> None:
    old = workspaces.open_workspace(OLD).path
    with (old / "sparse").open("wb") as file:
        file.seek(2**40)
        file.write(b"end")
        file.truncate(2**40 + 2**30)
    workspaces.copy(OLD, NEW)
    copied = workspaces.path(NEW) / "sparse"
    assert copied.stat().st_size == 2**40 + 2**30
    assert copied.stat().st_blocks * 512 < 2**20
    with copied.open("rb") as file:
        file.seek(2**40)
        assert file.read(4) == b"end\0"


def test_a_workspace_that_was_never_used_has_no_copy(workspaces: Workspaces) -> None:
    workspaces.copy(OLD, NEW)
    assert not workspaces.path(NEW).exists()


def test_a_tree_without_end_is_refused_and_leaves_nothing(workspaces: Workspaces) -> None:
    deepest = workspaces.open_workspace(OLD).path
    for _ in range(120):
        deepest /= "d"
        deepest.mkdir()
    with pytest.raises(WorkspaceNotCopied, match="levels"):
        workspaces.copy(OLD, NEW)
    assert not workspaces.path(NEW).exists()


def test_a_link_in_the_place_of_the_workspace_is_not_followed(workspaces: Workspaces, tmp_path: Path) -> None:
    workspaces.open_workspace(NEW)
    workspaces.delete(NEW)
    (tmp_path / "secret").mkdir()
    workspaces.path(OLD).symlink_to(tmp_path / "secret")
    workspaces.copy(OLD, NEW)
    assert not workspaces.path(NEW).exists()
