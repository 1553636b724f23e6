"""Copies of threads: rows on a real Postgres with real agent state, and files on a real disk."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import AddUser
from tests.fake_agent import call, calls
from tests.folder_trees import FolderPlaces
from tests.integration.runs_harness import ALICE, APPROVE, Harbor, end_of, open_harbor, text_of, types

from moorage.adapters.postgres.busy_threads import BusyThreads
from moorage.adapters.postgres.checkpoint_reader import ThreadReader
from moorage.adapters.postgres.copies import PostgresCopyStore
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.snapshots import PostgresSnapshots
from moorage.adapters.snapshot_files import SnapshotFiles
from moorage.agent.states import States
from moorage.assistants import Assistant, get_assistant
from moorage.copies import Copies, ThreadBusy
from moorage.idempotency import request_key
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.runtime.snapshots import find_moment
from moorage.sandboxes.trees import TreeBounds, TreeRefused
from moorage.snapshots import CopiedFiles, SnapshotLimits, Snapshots
from moorage.threads import SessionChanges, SessionQuotaExceeded, Thread, ThreadNotFound, UnknownCheckpoint

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


@dataclass
class Yard:
    """Where copies are made: workspaces, and snapshots of them."""

    database: Database
    places: FolderPlaces
    snapshots: Snapshots

    def copies(self, harbor: Harbor, *, quota: int = 0) -> Copies:
        async def load(_owner: UserId, assistant_id: str) -> Assistant:
            return get_assistant(assistant_id)

        states = States(harbor.agent.agents, partial(ThreadReader, self.database), load, fallback=get_assistant("deep"))
        return Copies(
            PostgresCopyStore(self.database, session_life=timedelta(hours=1)),
            quota=quota,
            find_moment=partial(find_moment, states),
            copy_files=self.snapshots.copy_files,
            remove_files=self.places.delete,
        )

    async def copy(self, harbor: Harbor, thread: Thread, checkpoint_id: str | None = None, **more: Any) -> Thread:
        copied = await self.copies(harbor).copy(
            await harbor.thread(thread.thread_id), checkpoint_id=checkpoint_id, **more
        )
        return await harbor.thread(copied.thread_id)

    def write(self, thread: Thread, **files: str) -> None:
        for name, text in files.items():
            (self.places.make(thread.thread_id) / name).write_text(text)

    def files(self, thread: Thread) -> dict[str, str] | None:
        """None: it has no workspace."""
        path = self.places.path(thread.thread_id)
        return {file.name: file.read_text() for file in path.iterdir()} if path.is_dir() else None


@pytest.fixture
def yard(database: Database, tmp_path: Path) -> Yard:
    async def default(_: Thread) -> None:
        return None

    places = FolderPlaces(tmp_path / "workspaces")
    limits = SnapshotLimits(TreeBounds(max_files=100, max_bytes=2**30))
    files = SnapshotFiles(tmp_path / "snapshots")
    return Yard(database, places, Snapshots(PostgresSnapshots(database), files, places, limits, profile_of=default))


@pytest.fixture(autouse=True)
async def _alice(add_user: AddUser) -> None:
    await add_user(ALICE)


async def history(harbor: Harbor, thread: Thread) -> list[tuple[int, str, str, str]]:
    found = await harbor.store.messages(ALICE, thread.thread_id, limit=100, after=0)
    return [(item.position, item.message.id, item.message.role.value, item.message.content) for item in found]


async def seen_by_model(harbor: Harbor, thread: Thread, text: str) -> list[tuple[str, str]]:
    """Say this, and answer what the model was shown."""
    assert end_of(await harbor.say(thread, text)) == "success"
    return [(message.type, message.text) for message in harbor.agent.model.seen[-1] if message.type != "system"]


# Rows ----------------------------------------------------------------------------------------------------------------


async def test_both_conversations_go_on_from_where_the_first_stood(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "delegate")
        before = await history(harbor, thread)
        copy = await yard.copy(harbor, thread)
        assert await history(harbor, copy) == before
        theirs = await seen_by_model(harbor, copy, "more")
        assert theirs == await seen_by_model(harbor, thread, "more")
        assert ("human", "delegate") in theirs
        assert len(await history(harbor, copy)) == len(before) + 2


async def test_a_copy_is_a_thread_of_its_own(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "delegate")
        await harbor.threads.amend(thread, SessionChanges(title="first"))
        thread = await harbor.thread(thread.thread_id)
        copy = await yard.copy(harbor, thread)
        named = await yard.copy(harbor, thread, title="other\x00 way")
        assert (copy.title, copy.run_status.value, copy.status.value) == ("first", "idle", "active")
        assert (copy.message_count, copy.turn_count) == (thread.message_count, thread.turn_count)
        assert named.title == "other way"
        await harbor.threads.delete(thread)
        assert text_of(await harbor.say(copy, "more")) == "here is more"


async def test_the_first_event_of_a_copy_comes_after_its_messages(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "more")
        thread = await harbor.thread(thread.thread_id)
        copy = await yard.copy(harbor, thread)
        assert copy.last_seq == thread.last_seq
        told = await harbor.say(copy, "more")
        assert told[0].seq == thread.last_seq + 1
        assert [event.seq for event in await harbor.log.read(copy.thread_id, after=copy.last_seq, limit=100)] == [
            event.seq for event in told
        ]


async def test_a_question_is_not_asked_in_the_copy_and_its_call_never_ran_there(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        assert end_of(await harbor.say(thread, "risky")) == "interrupted"
        copy = await yard.copy(harbor, thread)
        assert copy.run_status.value == "idle"
        assert await harbor.approvals.pending(ALICE, copy.thread_id) == []
        shown = await seen_by_model(harbor, copy, "more")
        assert [kind for kind, _ in shown] == ["human", "ai", "tool", "human"]
        assert "not run" in shown[2][1]
        assert harbor.sandbox.ran == []
        assert end_of(await harbor.told(thread, await harbor.answer(thread, e1=APPROVE))) == "success"
        assert harbor.sandbox.ran == ["rm -rf /"]


async def test_nothing_that_was_told_before_is_told_again_in_the_copy(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "risky")
        copy = await yard.copy(harbor, thread)
        told = await harbor.say(copy, "more")
        assert types(told).count("message_complete") == 1
        assert types(told).count("tool_call") == 0
        ids = [message_id for _, message_id, _, _ in await history(harbor, copy)]
        assert len(ids) == len(set(ids))


async def test_a_busy_thread_is_not_copied(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT, workers=0) as harbor:
        thread = await harbor.new_thread()
        await harbor.start(thread, "more")
        with pytest.raises(ThreadBusy):
            await yard.copy(harbor, thread)
        assert await harbor.store.count_active(ALICE) == 1


async def test_what_happens_while_files_are_copied_refuses_the_copy_and_leaves_nothing(
    database: Database, yard: Yard
) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        yard.write(thread, a="x")
        for moment in ("list", "plant"):

            async def meanwhile(moment: str = moment) -> None:
                if yard.places.asked[-1] == moment:
                    await harbor.say(thread, "more")

            yard.places.meanwhile = meanwhile
            with pytest.raises(ThreadBusy):
                await yard.copies(harbor).copy(await harbor.thread(thread.thread_id))
            assert await harbor.store.count_active(ALICE) == 1
            assert [path.name for path in yard.places.root.iterdir()] == [thread.thread_id]


async def test_copies_count_in_the_quota(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        made = yard.copies(harbor, quota=3)
        tries = [made.copy(thread) for _ in range(5)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(outcome, SessionQuotaExceeded) for outcome in outcomes) == 3
        assert await harbor.store.count_active(ALICE) == 3


async def test_a_thread_that_is_gone_is_not_copied(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.threads.delete(thread)
        with pytest.raises(ThreadNotFound):
            await yard.copies(harbor).copy(thread)


# Files ---------------------------------------------------------------------------------------------------------------


async def test_a_copy_has_the_files_of_now_and_shares_none(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        yard.write(thread, one="same", two="same")
        copied = await yard.copies(harbor).copy(thread)
        copy = await harbor.thread(copied.thread_id)
        yard.write(thread, one="changed")
        assert copied.files is CopiedFiles.CURRENT
        assert yard.files(copy) == {"one": "same", "two": "same"}
        assert yard.places.asked[-1] == "release"


async def test_a_thread_that_never_had_files_starts_no_sandbox_for_its_copy(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "more")
        copied = await yard.copies(harbor).copy(await harbor.thread(thread.thread_id))
        assert copied.files is CopiedFiles.NONE
        assert yard.places.asked == []


async def test_files_that_cannot_be_copied_refuse_the_copy_and_leave_nothing(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        yard.write(thread, **{f"file{number}": "" for number in range(101)})
        with pytest.raises(TreeRefused):
            await yard.copies(harbor).copy(thread)
        assert await harbor.store.count_active(ALICE) == 1
        assert [path.name for path in yard.places.root.iterdir()] == [thread.thread_id]


@pytest.mark.parametrize("fails", [False, True])
async def test_nobody_takes_the_sandbox_of_a_copy_that_is_being_made_for_an_orphan(
    database: Database, yard: Yard, fails: bool
) -> None:
    """It has no row yet, and whoever clears up is another process, perhaps."""
    threads, seen = BusyThreads(database), list[ThreadId]()

    async def meanwhile() -> None:
        if yard.places.asked[-1] != "plant":
            return
        [target] = {ThreadId(path.name) for path in yard.places.root.iterdir()} - {thread.thread_id}
        assert await threads.existing([target]) == {target}
        async with threads.hold_idle([target]) as idle:
            assert idle == set()
        seen.append(target)
        if fails:
            raise TreeRefused("no")

    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        yard.write(thread, a="x")
        yard.places.meanwhile = meanwhile
        with pytest.raises(TreeRefused) if fails else nullcontext():
            await yard.copies(harbor).copy(thread)
        [target] = seen
        assert await threads.existing([target]) == (set() if fails else {target})
        async with threads.hold_idle([target]) as idle:
            assert idle == {target}


async def test_a_copy_that_died_with_its_server_is_an_orphan_after_a_while(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread, target = await harbor.new_thread(), new_thread_id(ALICE)
        store = PostgresCopyStore(database, session_life=timedelta(hours=1))
        await store.announce(thread, target)
        threads = BusyThreads(database)
        assert await threads.existing([target]) == {target}
        async with database.tenant_transaction(ALICE) as connection:
            await connection.execute("UPDATE coming_threads SET until = now()")
        assert await threads.existing([target]) == set()
        await store.announce(thread, other := new_thread_id(ALICE))
        found = await database.tenant_rows(ALICE, "SELECT thread_id FROM coming_threads", [])
        assert [row["thread_id"] for row in found] == [other]


async def test_who_goes_away_while_files_are_planted_leaves_nothing(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        yard.write(thread, a="x")
        planting = asyncio.Event()

        async def meanwhile() -> None:
            if yard.places.asked[-1] == "plant":
                planting.set()
                await asyncio.Event().wait()

        yard.places.meanwhile = meanwhile
        copying = asyncio.create_task(yard.copies(harbor).copy(thread))
        await planting.wait()
        copying.cancel()
        await asyncio.wait([copying])
        assert [path.name for path in yard.places.root.iterdir()] == [thread.thread_id]


# Moments of the past -------------------------------------------------------------------------------------------------


async def checkpoints(harbor: Harbor, thread: Thread) -> Sequence[str]:
    """The root's, oldest first."""
    query = "SELECT checkpoint_id FROM checkpoints WHERE thread_id = %s AND checkpoint_ns = '' ORDER BY checkpoint_id"
    return [row["checkpoint_id"] for row in await harbor.database.tenant_rows(ALICE, query, [thread.thread_id])]


async def latest(harbor: Harbor, thread: Thread) -> str:
    return (await checkpoints(harbor, thread))[-1]


async def test_a_fork_knows_what_was_known_then_and_nothing_later(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "delegate")
        before, point = await history(harbor, thread), await latest(harbor, thread)
        counted = await harbor.thread(thread.thread_id)
        await harbor.say(thread, "more")
        await harbor.say(thread, "risky")
        fork = await yard.copy(harbor, thread, point)
        assert await history(harbor, fork) == before
        assert (fork.message_count, fork.turn_count) == (counted.message_count, counted.turn_count)
        assert (fork.run_status.value, fork.last_seq) == ("idle", (await harbor.thread(thread.thread_id)).last_seq)
        assert await latest(harbor, fork) == point
        plain = await harbor.new_thread()
        await harbor.say(plain, "delegate")
        assert [text for _, text in await seen_by_model(harbor, fork, "more")] == [
            text for _, text in await seen_by_model(harbor, plain, "more")
        ]


async def test_every_checkpoint_of_a_history_can_be_forked_and_goes_on(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        for text in ("delegate", "more", "delegate"):
            await harbor.say(thread, text)
        whole = await history(harbor, thread)
        for point in await checkpoints(harbor, thread):
            fork = await yard.copy(harbor, thread, point)
            kept = await history(harbor, fork)
            assert kept == whole[: len(kept)]
            assert fork.message_count == len(kept)
            shown = await seen_by_model(harbor, fork, "more")
            assert shown[-1] == ("human", "more")
            asked = sum(len(message.tool_calls) for message in harbor.agent.model.seen[-1] if message.type == "ai")
            assert asked == sum(kind == "tool" for kind, _ in shown), "no call is without a result"
            ids = [message_id for _, message_id, _, _ in await history(harbor, fork)]
            assert len(ids) == len(set(ids))


async def test_calls_that_were_open_then_count_as_never_run_in_the_fork(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        assert end_of(await harbor.say(thread, "risky")) == "interrupted"
        point = await latest(harbor, thread)
        assert end_of(await harbor.told(thread, await harbor.answer(thread, e1=APPROVE))) == "success"
        assert harbor.sandbox.ran == ["rm -rf /"]
        fork = await yard.copy(harbor, thread, point)
        assert await harbor.approvals.pending(ALICE, fork.thread_id) == []
        shown = await seen_by_model(harbor, fork, "more")
        assert [kind for kind, _ in shown] == ["human", "ai", "tool", "human"]
        assert "not run" in shown[2][1]
        assert harbor.sandbox.ran == ["rm -rf /"]


async def test_a_fork_at_the_latest_checkpoint_is_a_copy(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "more")
        yard.write(thread, a="old")
        await yard.snapshots.take(await harbor.thread(thread.thread_id))
        yard.write(thread, a="now")
        copied = await yard.copies(harbor).copy(
            await harbor.thread(thread.thread_id), checkpoint_id=await latest(harbor, thread)
        )
        assert copied.files is CopiedFiles.CURRENT
        assert yard.files(await harbor.thread(copied.thread_id)) == {"a": "now"}


async def test_a_fork_has_the_files_of_the_newest_snapshot_of_its_past(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        points: list[str] = []
        for text in ("one", "two", "three"):
            await harbor.say(thread, "more")
            points.append(await latest(harbor, thread))
            yard.write(thread, a=text)
            if text != "two":
                await yard.snapshots.take(await harbor.thread(thread.thread_id))
        await harbor.say(thread, "more")
        for point, text in zip(points, ("one", "one", "three"), strict=True):
            copied = await yard.copies(harbor).copy(await harbor.thread(thread.thread_id), checkpoint_id=point)
            assert copied.files is CopiedFiles.SNAPSHOT
            assert yard.files(await harbor.thread(copied.thread_id)) == {"a": text}


async def test_a_fork_without_a_snapshot_of_its_past_begins_with_no_files(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "more")
        point = await latest(harbor, thread)
        await harbor.say(thread, "more")
        yard.write(thread, a="later")
        await yard.snapshots.take(await harbor.thread(thread.thread_id))
        copied = await yard.copies(harbor).copy(await harbor.thread(thread.thread_id), checkpoint_id=point)
        assert copied.files is CopiedFiles.NONE
        assert yard.files(await harbor.thread(copied.thread_id)) is None


async def test_a_copy_has_the_snapshots_of_its_past_which_outlive_the_original(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "more")
        point = await latest(harbor, thread)
        yard.write(thread, a="then")
        await yard.snapshots.take(await harbor.thread(thread.thread_id))
        await harbor.say(thread, "more")
        yard.write(thread, a="now")
        copy = await yard.copy(harbor, thread)
        await yard.snapshots.forget(ALICE, thread.thread_id)
        await yard.snapshots.collect()
        fork = await yard.copy(harbor, copy, point)
        assert yard.files(fork) == {"a": "then"}
        [snapshot] = (await yard.snapshots.search(fork, limit=10, cursor=None)).items
        assert (snapshot.checkpoint_id, snapshot.thread_id) == (point, fork.thread_id)


async def test_what_is_no_checkpoint_of_the_thread_cannot_be_forked(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread, other = await harbor.new_thread(), await harbor.new_thread()
        for each in (thread, other):
            await harbor.say(each, "more")
        for wrong in (await latest(harbor, other), "nonsense", "\x00"):
            with pytest.raises(UnknownCheckpoint):
                await yard.copy(harbor, thread, wrong)


async def test_a_request_that_is_repeated_answers_with_its_copy_and_files(database: Database, yard: Yard) -> None:
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        yard.write(thread, a="x")
        request = request_key("k", "copy", thread.thread_id)
        made = yard.copies(harbor)
        first = await made.copy(thread, request=request)
        assert await made.copy(thread, request=request) == first
        again = await asyncio.gather(*(made.copy(thread, request=request_key("l", "copy")) for _ in range(4)))
        assert len(set(again)) == 1
        assert len(list(yard.places.root.iterdir())) == 3
