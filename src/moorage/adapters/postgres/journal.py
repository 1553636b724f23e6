"""The journal of tool calls in Postgres, as one claimed run reads and writes it."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from moorage.adapters.postgres.interrupts import load_decided
from moorage.adapters.postgres.patience import patiently
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.rules import active_rules
from moorage.agent.journal import Call, CallKey, CallStarted, CallState, Entry, Resolve
from moorage.approvals import Interrupt
from moorage.claims import Claim, ClaimLost
from moorage.events import encode
from moorage.ids import RunId, ThreadId
from moorage.rules import FILE_TOOLS, Match, Verdict, judge
from moorage.runs.run import ClaimedRun

type Row = dict[str, Any]

# The fence and more: from here on the run is this worker's for a whole lease, well within which the tool must start.
_RENEW = """
UPDATE runs SET lease_expires_at = now() + %s WHERE run_id = %s AND generation = %s AND status = 'running'
RETURNING run_id
"""
_PART_OF_LEASE = 0.8

# The latest message that a worker took, and what was answered since.
_TURN = """
SELECT run_id FROM runs WHERE thread_id = %(thread)s AND queue_no >= COALESCE((
    SELECT max(queue_no) FROM runs WHERE thread_id = %(thread)s AND kind = 'message' AND started_at IS NOT NULL), 0)
"""

_COLUMNS = "checkpoint_ns, message_id, position, tool_call_id, tool, state, result"

_OF_RUNS = f"SELECT {_COLUMNS} FROM tool_calls WHERE thread_id = %s AND run_id = ANY(%s)"  # noqa: S608

_OF_MESSAGES = f"""
SELECT {_COLUMNS} FROM tool_calls WHERE thread_id = %s AND checkpoint_ns = '' AND message_id = ANY(%s)
"""  # noqa: S608 -- constant columns

_OF_CALL = f"""
SELECT {_COLUMNS} FROM tool_calls
WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND message_id = %(message)s AND position = %(position)s
"""  # noqa: S608 -- constant columns

_TOLD = """
SELECT data::jsonb ->> 'message_id' AS id FROM run_events
WHERE thread_id = %s AND run_id = ANY(%s) AND type = 'tool_result'
"""

_TOLD_OF = "SELECT id FROM messages WHERE thread_id = %s AND id = ANY(%s)"

# Nothing comes back when somebody else's row is there. One's own, of a commit whose answer was lost, is found again.
# A row of generation 0 says that nobody would decide on the call any more: it never ran, and now somebody has decided.
_START = """
INSERT INTO tool_calls (thread_id, checkpoint_ns, message_id, position, owner_id, run_id, generation, tool_call_id,
    tool, args, state)
VALUES (%(thread)s, %(ns)s, %(message)s, %(position)s, %(owner)s, %(run)s, %(generation)s, %(call)s, %(tool)s,
    %(args)s, 'started')
ON CONFLICT (thread_id, checkpoint_ns, message_id, position) DO UPDATE
    SET run_id = EXCLUDED.run_id, generation = EXCLUDED.generation, tool_call_id = EXCLUDED.tool_call_id,
        args = EXCLUDED.args, state = 'started', result = NULL, finished_at = NULL,
        started_at = CASE WHEN tool_calls.generation = 0 THEN now() ELSE tool_calls.started_at END
    WHERE tool_calls.generation = 0 OR %(again)s AND tool_calls.run_id = EXCLUDED.run_id
    AND tool_calls.generation = EXCLUDED.generation AND tool_calls.state = 'started'
RETURNING state
"""

_FINISH = """
INSERT INTO tool_calls (thread_id, checkpoint_ns, message_id, position, owner_id, run_id, generation, tool_call_id,
    tool, args, state, result, finished_at)
VALUES (%(thread)s, %(ns)s, %(message)s, %(position)s, %(owner)s, %(run)s, %(generation)s, %(call)s, %(tool)s,
    %(args)s, %(state)s, %(result)s, now())
ON CONFLICT (thread_id, checkpoint_ns, message_id, position) DO UPDATE
    SET state = EXCLUDED.state, result = EXCLUDED.result, finished_at = now()
"""

_WITHDRAW = """
DELETE FROM tool_calls WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND message_id = %(message)s
    AND position = %(position)s AND run_id = %(run)s AND generation = %(generation)s AND state = 'started'
"""


class PostgresJournal:
    """`moorage.agent.journal.Journal` on Postgres."""

    def __init__(
        self,
        database: Database,
        claim: Claim,
        *,
        lease: timedelta,
        entries: Mapping[CallKey, Entry],
        asked: Mapping[CallKey, Interrupt],
        told: frozenset[str],
    ) -> None:
        self._database = database
        self._claim = claim
        self._lease = lease
        self._entries = entries
        self._asked = asked
        self._told = told

    @property
    def thread_id(self) -> ThreadId:
        return self._claim.thread_id

    @property
    def told(self) -> frozenset[str]:
        return self._told

    def find(self, key: CallKey) -> Entry | None:
        return self._entries.get(key)

    def asked(self, key: CallKey) -> Interrupt | None:
        return self._asked.get(key)

    async def told_of(self, message_ids: Sequence[str]) -> set[str]:
        async def read() -> list[Row]:
            async with self._database.tenant_pipeline(self._claim.owner_id) as connection:
                found = await connection.execute(_TOLD_OF, [self._claim.thread_id, list(message_ids)])
                return await found.fetchall()

        return {row["id"] for row in await patiently(read)}

    async def of_messages(self, message_ids: Sequence[str]) -> list[Entry]:
        async def read() -> list[Row]:
            async with self._database.tenant_pipeline(self._claim.owner_id) as connection:
                found = await connection.execute(_OF_MESSAGES, [self._claim.thread_id, list(message_ids)])
                return await found.fetchall()

        return [_entry(row) for row in await patiently(read)]

    async def judge(self, tool: str, args: Mapping[str, Any], *, resolve: Resolve) -> Verdict | None:
        async def read() -> list[Any]:
            async with self._database.tenant_pipeline(self._claim.owner_id) as connection:
                return await active_rules(connection, self._claim.thread_id)

        rules = [rule for rule in await patiently(read) if rule.tool == tool]
        path = args.get("file_path")
        by_path = tool in FILE_TOOLS and any(rule.match is Match.PATH for rule in rules)
        resolved = await resolve(path) if by_path and isinstance(path, str) else None
        return judge(rules, tool, dict(args), resolved)

    async def start(self, call: Call) -> float:
        tries, asked_at = 0, 0.0

        async def insert() -> Row | None:
            nonlocal tries, asked_at
            tries, asked_at = tries + 1, time.monotonic()
            async with self._database.tenant_pipeline(self._claim.owner_id) as connection:
                renewed = await connection.execute(_RENEW, [self._lease, self._claim.run_id, self._claim.generation])
                started = await connection.execute(_START, {**self._values(call), "again": tries > 1})
                if await renewed.fetchone() is None:
                    raise ClaimLost("This run is not this worker's any more")
                return await started.fetchone()

        if await patiently(insert) is None:
            raise CallStarted(await self._read(call))
        return asked_at + self._lease.total_seconds() * _PART_OF_LEASE

    async def _read(self, call: Call) -> Entry:
        async def read() -> list[Row]:
            async with self._database.tenant_pipeline(self._claim.owner_id) as connection:
                return await (await connection.execute(_OF_CALL, self._values(call))).fetchall()

        rows = await patiently(read)
        return _entry(rows[0]) if rows else Entry(call.key, call.tool_call_id, call.tool, CallState.STARTED)

    async def finish(self, call: Call, state: CallState, result: Mapping[str, Any]) -> None:
        values = {**self._values(call), "state": state.value, "result": Jsonb(dict(result), dumps=encode)}

        async def upsert() -> None:
            async with self._database.tenant_pipeline(self._claim.owner_id, hold=self._claim) as connection:
                await connection.execute(_FINISH, values)

        await patiently(upsert)

    async def withdraw(self, call: Call) -> None:
        async def delete() -> None:
            async with self._database.tenant_pipeline(self._claim.owner_id, hold=self._claim) as connection:
                await connection.execute(_WITHDRAW, self._values(call))

        await patiently(delete)

    def _values(self, call: Call) -> dict[str, Any]:
        return {
            "thread": self._claim.thread_id,
            "owner": self._claim.owner_id,
            "run": self._claim.run_id,
            "generation": self._claim.generation,
            "ns": call.key.checkpoint_ns,
            "message": call.key.message_id,
            "position": call.key.position,
            "call": call.tool_call_id,
            "tool": call.tool,
            "args": Jsonb(dict(call.args), dumps=encode),
        }


async def open_journal(database: Database, run: ClaimedRun, *, lease: timedelta) -> PostgresJournal:
    """The journal for a claimed run. For a fresh one there is nothing to read: no call of its turn was made yet."""
    claim = run.claim
    if run.fresh:
        return PostgresJournal(database, claim, lease=lease, entries={}, asked={}, told=frozenset())

    async def read() -> PostgresJournal:
        async with database.tenant_pipeline(claim.owner_id) as connection:
            turn = await (await connection.execute(_TURN, {"thread": claim.thread_id})).fetchall()
            runs = [RunId(str(row["run_id"])) for row in turn]
            rows = await (await connection.execute(_OF_RUNS, [claim.thread_id, runs])).fetchall()
            asked = await load_decided(connection, claim.thread_id, runs)
            told = await (await connection.execute(_TOLD, [claim.thread_id, runs])).fetchall()
        return PostgresJournal(
            database,
            claim,
            lease=lease,
            entries={(entry := _entry(row)).key: entry for row in rows},
            asked={CallKey(item.checkpoint_ns, item.message_id, item.position): item.interrupt for item in asked},
            told=frozenset(row["id"] for row in told if row["id"]),
        )

    return await patiently(read)


def _entry(row: Row) -> Entry:
    key = CallKey(row["checkpoint_ns"], row["message_id"], row["position"])
    return Entry(key, row["tool_call_id"], row["tool"], CallState(row["state"]), row["result"])
