"""Who agents are: a uid per thread and a gid per user; and each thread's newest fencing token and short log.

A SQLite file beside the folders, because it belongs to them: whoever has the folders has it, and no database is needed.
Several processes share it. Where it knows nothing of a folder that is there, it believes the folder.
"""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moorage.adapters.folders.layout import find_place, places_on_disk, thread_owner
from moorage.errors import InvalidInput
from moorage.ids import ThreadId, UserId
from moorage.sandboxes.port import AgentIdentity, SandboxUnavailable, StaleClaim

_SMALLEST_UID = 10_000
_FEWEST_UIDS = 1000
_NOBODY = 65534
_BUSY_SECONDS = 30.0
_UNUSED_SECONDS = 3600  # after which an identity whose folder never came is free again
_KEPT_NOTES = 50
_LONGEST_NOTE = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS places
    (place TEXT PRIMARY KEY, owner TEXT NOT NULL, uid INTEGER NOT NULL UNIQUE, since INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS users (owner TEXT PRIMARY KEY, gid INTEGER NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS claims (thread_id TEXT PRIMARY KEY, token INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS notes
    (id INTEGER PRIMARY KEY, thread_id TEXT NOT NULL, at TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS notes_of_thread ON notes (thread_id, id);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


class NoIdentityLeft(SandboxUnavailable):
    """Every number of the range belongs to a thread or a user."""

    code = "no_identity_left"


def uid_range(text: str) -> range:
    """What SANDBOX_UID_RANGE says, `first-last`; raises InvalidInput unless it is 1000 ids or more, from 10000 on."""
    first, _, last = (part.strip() for part in text.partition("-"))
    if not (first.isdecimal() and last.isdecimal() and first.isascii() and last.isascii()):
        raise InvalidInput("SANDBOX_UID_RANGE must be two numbers, such as 200000-265535")
    uids = range(int(first), int(last) + 1)
    if _NOBODY in uids:
        raise InvalidInput(f"SANDBOX_UID_RANGE must not hold {_NOBODY}: the first process of each sandbox has it")
    if len(uids) < _FEWEST_UIDS or uids.start < _SMALLEST_UID or uids.stop > 2**31:
        raise InvalidInput(f"SANDBOX_UID_RANGE must hold {_FEWEST_UIDS} ids or more, none below {_SMALLEST_UID}")
    return uids


class Registry:
    """Durable, and shared by the processes that use the same folders. All calls block; threads may share one.

    `uids` are for uids and gids, and no number is both: so each also names one project of a quota. `everyone`, when
    set, is who every agent is: a server that is not root can give no other.
    """

    def __init__(self, path: Path, *, uids: range, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.everyone: AgentIdentity | None = None
        self.uids = uids
        self._path = path.absolute()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    def identity(self, thread_id: ThreadId) -> AgentIdentity:
        """The thread's uid and its owner's gid, given once. Raises NoIdentityLeft."""
        return self.identity_of(thread_id, thread_owner(thread_id))

    def identity_of(self, place: str, owner: UserId) -> AgentIdentity:
        """The same for a place of any name."""
        if self.everyone is not None:
            return self.everyone
        known = self._rows("SELECT uid, gid FROM places JOIN users USING (owner) WHERE place = ?", place)
        if known:
            return AgentIdentity(*known[0])
        with self._changing() as connection:
            found = find_place(self._path.parent, owner, place)
            gid = self._gid(connection, owner, found and found.gid)
            return AgentIdentity(self._uid(connection, place, owner, found and found.uid), gid)

    def gid(self, owner: UserId, *, found: int | None = None) -> int:
        """The user's gid, given once; `found` is what a folder of theirs has, for when nothing is known of them."""
        if self.everyone is not None:
            return self.everyone.gid
        known = self._rows("SELECT gid FROM users WHERE owner = ?", owner)
        if known:
            return known[0][0]
        with self._changing() as connection:
            return self._gid(connection, owner, found)

    def rename(self, place: str, new: str) -> None:
        """Make the identity of `place` that of `new`, which has no folder."""
        with self._changing() as connection:
            connection.execute("DELETE FROM places WHERE place = ?", (new,))
            connection.execute("UPDATE places SET place = ? WHERE place = ?", (new, place))

    def admit(self, thread_id: ThreadId, token: int | None) -> None:
        """Let the claim `token` act on the thread; raises StaleClaim when a newer one has asked before."""
        if token is None:
            return
        known = self._rows("SELECT token FROM claims WHERE thread_id = ?", thread_id)
        newest: int = known[0][0] if known else -1
        if token > newest:
            with self._changing() as connection:
                (newest,) = connection.execute(
                    "INSERT INTO claims VALUES (?, ?)"
                    " ON CONFLICT DO UPDATE SET token = max(token, excluded.token) RETURNING token",
                    (thread_id, token),
                ).fetchone()
        if token < newest:
            raise StaleClaim("Another worker has taken this run over")

    def note(self, thread_id: ThreadId, text: str) -> None:
        """Remember what happened to the thread's sandbox; the newest 50 notes are kept."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        clean = "".join(sign for sign in text if sign.isprintable())[:_LONGEST_NOTE]
        with self._changing() as connection:
            connection.execute("INSERT INTO notes (thread_id, at, text) VALUES (?, ?, ?)", (thread_id, now, clean))
            connection.execute(
                "DELETE FROM notes WHERE thread_id = ?1 AND id NOT IN"
                " (SELECT id FROM notes WHERE thread_id = ?1 ORDER BY id DESC LIMIT ?2)",
                (thread_id, _KEPT_NOTES),
            )

    def log(self, thread_id: ThreadId) -> list[str]:
        """The notes with their times in UTC, oldest first."""
        rows = self._rows("SELECT at, text FROM notes WHERE thread_id = ? ORDER BY id", thread_id)
        return [f"{at} {text}" for at, text in rows]

    def forget(self, thread_id: ThreadId | str) -> None:
        """The thread and its folder are gone. Its uid is another's once all others of the range were used."""
        if not self._rows(
            "SELECT 1 FROM places WHERE place = ?1 UNION ALL SELECT 1 FROM claims WHERE thread_id = ?1"
            " UNION ALL SELECT 1 FROM notes WHERE thread_id = ?1 LIMIT 1",
            thread_id,
        ):
            return
        with self._changing() as connection:
            connection.execute("DELETE FROM places WHERE place = ?", (thread_id,))
            connection.execute("DELETE FROM claims WHERE thread_id = ?", (thread_id,))
            connection.execute("DELETE FROM notes WHERE thread_id = ?", (thread_id,))

    def forget_user(self, owner: UserId) -> None:
        """The user and all their folders are gone."""
        with self._changing() as connection:
            connection.execute("DELETE FROM users WHERE owner = ?", (owner,))

    def close(self) -> None:
        with self._lock:
            self._close()

    def _uid(self, connection: sqlite3.Connection, place: str, owner: UserId, found: int | None) -> int:
        known = connection.execute("SELECT uid FROM places WHERE place = ?", (place,)).fetchone()
        if known:
            return known[0]
        uid = self._take(connection, found)
        connection.execute("INSERT INTO places VALUES (?, ?, ?, ?)", (place, owner, uid, int(self._clock())))
        return uid

    def _gid(self, connection: sqlite3.Connection, owner: UserId, found: int | None) -> int:
        known = connection.execute("SELECT gid FROM users WHERE owner = ?", (owner,)).fetchone()
        if known:
            return known[0]
        gid = self._take(connection, found)
        connection.execute("INSERT INTO users VALUES (?, ?)", (owner, gid))
        return gid

    def _take(self, connection: sqlite3.Connection, wanted: int | None) -> int:
        """`wanted` if it may be had, else the next in turn that nobody has: so a number rests before it returns."""
        if wanted is not None and wanted in self.uids and not _is_taken(connection, wanted):
            return wanted
        last = _fact(connection, "last")
        start = last + 1 if last is not None and last + 1 in self.uids else self.uids.start
        number = self._free(connection, start)
        if number is None:
            self._forget_unused(connection)
            number = self._free(connection, start)
        if number is None:
            raise NoIdentityLeft("Every uid of SANDBOX_UID_RANGE is in use: delete sessions, or make the range larger")
        _set_fact(connection, "last", number)
        return number

    def _free(self, connection: sqlite3.Connection, start: int) -> int | None:
        turn = (*range(start, self.uids.stop), *range(self.uids.start, start))
        return next((number for number in turn if not _is_taken(connection, number)), None)

    def _forget_unused(self, connection: sqlite3.Connection) -> None:
        before = int(self._clock()) - _UNUSED_SECONDS
        for place, owner in connection.execute("SELECT place, owner FROM places WHERE since < ?", (before,)).fetchall():
            if find_place(self._path.parent, UserId(owner), place) is None:
                connection.execute("DELETE FROM places WHERE place = ?", (place,))

    def _believe_the_disk(self, connection: sqlite3.Connection) -> None:
        """Give the places that are there back who they belong to, before anybody new takes these numbers."""
        now = int(self._clock())
        for found in places_on_disk(self._path.parent):
            for sql, number, row in (
                ("INSERT OR IGNORE INTO users VALUES (?, ?)", found.gid, (found.owner, found.gid)),
                (
                    "INSERT OR IGNORE INTO places VALUES (?, ?, ?, ?)",
                    found.uid,
                    (found.name, found.owner, found.uid, now),
                ),
            ):
                if number in self.uids and not _is_taken(connection, number):
                    connection.execute(sql, row)
        (last,) = connection.execute(
            "SELECT max(number) FROM (SELECT uid AS number FROM places UNION ALL SELECT gid FROM users)"
        ).fetchone()
        if last is not None:
            _set_fact(connection, "last", last)
        _set_fact(connection, "disk_believed", now)

    def _rows(self, sql: str, *parameters: object) -> list[Any]:
        with self._lock, _told():
            return self._current().execute(sql, parameters).fetchall()

    @contextmanager
    def _changing(self) -> Generator[sqlite3.Connection]:
        with self._lock, _told(), _transaction(self._current()) as connection:
            yield connection

    def _current(self) -> sqlite3.Connection:
        """The connection to the file that has the name now: another one if somebody took the old one away."""
        if self._connection is not None and _identity_of_file(self._path) == self._opened:
            return self._connection
        self._close()
        self._path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._opened = _identity_of_file(self._path)
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            # Not a write-ahead log: that wants memory shared by all readers, those in other containers too.
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            with _transaction(connection):
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                if _fact(connection, "disk_believed") is None:
                    self._believe_the_disk(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        weakref.finalize(self, connection.close)
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _told() -> Generator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise SandboxUnavailable(f"The registry of sandboxes cannot be used: {error}", code="registry_busy") from error
    except sqlite3.DatabaseError as error:
        raise SandboxUnavailable(
            "The registry of sandboxes is damaged: stop all servers, then move .registry.sqlite3 out of "
            "WORKSPACE_ROOT. It is made again from what the folders say",
            code="registry_damaged",
        ) from error


def _is_taken(connection: sqlite3.Connection, number: int) -> bool:
    sql = "SELECT 1 FROM places WHERE uid = ?1 UNION ALL SELECT 1 FROM users WHERE gid = ?1"
    return connection.execute(sql, (number,)).fetchone() is not None


def _fact(connection: sqlite3.Connection, name: str) -> int | None:
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def _set_fact(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute(
        "INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value)
    )


def _identity_of_file(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
