"""What becomes of a thread's container: blocking calls, each alone with its thread over all processes.

Its name says whose it is (labels cannot be changed, names can). One that does not run is never started again: all that
is worth keeping is in the workspace, so a new one is made.
"""

import socket
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moorage.adapters.docker.container import DIGEST_LABEL, KEEPER, PROFILE_LABEL
from moorage.adapters.docker.engine import Body, ContainerExists
from moorage.adapters.docker.locks import Locks
from moorage.adapters.docker.making import ContainerMaker
from moorage.adapters.docker.warm import WarmPool
from moorage.adapters.folders import Folders, Place, Registry
from moorage.adapters.folders.asking import is_listed
from moorage.adapters.folders.layout import find_place
from moorage.errors import InvalidInput
from moorage.ids import ThreadId, UserId, owner_of
from moorage.sandboxes.port import (
    USER_FULL,
    Bounds,
    SandboxesFull,
    SandboxGone,
    SandboxInfo,
    SandboxStats,
    SandboxUnavailable,
)
from moorage.sandboxes.profiles import DEFAULT_PROFILE, SandboxProfile

_CREATE_ATTEMPTS = 3
_LOOK_SECONDS = 5.0

_COUNTER = "cat /sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sandboxes may run, in all and of one user; 0: any number."""

    running: int = 0
    running_per_user: int = 0


class Containers:
    """One hardened container per thread, on one engine."""

    def __init__(
        self,
        maker: ContainerMaker,
        *,
        folders: Folders,
        locks: Locks,
        profiles: Mapping[str, SandboxProfile],
        limits: Limits,
        warm: WarmPool,
    ) -> None:
        self._maker = maker
        self._engine = maker.engine
        self._folders = folders
        self._locks = locks
        self._profiles = profiles
        self._limits = limits
        self._warm = warm

    @property
    def _registry(self) -> Registry:
        return self._folders.registry

    def prepare_folder(self, thread_id: ThreadId, profile: str) -> None:
        with self._alone(thread_id):
            self._folders.prepare(thread_id, self._profile(profile))

    def ensure(self, thread_id: ThreadId, profile: str | None, token: int | None) -> Bounds:
        """As the port says. One that was made otherwise than we would make it now is replaced, what it runs included.

        With no profile named, one that runs is left alone, however it was made: a download must not end a command.
        """
        with self._alone(thread_id):
            self._registry.admit(thread_id, token)
            name = self._name(thread_id)
            found = self._engine.inspect(name)
            running = found is not None and found["State"]["Running"]
            label = str(found["Config"]["Labels"].get(PROFILE_LABEL)) if found else DEFAULT_PROFILE
            wanted = self._profile(profile or (label if running and label in self._profiles else DEFAULT_PROFILE))
            if found is None and (place := self._take_warm(thread_id, wanted)):
                return place.bounds
            place = self._folders.prepare(thread_id, wanted)
            body = self._maker.body(wanted, place)
            if found is not None:
                current = found["Config"]["Labels"].get(DIGEST_LABEL) == body["Labels"][DIGEST_LABEL]
                if running and (profile is None or current):
                    return place.bounds
                self._discard(thread_id, found, replaced=bool(running))
            self._make(thread_id, place, body)
            self._registry.note(thread_id, f"created under profile {wanted.name}")
            return place.bounds

    def open_stream(self, thread_id: ThreadId, token: int | None) -> socket.socket:
        with self._alone(thread_id):
            self._registry.admit(thread_id, token)
            ready = self._warm.stream_of(thread_id)
            if ready is not None:
                return ready
            name = self._maker.name(thread_id)
            self._engine.started_at(name)
            return self._maker.open_helper(name, self._folders.identity(thread_id))

    def kill_all(self, thread_id: ThreadId, token: int | None) -> None:
        with self._alone(thread_id):
            self._registry.admit(thread_id, token)
            self._warm.forget(thread_id)
            name = self._name(thread_id)
            if not self._engine.kill(name):  # not by a process in there, which the agent could stop
                return
            found = self._engine.inspect(name)
            if found is None:
                return
            label = str(found["Config"]["Labels"].get(PROFILE_LABEL))
            profile = self._profiles.get(label) or self._profile(DEFAULT_PROFILE)
            self._engine.remove(name)
            place = self._folders.prepare(thread_id, profile)
            try:
                self._make(thread_id, place, self._maker.body(profile, place))
            except SandboxesFull:  # somebody was quicker; what is asked for here is done
                self._registry.note(thread_id, "all processes killed: no room to make it anew")
                return
            self._registry.note(thread_id, "all processes killed: made anew")

    def pause(self, thread_id: ThreadId) -> None:
        with self._alone(thread_id):
            name = self._name(thread_id)
            found = self._engine.inspect(name)
            if found is None:
                self._folders.release(thread_id)
                return
            self._warm.forget(thread_id)
            kills = self._oom_kills(name) if found["State"]["Running"] else None
            self._engine.remove(name)
            self._folders.release(thread_id)
            self._registry.note(thread_id, "paused" + (f" after {kills} out-of-memory kills" if kills else ""))

    def remove(self, thread_id: ThreadId, *, files: bool) -> None:
        with self._alone(thread_id):
            self._warm.forget(thread_id)
            self._engine.remove(self._name(thread_id))
            if files:
                self._folders.delete(thread_id)
            else:
                self._folders.release(thread_id)

    def release_unused(self) -> int:
        """Let go of the folders of containers that went otherwise than by us; answers how many."""
        held = self._folders.mounted()
        there = self._by_thread() if held else {}
        released = 0
        for thread_id in held:
            if thread_id in there:
                continue
            with self._alone(thread_id):
                if self._engine.inspect(self._name(thread_id)) is None:
                    self._folders.release(thread_id)
                    released += 1
        return released

    def find(self, thread_id: ThreadId, *, folders: bool) -> list[SandboxInfo]:
        """What `list` says of this thread: one look at its container, and one at its folder."""
        found = self._engine.inspect(self._name(thread_id))
        if found is not None and self._maker.is_ours(found):
            return [
                SandboxInfo(
                    thread_id,
                    running=found["State"]["Status"] == "running",
                    profile=str(found["Config"]["Labels"].get(PROFILE_LABEL, DEFAULT_PROFILE)),
                    started_at=datetime.fromisoformat(found["Created"]).replace(microsecond=0),
                )
            ]
        return [SandboxInfo(thread_id, running=False)] if is_listed(self._folders, thread_id, files=folders) else []

    def list(self, *, folders: bool) -> list[SandboxInfo]:
        found = {
            thread_id: SandboxInfo(
                thread_id,
                running=container["State"] == "running",
                profile=str(container["Labels"].get(PROFILE_LABEL, DEFAULT_PROFILE)),
                started_at=datetime.fromtimestamp(container["Created"], UTC),
            )
            for thread_id, container in self._by_thread().items()
        }
        for thread_id in (*self._folders.mounted(), *(self._folders.threads() if folders else ())):
            found.setdefault(thread_id, SandboxInfo(thread_id, running=False))
        return list(found.values())

    def stats(self, thread_id: ThreadId) -> SandboxStats:
        disk = self._folders.usage(thread_id)
        used, limit = disk or (None, None)
        log = tuple(self._registry.log(thread_id))
        name = self._name(thread_id)
        try:
            self._engine.started_at(name)
            stats = self._engine.stats(name)
        except SandboxGone:
            return SandboxStats(None, None, None, None, used, limit, log)
        return SandboxStats(
            memory_bytes=_memory_of(stats),
            processes=stats.get("pids_stats", {}).get("current"),
            cpu_seconds=stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
            oom_kills=self._oom_kills(name),
            disk_bytes=used,
            disk_limit_bytes=limit,
            log=log,
        )

    def _take_warm(self, thread_id: ThreadId, profile: SandboxProfile) -> Place | None:
        """Make one that stands ready the thread's, if there is one and the thread has nothing yet."""
        owner = _owner(thread_id)
        if (
            not self._warm.may_serve(owner, profile)
            or find_place(self._folders.path(thread_id).parents[1], owner, thread_id) is not None
        ):
            return None
        with self._room_for(owner):
            place = self._warm.hand_over(thread_id, owner)
        if place is not None:
            self._registry.note(thread_id, f"handed over ready, under profile {profile.name}")
        return place

    def _make(self, thread_id: ThreadId, place: Place, body: Body) -> None:
        """A new container of the thread's that runs. The name is free but for servers elsewhere.

        Raises SandboxGone when what it should show was unmounted before it could.
        """
        name = self._name(thread_id)
        for _ in range(_CREATE_ATTEMPTS):
            try:
                with self._room_for(_owner(thread_id)):
                    self._engine.create(name, body)
            except SandboxesFull:
                self._folders.release(thread_id)  # who waits holds nothing meanwhile
                raise
            except ContainerExists:
                self._engine.remove(name)
                continue
            try:
                self._engine.start(name)
            except SandboxGone:
                continue
            except SandboxUnavailable:
                self._engine.remove(name)  # else it takes room, and never runs
                raise
            if not self._folders.holds(place):
                self._engine.remove(name)
                raise SandboxGone("The workspace was unmounted while its sandbox started.")
            return
        raise SandboxUnavailable("The sandbox's container keeps being replaced by somebody else.", retry_after=5)

    @contextmanager
    def _room_for(self, owner: UserId) -> Generator[None]:
        """Raises SandboxesFull; what is named as a thread's within has been counted when the next one counts."""
        limits = self._limits
        if not limits.running and not limits.running_per_user:
            yield
            return
        with self._locks.alone("room"):
            counted = [thread_id for thread_id, found in self._by_thread().items() if found["State"] != "exited"]
            mine = sum(owner_of(thread_id) == owner for thread_id in counted)
            if limits.running and len(counted) >= limits.running:
                raise SandboxesFull("As many sandboxes run as this server may have.", retry_after=5)
            if limits.running_per_user and mine >= limits.running_per_user:
                raise SandboxesFull(
                    "As many of your sandboxes run as one user may have.", code=USER_FULL, retry_after=5
                )
            yield

    def _discard(self, thread_id: ThreadId, found: Body, *, replaced: bool) -> None:
        state = found["State"]
        if replaced:
            self._registry.note(thread_id, "replaced: made under another profile or configuration")
        elif state.get("OOMKilled"):
            self._registry.note(thread_id, "had stopped, out of memory")
        else:
            self._registry.note(thread_id, f"had stopped, exit code {state.get('ExitCode')}")
        self._warm.forget(thread_id)
        self._engine.remove(self._name(thread_id))

    def _oom_kills(self, name: str) -> int | None:
        """Since it was made; None when it cannot be asked, or does not know."""
        try:
            said = self._engine.run(name, ("sh", "-c", _COUNTER), user=KEEPER, seconds=_LOOK_SECONDS)
        except SandboxUnavailable:
            return None
        for line in said.decode(errors="replace").splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill" and value.isdecimal():
                return int(value)
        return None

    def _by_thread(self) -> dict[ThreadId, Body]:
        found = {ThreadId(self._maker.place_of(container)): container for container in self._maker.containers()}
        return {thread_id: container for thread_id, container in found.items() if owner_of(thread_id) is not None}

    def _profile(self, name: str) -> SandboxProfile:
        found = self._profiles.get(name)
        if found is None:
            raise InvalidInput("There is no sandbox profile of this name.", code="unknown_profile")
        return found

    def _name(self, thread_id: ThreadId) -> str:
        _owner(thread_id)
        return self._maker.name(thread_id)

    def _alone(self, thread_id: ThreadId) -> AbstractContextManager[None]:
        _owner(thread_id)
        return self._locks.alone(f"container of {thread_id}")


def _owner(thread_id: ThreadId) -> UserId:
    owner = owner_of(thread_id)
    if owner is None:
        raise InvalidInput("This is not a thread id.")
    return owner


def _memory_of(stats: Body) -> int | None:
    """As `docker stats` counts: without the file cache that could be given back at once."""
    memory: dict[str, Any] = stats.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    details: dict[str, int] = memory.get("stats") or {}
    return max(0, memory["usage"] - details.get("total_inactive_file", details.get("inactive_file", 0)))
