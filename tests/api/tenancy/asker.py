"""Builds the attempts of one operation: al's own request, and the rows that most operations share."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from tests.api.tenancy.attempts import FINE, Attempt, filled
from tests.api.tenancy.world import OWNER, Json, Tenant, World, run_body

type Rows = Callable[["Asker"], Iterator[Attempt]]

BODIES: dict[str, Json] = {
    "PATCH /api/sessions/{thread_id}": {"title": "mine now"},
    "POST /api/chat/{thread_id}": {"message": "hello"},
    "POST /api/resume/{thread_id}": {"action": "continue"},
    "POST /api/approvals/{interrupt_id}/decision": {"type": "approve"},
    "POST /api/auth/keys": {"name": "mine"},
    "POST /api/admin/users": {"username": "nobody", "password": "correct horse battery"},
    "PATCH /api/admin/users/{user_id}": {"active": False},
    "POST /api/admin/users/{user_id}/password": {"new_password": "correct horse battery"},
    "POST /api/files/{thread_id}/mkdir": {"path": "mine"},
    "POST /api/files/{thread_id}/move": {"from": "mine", "to": "mine"},
    "POST /api/shared/mkdir": {"path": "mine"},
    "POST /api/shared/move": {"from": "mine", "to": "mine"},
    "POST /threads": {},
    "POST /threads/search": {},
    "POST /threads/count": {},
    "POST /threads/prune": {"thread_ids": []},
    "PATCH /threads/{thread_id}": {"metadata": {"a": 1}},
    "POST /threads/{thread_id}/state": {"values": None},
    "POST /threads/{thread_id}/state/checkpoint": {"checkpoint": {}},
    "POST /threads/{thread_id}/history": {},
    "POST /threads/{thread_id}/runs": run_body("mine"),
    "POST /threads/{thread_id}/runs/stream": run_body("mine"),
    "POST /threads/{thread_id}/runs/wait": run_body("mine"),
    "POST /runs": run_body("mine"),
    "POST /runs/stream": run_body("mine"),
    "POST /runs/wait": run_body("mine"),
    "POST /runs/crons": {**run_body("mine"), "schedule": "@yearly"},
    "POST /threads/{thread_id}/runs/crons": {**run_body("mine"), "schedule": "@yearly"},
    "POST /runs/crons/search": {},
    "POST /runs/crons/count": {},
    "PATCH /runs/crons/{cron_id}": {},
    "POST /runs/cancel": {},
    "PUT /store/items": {"namespace": ["notes"], "key": "b", "value": {"mine": 1}},
    "DELETE /store/items": {"namespace": ["notes"], "key": "b"},
    "POST /store/items/search": {},
    "POST /store/namespaces": {},
    "POST /assistants": {"graph_id": "agent"},
    "POST /assistants/search": {},
    "POST /assistants/count": {},
    "PATCH /assistants/{assistant_id}": {"name": "mine now"},
    "POST /assistants/{assistant_id}/versions": {},
    "POST /assistants/{assistant_id}/latest": {"version": 1},
    "POST /threads/{thread_id}/commands": {"id": 1, "method": "agent.getTree", "params": {}},
    "POST /threads/{thread_id}/stream/events": {"channels": ["values", "messages", "lifecycle", "input"]},
    "POST /v1/chat/completions": {"model": "agent", "messages": [{"role": "user", "content": "mine"}]},
}


class Asker:
    """Builds the attempts of one operation; all ids are al's own but for those that are put elsewhere."""

    def __init__(self, operation: str, world: World) -> None:
        self.operation = operation
        self.al, self.her = world.al, world.al_ice
        self.method, self.template = operation.split(" ")

    def ids(self, one: Tenant) -> dict[str, str]:
        return {
            "thread_id": one.thread,
            "run_id": one.run,
            "checkpoint_id": one.checkpoints[0],
            "interrupt_id": one.interrupt,
            "rule_id": one.rule,
            "snapshot_id": one.snapshot,
            "cron_id": one.cron,
            "key_id": one.key_id,
            "user_id": one.user.name,
            "assistant_id": one.assistant,
            "model_id": one.assistant,
            "namespace": one.checkpoints[0],
        }

    def ask(
        self, what: str, body: Json | list[Json] | None = None, *, path: dict[str, str] | None = None, **rest: Any
    ) -> Attempt:
        """`path` has the ids that are not al's own."""
        ids = {**self.ids(self.al), **(path or {})}
        place = filled(self.template, {name: quote(value, safe="") for name, value in ids.items()})
        return Attempt(what, self.method, place, body if body is not None else self.body(), **rest)

    def body(self) -> Json | None:
        return BODIES.get(self.operation)

    def with_body(self, what: str, patch: Json, **rest: Any) -> Attempt:
        """The operation's own body with this in it."""
        return self.ask(what, {**BODIES.get(self.operation, {}), **patch}, **rest)


def nothing(_asker: Asker) -> Iterator[Attempt]:
    """All that it takes is in the path."""
    yield from ()


def plain(asker: Asker) -> Iterator[Attempt]:
    """It takes no id, but somebody may send one."""
    yield asker.ask("ids in the query", params={"user_id": OWNER, "thread_id": asker.her.thread}, allowed=FINE)


def admins_only(asker: Asker) -> Iterator[Attempt]:
    """Nobody here is an administrator: what is asked makes no difference."""
    for user_id, thread_id in ((OWNER, asker.her.thread), ("al", asker.al.thread)):
        path = {"user_id": user_id, "thread_id": thread_id}
        yield asker.ask(f"about {user_id}", path=path, params={"user_id": user_id}, allowed=frozenset({403}))


def of(*names: str) -> Rows:
    """These parts of the path are al-ice's; the rest of it is al's own."""

    def rows(asker: Asker) -> Iterator[Attempt]:
        for name in names:
            yield asker.ask(f"{name} in the path", path={name: asker.ids(asker.her)[name]}, allowed=frozenset({404}))

    return rows


def run_of(asker: Asker) -> Iterator[Attempt]:
    for run_id in asker.her.runs:
        yield asker.ask("run_id in the path", path={"run_id": run_id}, allowed=frozenset({404}))
        headers = {"last-event-id": "1-1"}
        yield asker.ask("... going on", path={"run_id": run_id}, headers=headers, allowed=frozenset({404}))


def going_on(asker: Asker) -> Iterator[Attempt]:
    """One's own run, from where another user's stood."""
    for event_id in ("1", "1-1", "99999", "-"):
        params = {"stream_mode": "values"}
        yield asker.ask("her event id", headers={"last-event-id": event_id}, params=params, allowed=FINE | {410, 422})


def both(*parts: Rows) -> Rows:
    def rows(asker: Asker) -> Iterator[Attempt]:
        for part in parts:
            yield from part(asker)

    return rows
