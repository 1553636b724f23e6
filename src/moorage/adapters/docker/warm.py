"""Containers that stand ready, each for one user: started, with a workspace of its own and a helper open in it.

They are handed over once, to the next new thread of their user, and never given back. A container's mounts and the
gid of what it sees are fixed when it is made, so none can be ready for just anybody.
"""

import secrets
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from moorage.adapters.docker.container import DIGEST_LABEL, POOL_LABEL
from moorage.adapters.docker.engine import ContainerExists
from moorage.adapters.docker.locks import Locks, Presence
from moorage.adapters.docker.making import ContainerMaker
from moorage.adapters.folders import Folders, Place
from moorage.errors import Conflict
from moorage.ids import ThreadId, UserId
from moorage.sandboxes.port import SandboxUnavailable
from moorage.sandboxes.profiles import SandboxProfile

_WARM = "warm-"


@dataclass(frozen=True, slots=True)
class _Ready:
    container: str
    digest: str
    owner: UserId
    place: Place
    stream: socket.socket

    @property
    def is_connected(self) -> bool:
        """Whether its stream goes on, as far as can be told: what a helper said before it ended may hide the end."""
        try:
            return bool(self.stream.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False


class WarmPool:
    """At most `size` containers under one profile, for the users who made sandboxes most recently. Blocking calls."""

    def __init__(
        self, maker: ContainerMaker, *, folders: Folders, locks: Locks, profile: SandboxProfile, size: int
    ) -> None:
        self._maker = maker
        self._folders = folders
        self._locks = locks
        self._profile = profile
        self._size = size
        self._lock = threading.Lock()
        self._ready: list[_Ready] = []
        self._recent: list[UserId] = []
        self._handed: dict[ThreadId, socket.socket] = {}
        self._presence: Presence | None = None
        self._closed = False

    def may_serve(self, owner: UserId, profile: SandboxProfile) -> bool:
        """Whether one may stand ready; from now on one will for this user, as long as few others come."""
        if not self._size or profile != self._profile:
            return False
        with self._lock:
            self._recent = [owner, *(user for user in self._recent if user != owner)][: self._size]
            return any(ready.owner == owner for ready in self._ready)

    def hand_over(self, thread_id: ThreadId, owner: UserId) -> Place | None:
        """Make one the thread's, whose folders are not there yet. None when none is left that will do."""
        while (ready := self._take(owner)) is not None:
            body = self._maker.body(self._profile, ready.place)
            if not self._is_alive(ready) or body["Labels"][DIGEST_LABEL] != ready.digest:
                self._throw_away(ready)
                continue
            try:
                place = self._folders.adopt(ready.place, thread_id)
            except (Conflict, SandboxUnavailable):
                self._throw_away(ready)
                return None
            try:
                self._maker.engine.rename(ready.container, self._maker.name(thread_id))
            except (ContainerExists, SandboxUnavailable):
                ready.stream.close()
                self._maker.engine.remove(ready.container)
                return None  # the folder is the thread's already: a container of its own will do the rest
            with self._lock:
                self._handed[thread_id] = ready.stream
            return place
        return None

    def stream_of(self, thread_id: ThreadId) -> socket.socket | None:
        """The helper that was opened before the thread was there; once."""
        with self._lock:
            return self._handed.pop(thread_id, None)

    def forget(self, thread_id: ThreadId) -> None:
        """The thread's container goes, or all that runs in it."""
        if (stream := self.stream_of(thread_id)) is not None:
            stream.close()

    def refill(self) -> bool:
        """Remove one that is not wanted any more, or make one that is; False when all is as it should be."""
        for ready in self._take_unwanted():
            self._throw_away(ready)
            return True
        with self._lock:
            missing = self._shares() - Counter(ready.owner for ready in self._ready)
            if self._closed or not missing:
                return False
        ready = self._make(next(iter(missing)))
        with self._lock:
            if not self._closed:
                self._ready.append(ready)
                return True
        self._throw_away(ready)
        return False

    def bury(self) -> None:
        """Remove what pools of dead processes left: their containers, and the places these were made for."""
        spares = [] if self._presence else self._folders.spares()
        for pool in sorted({pool for _, pool in self._standing()} | set(self._locks.names())):
            with self._locks.buried(pool) as places:
                if places is None:
                    continue
                for container in [found for found, its in self._standing() if its == pool]:  # now: nobody hands it over
                    self._maker.engine.remove(container)
                for owner, spare in (place.split() for place in places):
                    self._folders.discard(UserId(owner), spare)
        if not self._locks.names():  # then these are of pools that died before they could note them
            for owner, spare in spares:
                self._folders.discard(owner, spare)

    def _standing(self) -> list[tuple[str, str]]:
        """The containers that are no thread's yet, whoever made them, and their pools."""
        found = [found for found in self._maker.containers() if self._maker.place_of(found).startswith(_WARM)]
        return [(found["Id"], str(found["Labels"].get(POOL_LABEL))) for found in found]

    def stop(self) -> None:
        """Make no more."""
        with self._lock:
            self._closed = True

    def close(self) -> None:
        """Remove all, once nothing is being made."""
        with self._lock:
            left, self._ready = self._ready, []
            streams, self._handed = list(self._handed.values()), {}
        for stream in streams:
            stream.close()
        failed = False
        for ready in left:
            try:
                self._throw_away(ready)
            except SandboxUnavailable:  # `bury` of another process finds it
                failed = True
        if self._presence is not None:
            self._presence.close(forgotten=not failed)

    def _make(self, owner: UserId) -> _Ready:
        if self._presence is None:
            self._presence = self._locks.stay(secrets.token_hex(8))
        place = self._folders.prepare_spare(owner, self._profile)
        self._presence.note(f"{owner} {place.name}")
        name = self._maker.name(_WARM + secrets.token_hex(8))
        try:
            body = self._maker.body(self._profile, place, labels={POOL_LABEL: self._presence.name})
            self._maker.engine.create(name, body)
            self._maker.engine.start(name)
            stream = self._maker.open_helper(name, place.agent)
        except SandboxUnavailable:
            self._maker.engine.remove(name)
            self._folders.discard(owner, place.name)
            raise
        return _Ready(name, body["Labels"][DIGEST_LABEL], owner, place, stream)

    def _throw_away(self, ready: _Ready) -> None:
        ready.stream.close()
        self._maker.engine.remove(ready.container)
        self._folders.discard(ready.owner, ready.place.name)

    def _is_alive(self, ready: _Ready) -> bool:
        if not self._folders.holds(ready.place):  # nobody knows what its container shows
            return False
        found = self._maker.engine.inspect(ready.container) if ready.is_connected else None
        return found is not None and bool(found["State"]["Running"])

    def _take(self, owner: UserId) -> _Ready | None:
        with self._lock:
            for ready in self._ready:
                if ready.owner == owner:
                    self._ready.remove(ready)
                    return ready
            return None

    def _take_unwanted(self) -> Sequence[_Ready]:
        with self._lock:
            surplus = Counter(ready.owner for ready in self._ready) - self._shares()
            found = [ready for ready in self._ready if ready.owner in surplus][:1]
            self._ready = [ready for ready in self._ready if ready not in found]
            return found

    def _shares(self) -> Counter[UserId]:
        """How many stand ready for whom: dealt out in turn, beginning with who came last."""
        users = self._recent
        return Counter(users[turn % len(users)] for turn in range(self._size)) if users else Counter()
