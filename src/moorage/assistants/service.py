"""What users can do with assistants: save, find, change, go back to a version, delete."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from moorage.assistants.assistant import (
    SYSTEM_ASSISTANTS,
    Assistant,
    SystemAssistant,
    UnknownAssistant,
    find_system_assistant,
)
from moorage.assistants.graphs import get_graph
from moorage.assistants.policy import Policy
from moorage.errors import Conflict, InvalidPayload, LimitExceeded, NotFound
from moorage.events import encode
from moorage.ids import ThreadId, UserId

MOST_ASSISTANTS = 1000
MOST_VERSIONS = 1000
_METADATA_BYTES = 16 * 1024
_THREADS_AT_ONCE = 100

type SortBy = Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"]
type Change = Callable[[Assistant], Assistant]


class AssistantExists(Conflict):
    code = "assistant_exists"

    def __init__(self) -> None:
        super().__init__("There is an assistant with this id already")


class VersionNotFound(NotFound):
    code = "version_not_found"

    def __init__(self) -> None:
        super().__init__("This assistant has no such version")


class AssistantLimit(LimitExceeded):
    code = "assistant_limit"


@dataclass(frozen=True, slots=True)
class NewAssistant:
    """What an assistant is saved with."""

    graph_id: str
    name: str
    description: str | None
    context: Mapping[str, Any]
    config: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AssistantChange:
    """What to change; None stays as it is. `metadata` is added to what there is, key by key."""

    graph_id: str | None = None
    name: str | None = None
    description: str | None = None
    context: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None

    def apply(self, assistant: Assistant) -> Assistant:
        given = {name: getattr(self, name) for name in self.__slots__ if name != "metadata"}
        changes = {name: value for name, value in given.items() if value is not None}
        return replace(assistant, **changes, metadata={**assistant.metadata, **(self.metadata or {})})


@dataclass(frozen=True, slots=True)
class AssistantFilter:
    """`metadata` must be contained in the assistant's, `name` in its name, whatever the case."""

    graph_id: str | None = None
    name: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Part of a sorted list; `has_more` when something follows it."""

    items: list[Assistant]
    has_more: bool


class AssistantStore(Protocol):
    """Where users' assistants are kept. Every call sees those of `owner` only; ids are canonical uuids."""

    async def find(self, owner: UserId, assistant_id: str) -> Assistant | None: ...

    async def search(
        self,
        owner: UserId,
        wanted: AssistantFilter,
        *,
        beside: Sequence[Assistant],
        sort_by: SortBy,
        descending: bool,
        limit: int,
        offset: int,
    ) -> list[Assistant]:
        """The owner's assistants and those given as `beside`, filtered and sorted together."""
        ...

    async def count(self, owner: UserId, wanted: AssistantFilter, *, beside: Sequence[Assistant]) -> int: ...

    async def insert(self, owner: UserId, assistant: Assistant, *, most: int) -> Assistant | None:
        """Store version 1. None when the id is taken; raises AssistantLimit when the owner has `most`, race-free."""
        ...

    async def change(self, owner: UserId, assistant_id: str, change: Change, *, most: int) -> Assistant | None:
        """Store what `change` makes of the latest as the next version; None when it is not there.

        Nobody changes it meanwhile. Raises what `change` raises, and AssistantLimit beyond `most` versions.
        """
        ...

    async def delete(self, owner: UserId, assistant_id: str) -> bool: ...

    async def versions(
        self, owner: UserId, assistant_id: str, *, metadata: Mapping[str, Any], limit: int, offset: int
    ) -> list[Assistant]:
        """Latest first."""
        ...

    async def set_latest(self, owner: UserId, assistant_id: str, version: int) -> Assistant | None:
        """Make a version the one that counts; None when it is not there."""
        ...

    async def threads_of(self, owner: UserId, assistant_id: str, *, limit: int) -> list[ThreadId]:
        """Threads that were made for this assistant, or whose metadata names it."""
        ...


class Assistants:
    """The system's assistants and each user's own. Ids may be names of system ones, or uuids of either."""

    def __init__(self, store: AssistantStore, policy: Policy) -> None:
        self._store = store
        self._policy = policy

    async def get(self, owner: UserId, text: str) -> Assistant:
        """The assistant that an id or a name means; raises UnknownAssistant, for another user's, too."""
        if assistant := find_system_assistant(text):
            return assistant
        assistant_id = _canonical(text)
        found = await self._store.find(owner, assistant_id) if assistant_id else None
        if found is None:
            raise UnknownAssistant
        return found

    async def load(self, owner: UserId, assistant_id: str) -> Assistant:
        """`get`, for a run: raises ModelNotAllowed or UnknownProfile for what the operator offers no longer."""
        assistant = await self.get(owner, assistant_id)
        if not assistant.is_system:
            self._policy.check_models(assistant)
            self._policy.check_profile(assistant)
        return assistant

    def overridden(self, assistant: Assistant, context: Mapping[str, Any]) -> Assistant:
        """The assistant with what one run changes of it; raises InvalidContext, ModelNotAllowed or UnknownProfile."""
        changed = replace(assistant, context={**assistant.context, **context})
        self._policy.check(changed)
        return changed

    async def search(
        self,
        owner: UserId,
        wanted: AssistantFilter,
        *,
        sort_by: SortBy = "created_at",
        descending: bool = True,
        limit: int = 10,
        offset: int = 0,
    ) -> Listing:
        """The system's and one's own, sorted together; raises UnknownGraph."""
        _check_graph(wanted)
        found = await self._store.search(
            owner,
            wanted,
            beside=list(SYSTEM_ASSISTANTS.values()),
            sort_by=sort_by,
            descending=descending,
            limit=limit + 1,
            offset=offset,
        )
        return Listing(found[:limit], has_more=len(found) > limit)

    async def count(self, owner: UserId, wanted: AssistantFilter) -> int:
        _check_graph(wanted)
        return await self._store.count(owner, wanted, beside=list(SYSTEM_ASSISTANTS.values()))

    async def create(
        self, owner: UserId, new: NewAssistant, *, assistant_id: str | None = None, if_exists: bool = False
    ) -> Assistant:
        """Save an assistant, under an id of the caller's choice if one is given.

        An id that is taken raises AssistantExists, or answers with who has it `if_exists`. Raises UnknownGraph,
        InvalidContext, ModelNotAllowed, UnknownProfile, AutoApprovalNotAllowed, AssistantLimit.
        """
        chosen = _canonical(assistant_id) if assistant_id is not None else str(uuid.uuid4())
        if chosen is None:
            raise InvalidPayload("assistant_id must be a uuid")
        assistant = self._checked(
            Assistant(chosen, new.name, new.graph_id, new.description, new.context, new.config, new.metadata)
        )
        taken = find_system_assistant(chosen)
        saved = None if taken else await self._store.insert(owner, assistant, most=MOST_ASSISTANTS)
        if saved is not None:
            return saved
        if not if_exists:
            raise AssistantExists
        return taken or await self.get(owner, chosen)

    async def change(self, owner: UserId, text: str, change: AssistantChange) -> Assistant:
        """Save the next version; raises UnknownAssistant, SystemAssistant, and what `create` raises."""
        changed = await self._store.change(
            owner, self._own(text), lambda latest: self._checked(change.apply(latest)), most=MOST_VERSIONS
        )
        if changed is None:
            raise UnknownAssistant
        return changed

    async def delete(
        self, owner: UserId, text: str, *, remove_thread: Callable[[ThreadId], Awaitable[None]] | None = None
    ) -> None:
        """Remove it with its versions; raises UnknownAssistant, SystemAssistant.

        `remove_thread` is called for each session that was made for it; without, they stay.
        """
        assistant_id = self._own(text)
        if await self._store.find(owner, assistant_id) is None:
            raise UnknownAssistant
        while remove_thread and (threads := await self._store.threads_of(owner, assistant_id, limit=_THREADS_AT_ONCE)):
            for thread_id in threads:
                await remove_thread(thread_id)
        if not await self._store.delete(owner, assistant_id):
            raise UnknownAssistant

    async def versions(
        self, owner: UserId, text: str, *, metadata: Mapping[str, Any] | None = None, limit: int = 10, offset: int = 0
    ) -> list[Assistant]:
        """Versions whose metadata contains `metadata`, latest first; raises UnknownAssistant."""
        assistant = await self.get(owner, text)
        if assistant.is_system:
            shown = (metadata or {}).items() <= assistant.metadata.items() and offset == 0
            return [assistant] if shown else []
        return await self._store.versions(
            owner, assistant.assistant_id, metadata=metadata or {}, limit=limit, offset=offset
        )

    async def set_latest(self, owner: UserId, text: str, version: int) -> Assistant:
        """Make an earlier version the one that counts; raises UnknownAssistant, SystemAssistant, VersionNotFound."""
        assistant = await self.get(owner, self._own(text))
        latest = await self._store.set_latest(owner, assistant.assistant_id, version)
        if latest is None:
            raise VersionNotFound
        return latest

    def _own(self, text: str) -> str:
        if find_system_assistant(text):
            raise SystemAssistant
        assistant_id = _canonical(text)
        if assistant_id is None:
            raise UnknownAssistant
        return assistant_id

    def _checked(self, assistant: Assistant) -> Assistant:
        self._policy.check(assistant)
        if len(encode(dict(assistant.metadata))) > _METADATA_BYTES:
            raise InvalidPayload(f"metadata: more than {_METADATA_BYTES} bytes of JSON")
        return assistant


def _check_graph(wanted: AssistantFilter) -> None:
    if wanted.graph_id is not None:
        get_graph(wanted.graph_id)


def _canonical(text: str) -> str | None:
    """A uuid as it is stored; None for anything else."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return None
    return str(parsed) if str(parsed) == text.lower() else None
