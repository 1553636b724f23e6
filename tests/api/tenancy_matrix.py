"""The tenancy matrix: for every operation, each place of a request in which another user's id can stand."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from tests.api.tenancy_attempts import FINE, REFUSED, Attempt, filled
from tests.api.tenancy_world import CANARY, KEY, OWNER, SHARED_ID, Json, Tenant, World, run_body

ENDLESS = {
    "GET /api/sessions/{thread_id}/events", "GET /threads/{thread_id}/stream",
    "POST /threads/{thread_id}/stream/events",
}  # fmt: skip


type Rows = Callable[["Asker"], Iterator[Attempt]]


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
            "cron_id": one.cron,
            "key_id": one.key_id,
            "assistant_id": one.assistant,
            "model_id": one.assistant,
            "namespace": one.checkpoints[0],
        }

    def ask(self, what: str, body: object = None, *, path: dict[str, str] | None = None, **rest: Any) -> Attempt:
        """`path` has the ids that are not al's own."""
        ids = {**self.ids(self.al), **(path or {})}
        place = filled(self.template, {name: quote(value, safe="") for name, value in ids.items()})
        return Attempt(what, self.method, place, body if body is not None else self.body(), **rest)

    def body(self) -> object:
        return BODIES.get(self.operation)

    def with_body(self, what: str, patch: Json, **rest: Any) -> Attempt:
        """The operation's own body with this in it."""
        given = self.body()
        return self.ask(what, {**(given if isinstance(given, dict) else {}), **patch}, **rest)


BODIES: dict[str, object] = {
    "PATCH /api/sessions/{thread_id}": {"title": "mine now"},
    "POST /api/chat/{thread_id}": {"message": "hello"},
    "POST /api/resume/{thread_id}": {"action": "continue"},
    "POST /api/approvals/{interrupt_id}/decision": {"type": "approve"},
    "POST /api/auth/keys": {"name": "mine"},
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


def nothing(_asker: Asker) -> Iterator[Attempt]:
    """All that it takes is in the path."""
    yield from ()


def plain(asker: Asker) -> Iterator[Attempt]:
    """It takes no id, but somebody may send one."""
    yield asker.ask("ids in the query", params={"user_id": OWNER, "thread_id": asker.her.thread}, allowed=FINE)


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


def both(*parts: Rows) -> Rows:
    def rows(asker: Asker) -> Iterator[Attempt]:
        for part in parts:
            yield from part(asker)

    return rows


# Ours ---------------------------------------------------------------------------------------------------------------


def new_session(asker: Asker) -> Iterator[Attempt]:
    yield asker.ask("assistant_id", {"assistant_id": asker.her.assistant}, allowed=frozenset({404}))
    for name, value in (("thread_id", asker.her.thread), ("owner_id", OWNER), ("user_id", OWNER)):
        yield asker.ask(name, {name: value}, allowed=frozenset({422}))
    key = {"idempotency-key": KEY}
    own = asker.al.thread
    yield asker.ask("her idempotency key", {"title": asker.al.secret}, headers=key, allowed=frozenset({201}), says=own)


def list_of_sessions(asker: Asker) -> Iterator[Attempt]:
    for params in ({"q": CANARY}, {"cursor": asker.her.cursor}, {"q": "%"}, {"owner_id": OWNER}):
        yield asker.ask(f"{params}", params=params, allowed=frozenset({200}))


def paged(asker: Asker) -> Iterator[Attempt]:
    yield asker.ask("her cursor", params={"cursor": asker.her.cursor}, allowed=FINE | {422})


def resumed(asker: Asker) -> Iterator[Attempt]:
    for thread in (asker.al.thread, asker.al.paused):
        for name, value in (("interrupt_id", asker.her.interrupt), ("call_id", asker.her.call)):
            body = {"decisions": [{"type": "approve", name: value}]}
            yield asker.ask(f"{name} of a decision", body, path={"thread_id": thread})


def chatted(asker: Asker) -> Iterator[Attempt]:
    yield asker.with_body("thread_id", {"thread_id": asker.her.thread}, allowed=frozenset({422}))
    headers = {"idempotency-key": f"{KEY}-chat"}
    yield asker.with_body("her key, her message", {"message": f"hello {CANARY}"}, headers=headers)


def found_messages(asker: Asker) -> Iterator[Attempt]:
    yield asker.ask("words", params={"q": CANARY}, allowed=frozenset({200}), says='"items":[]')
    for thread in asker.her.threads:
        params = {"q": "hello", "thread_id": thread}
        yield asker.ask("thread_id", params=params, allowed=frozenset({403}), says=f"Access denied to thread {thread}")


def approvals(asker: Asker) -> Iterator[Attempt]:
    yield from paged(asker)
    for thread in asker.her.threads:
        yield asker.ask("thread_id", params={"thread_id": thread}, allowed=frozenset({403}))


def followed(asker: Asker) -> Iterator[Attempt]:
    for event_id in ("0", "3"):
        yield asker.ask("her event id", headers={"last-event-id": event_id}, allowed=FINE | {410})


# Threads ------------------------------------------------------------------------------------------------------------


def _marks(asker: Asker) -> Json:
    ids = {"thread_id": asker.her.thread, "assistant_id": asker.her.assistant, "run_id": asker.her.run}
    return {"owner": OWNER, "owner_id": OWNER, "user_id": OWNER, "graph_id": asker.her.assistant, **ids}


def new_thread(asker: Asker) -> Iterator[Attempt]:
    for thread in asker.her.threads:
        for if_exists in ("raise", "do_nothing"):
            body = {"thread_id": thread, "if_exists": if_exists}
            says = f"Access denied to thread {thread}"
            yield asker.ask(f"thread_id, {if_exists}", body, allowed=frozenset({403}), says=says)
    body = {"thread_id": SHARED_ID, "if_exists": "do_nothing"}
    yield asker.ask("the uuid of both", body, allowed=frozenset({200}), says=asker.al.secret)
    yield asker.ask("her uuid, bare", {"thread_id": asker.her.paused[-36:]}, allowed=frozenset({200}))
    yield asker.ask("metadata", {"metadata": _marks(asker)}, allowed=frozenset({200}))
    yield asker.ask("graph_id", {"graph_id": asker.her.assistant}, allowed=FINE | REFUSED)
    given = {"type": "human", "id": asker.her.messages[0], "content": "mine"}
    steps = [{"updates": [{"values": {"messages": [given]}, "as_node": "model"}]}]
    yield asker.ask("message ids in supersteps", {"supersteps": steps}, allowed=FINE | REFUSED)


def found_threads(asker: Asker) -> Iterator[Attempt]:
    for thread in asker.her.threads:
        yield asker.ask("ids", {"ids": [asker.al.thread, thread]}, allowed=frozenset({403}))
    yield asker.ask("the uuid of both", {"ids": [SHARED_ID]}, allowed=frozenset({200}), says=asker.al.secret)
    yield from filtered(asker)
    extract = {"a": "values.messages[-1].content", "b": "metadata.note"}
    yield asker.ask("extract", {"limit": 1000, "extract": extract}, allowed=frozenset({200}))


def filtered(asker: Asker) -> Iterator[Attempt]:
    for metadata in ({"note": CANARY}, _marks(asker), {"owner": OWNER}):
        yield asker.ask(f"metadata {sorted(metadata)}", {"metadata": metadata}, allowed=frozenset({200}))
    yield asker.ask("nothing", {}, allowed=frozenset({200}))


def pruned(asker: Asker) -> Iterator[Attempt]:
    for thread in asker.her.threads:
        for strategy in ("delete", "keep_latest"):
            body = {"thread_ids": [asker.al.thread, thread], "strategy": strategy}
            yield asker.ask(f"thread_ids, {strategy}", body, allowed=frozenset({403}))


def marked(asker: Asker) -> Iterator[Attempt]:
    yield asker.with_body("metadata", {"metadata": _marks(asker)}, allowed=FINE)


def checkpoint_of(asker: Asker, *, inner: bool = True) -> Iterator[tuple[str, Json]]:
    for checkpoint_id in asker.her.checkpoints:
        yield "checkpoint.checkpoint_id", {"checkpoint": {"checkpoint_id": checkpoint_id}}
    for thread in asker.her.threads:
        yield "checkpoint.thread_id", {"checkpoint": {"thread_id": thread}}
    both_ids = {"thread_id": asker.her.thread, "checkpoint_id": asker.her.checkpoints[0]}
    yield "checkpoint", {"checkpoint": {**both_ids, "checkpoint_ns": ""}}
    if inner:
        inside = {"checkpoint_ns": f"tools:{asker.her.call}", "checkpoint_id": asker.her.checkpoints[0]}
        yield "checkpoint_ns", {"checkpoint": {**inside, "checkpoint_map": {"": asker.her.checkpoints[0]}}}


def stated(asker: Asker) -> Iterator[Attempt]:
    for what, patch in checkpoint_of(asker):
        yield asker.with_body(what, patch)
    if "checkpoint_id" in asker.template or asker.template.endswith("/state"):
        yield asker.with_body("checkpoint_id", {"checkpoint_id": asker.her.checkpoints[0]})


def history(asker: Asker) -> Iterator[Attempt]:
    for what, patch in checkpoint_of(asker):
        yield asker.with_body(what, patch, allowed=FINE | REFUSED)
    checkpoint_id = asker.her.checkpoints[0]
    for before in (checkpoint_id, {"thread_id": asker.her.thread, "checkpoint_id": checkpoint_id}):
        yield asker.with_body("before", {"before": before}, allowed=FINE | REFUSED)
    yield asker.with_body("metadata", {"metadata": _marks(asker)}, allowed=FINE)


def history_before(asker: Asker) -> Iterator[Attempt]:
    yield asker.ask("before", params={"before": asker.her.checkpoints[0]}, allowed=FINE | REFUSED)


# Runs ---------------------------------------------------------------------------------------------------------------


def run_patches(asker: Asker) -> Iterator[tuple[str, Json, frozenset[int]]]:
    """What of al-ice's can stand in the body of a run, and what comes of it."""
    her = asker.her
    places = {"thread_id": her.thread, "run_id": her.run, "user_id": OWNER, "checkpoint_id": her.checkpoints[0]}
    places |= {"checkpoint_ns": f"tools:{her.call}", "owner": OWNER, "langgraph_auth_user_id": OWNER}
    for name, value in places.items():
        yield f"config.configurable.{name}", {"config": {"configurable": {name: value}}}, REFUSED
        yield f"context.{name}", {"context": {name: value}}, REFUSED
    for what, patch in checkpoint_of(asker):
        yield what, patch, REFUSED
    yield "checkpoint_id", {"checkpoint_id": her.checkpoints[0]}, REFUSED
    yield "assistant_id", {"assistant_id": her.assistant}, frozenset({404})
    yield "command.resume", {"input": None, "command": {"resume": {her.interrupt: {"type": "approve"}}}}, REFUSED
    yield "metadata", {"metadata": _marks(asker)}, FINE
    yield "config.metadata", {"config": {"metadata": {"owner": OWNER}}}, frozenset({422})
    said = {"type": "human", "id": her.messages[0], "content": "mine"}
    yield "input.messages.id", {"input": {"messages": [said]}}, FINE
    yield "thread_id", {"thread_id": her.thread}, frozenset({422})
    yield "user_id", {"user_id": OWNER}, frozenset({422})


def runs(asker: Asker) -> Iterator[Attempt]:
    for what, patch, allowed in run_patches(asker):
        if "crons" not in asker.template or "resume" not in what:
            yield asker.with_body(what, patch, allowed=allowed)
    if "{thread_id}" in asker.template:
        resume = {"command": {"resume": {asker.her.interrupt: {"type": "approve"}}}, "input": None}
        yield asker.with_body("resume of a paused thread", resume, path={"thread_id": asker.al.paused})
        for thread in asker.her.threads:
            patch = {"if_not_exists": "create"}
            yield asker.with_body("if_not_exists", patch, path={"thread_id": thread}, allowed=frozenset({403, 422}))


def batch(asker: Asker) -> Iterator[Attempt]:
    for what, patch, allowed in run_patches(asker):
        yield asker.ask(what, [{**run_body("mine"), **patch}], allowed=allowed)


def cancelled(asker: Asker) -> Iterator[Attempt]:
    for action in ("interrupt", "rollback"):
        params = {"action": action}
        yield asker.ask("run_ids", {"run_ids": asker.her.runs}, params=params, allowed=frozenset({404}))
        for thread in asker.her.threads:
            body = {"thread_id": thread, "status": "all"}
            yield asker.ask("thread_id", body, params=params, allowed=frozenset({403}))
    yield asker.ask("all", {"status": "all"}, allowed=frozenset({204, 404}))


def found_crons(asker: Asker) -> Iterator[Attempt]:
    yield asker.ask("assistant_id", {"assistant_id": asker.her.assistant}, allowed=FINE | REFUSED)
    for thread in asker.her.threads:
        yield asker.ask("thread_id", {"thread_id": thread}, allowed=FINE | REFUSED)
    yield from filtered(asker)


def changed_cron(asker: Asker) -> Iterator[Attempt]:
    yield from of("cron_id")(asker)
    yield asker.ask("her thread's cron", path={"cron_id": asker.her.thread_cron}, allowed=frozenset({404}))
    taken = {"context", "config", "input", "metadata"}
    for what, patch, allowed in run_patches(asker):
        if set(patch) <= taken:
            yield asker.with_body(what, patch, allowed=allowed)
    yield asker.with_body("thread_id", {"thread_id": asker.her.thread}, allowed=frozenset({422}))


# Store, assistants, the v3 protocol, OpenAI -------------------------------------------------------------------------


NAMESPACES = ([OWNER], [OWNER, "notes"], [".."], ["..", OWNER], [""], ["*"], ["%"], [f"al{chr(0)}"], [f"{OWNER},notes"])


def stored(asker: Asker) -> Iterator[Attempt]:
    for labels in NAMESPACES:
        yield asker.with_body(f"{labels}", {"namespace": labels, "key": "a"}, allowed=FINE | REFUSED)
    yield asker.with_body("owner_id", {"owner_id": OWNER}, allowed=frozenset({422}))


def got_item(asker: Asker) -> Iterator[Attempt]:
    for labels in NAMESPACES:
        params = {"namespace": ".".join(labels), "key": "a"}
        yield asker.ask(f"{labels}", params=params, allowed=FINE | REFUSED)


def found_items(asker: Asker) -> Iterator[Attempt]:
    for labels in (*NAMESPACES, []):
        for name in ("namespace_prefix",) if asker.template.endswith("search") else ("prefix", "suffix"):
            yield asker.ask(f"{name} {labels}", {name: labels}, allowed=FINE | REFUSED)
    if asker.template.endswith("search"):
        yield asker.ask("words", {"query": CANARY}, allowed=frozenset({200}), says='"items":[]')
        yield asker.ask("filter", {"filter": {"note": CANARY}}, allowed=frozenset({200}), says='"items":[]')


def new_assistant(asker: Asker) -> Iterator[Attempt]:
    yield asker.with_body("graph_id", {"graph_id": asker.her.assistant}, allowed=frozenset({404, 422}))
    yield asker.with_body("metadata", {"metadata": _marks(asker)}, allowed=FINE)
    yield asker.with_body("owner_id", {"owner_id": OWNER}, allowed=frozenset({422}))


def found_assistants(asker: Asker) -> Iterator[Attempt]:
    yield from filtered(asker)
    yield asker.ask("name", {"name": CANARY}, allowed=frozenset({200}))
    yield asker.ask("graph_id", {"graph_id": asker.her.assistant}, allowed=REFUSED)


def deleted_assistant(asker: Asker) -> Iterator[Attempt]:
    for params in ({}, {"delete_threads": "true"}):
        path = {"assistant_id": asker.her.assistant}
        yield asker.ask(f"{params}", path=path, params=params, allowed=frozenset({404}))


def commands(asker: Asker) -> Iterator[Attempt]:
    """The v3 protocol answers 200 with an envelope that says success or error."""

    def command(what: str, method: str, params: Json, *, thread: str = "", error: bool = True) -> Attempt:
        says = '"type":"error"' if error else '"type":"success"'
        path = {"thread_id": thread or asker.al.thread}
        body = {"id": 7, "method": method, "params": params}
        return asker.ask(f"{method} {what}", body, path=path, allowed=frozenset({200}), says=says)

    for what, patch, allowed in run_patches(asker):
        if "resume" not in what:
            yield command(what, "run.start", {**run_body("mine"), **patch}, error=allowed != FINE)
    answer = {"interrupt_id": asker.her.interrupt, "response": {"type": "approve"}, "namespace": []}
    for thread in (asker.al.thread, asker.al.paused):
        yield command("interrupt_id", "input.respond", answer, thread=thread)
        yield command("responses", "input.respond", {"responses": [answer]}, thread=thread)
    by_id = {"assistant_id": "agent", "input": {asker.her.interrupt: {"type": "approve"}}}
    yield command("input", "run.start", by_id, thread=asker.al.paused)
    for run_id in asker.her.runs:
        yield command("run_id", "agent.getTree", {"run_id": run_id})


def subscribed(asker: Asker) -> Iterator[Attempt]:
    yield asker.with_body("since", {"since": 1}, allowed=FINE)
    yield asker.with_body("namespaces", {"namespaces": [[f"tools:{asker.her.call}"]]}, allowed=FINE)
    yield asker.with_body("thread_id", {"thread_id": asker.her.thread}, allowed=FINE | REFUSED)
    yield asker.ask("her event id", headers={"last-event-id": "2048"}, allowed=FINE)


def completed(asker: Asker) -> Iterator[Attempt]:
    for model in (asker.her.assistant, f"Bot {CANARY}"):
        yield asker.with_body("model", {"model": model}, allowed=frozenset({404}))
        yield asker.with_body("model", {"model": model, "stream": True}, allowed=frozenset({404}))
    for thread in asker.her.threads:
        says = f"Access denied to thread {thread}"
        yield asker.ask("X-Thread-Id", headers={"x-thread-id": thread}, allowed=frozenset({403}), says=says)
    marks = {"user": OWNER, "metadata": {"thread_id": asker.her.thread}}
    yield asker.with_body("user", marks, allowed=frozenset({200}))
    yield asker.with_body("thread_id", {"thread_id": asker.her.thread}, allowed=frozenset({400, 422}))
    bare = {"x-thread-id": asker.her.paused[-36:]}
    yield asker.ask("her uuid, bare", headers=bare, allowed=frozenset({200}))


def model(asker: Asker) -> Iterator[Attempt]:
    for name in (asker.her.assistant, f"Bot {CANARY}"):
        yield asker.ask("model_id", path={"model_id": name}, allowed=frozenset({404}))


def registered(asker: Asker) -> Iterator[Attempt]:
    account = {"username": OWNER, "password": "another battery staple"}
    yield asker.ask("username", account, allowed=frozenset({401, 409}))


# Each operation of the server has a row, or a test fails. Those with a thread in their path are also tried with all of
# al-ice's threads there.
MATRIX: dict[str, Rows] = {
    "GET /": nothing,
    "GET /healthz": plain,
    "GET /readyz": plain,
    "GET /ok": plain,
    "GET /info": plain,
    "GET /docs": nothing,
    "GET /docs/oauth2-redirect": nothing,
    "GET /openapi.json": nothing,
    "POST /api/auth/register": registered,
    "POST /api/auth/login": registered,
    "POST /api/auth/refresh": nothing,
    "POST /api/auth/setup": nothing,
    "POST /api/auth/logout": nothing,
    "POST /api/auth/logout-all": nothing,
    "POST /api/auth/password": nothing,
    "GET /api/auth/me": plain,
    "GET /api/auth/webhook-secret": plain,
    "POST /api/auth/keys": plain,
    "GET /api/auth/keys": both(plain, paged),
    "DELETE /api/auth/keys/{key_id}": of("key_id"),
    "POST /api/auth/ws-ticket": plain,
    "POST /api/sessions": new_session,
    "GET /api/sessions": list_of_sessions,
    "GET /api/sessions/{thread_id}": nothing,
    "PATCH /api/sessions/{thread_id}": nothing,
    "DELETE /api/sessions/{thread_id}": nothing,
    "POST /api/sessions/{thread_id}/close": nothing,
    "POST /api/sessions/{thread_id}/copy": nothing,
    "POST /api/sessions/{thread_id}/cancel": nothing,
    "GET /api/sessions/{thread_id}/messages": paged,
    "GET /api/sessions/{thread_id}/state": nothing,
    "GET /api/sessions/{thread_id}/events": followed,
    "GET /api/sessions/{thread_id}/rules": paged,
    "DELETE /api/sessions/{thread_id}/rules/{rule_id}": of("rule_id"),
    "POST /api/chat/{thread_id}": chatted,
    "POST /api/resume/{thread_id}": resumed,
    "GET /api/messages": found_messages,
    "GET /api/sessions/{thread_id}/export": nothing,
    "GET /api/approvals": approvals,
    "GET /api/approvals/{interrupt_id}": of("interrupt_id"),
    "POST /api/approvals/{interrupt_id}/decision": of("interrupt_id"),
    "POST /threads": new_thread,
    "POST /threads/search": found_threads,
    "POST /threads/count": filtered,
    "POST /threads/prune": pruned,
    "GET /threads/{thread_id}": plain,
    "PATCH /threads/{thread_id}": marked,
    "DELETE /threads/{thread_id}": nothing,
    "POST /threads/{thread_id}/copy": nothing,
    "GET /threads/{thread_id}/storage": nothing,
    "GET /threads/{thread_id}/state": plain,
    "POST /threads/{thread_id}/state": stated,
    "GET /threads/{thread_id}/state/{checkpoint_id}": of("checkpoint_id"),
    "POST /threads/{thread_id}/state/checkpoint": stated,
    "GET /threads/{thread_id}/history": history_before,
    "POST /threads/{thread_id}/history": history,
    "GET /threads/{thread_id}/stream": followed,
    "POST /threads/{thread_id}/runs": runs,
    "POST /threads/{thread_id}/runs/stream": runs,
    "POST /threads/{thread_id}/runs/wait": runs,
    "GET /threads/{thread_id}/runs": plain,
    "GET /threads/{thread_id}/runs/{run_id}": run_of,
    "DELETE /threads/{thread_id}/runs/{run_id}": run_of,
    "GET /threads/{thread_id}/runs/{run_id}/join": run_of,
    "GET /threads/{thread_id}/runs/{run_id}/stream": run_of,
    "POST /threads/{thread_id}/runs/{run_id}/cancel": run_of,
    "POST /runs": runs,
    "POST /runs/stream": runs,
    "POST /runs/wait": runs,
    "POST /runs/batch": batch,
    "POST /runs/cancel": cancelled,
    "GET /runs/{run_id}/stream": run_of,
    "POST /threads/{thread_id}/runs/crons": runs,
    "POST /runs/crons": runs,
    "POST /runs/crons/search": found_crons,
    "POST /runs/crons/count": found_crons,
    "GET /runs/crons/{cron_id}": of("cron_id"),
    "PATCH /runs/crons/{cron_id}": changed_cron,
    "DELETE /runs/crons/{cron_id}": of("cron_id"),
    "PUT /store/items": stored,
    "GET /store/items": got_item,
    "DELETE /store/items": stored,
    "POST /store/items/search": found_items,
    "POST /store/namespaces": found_items,
    "POST /threads/{thread_id}/commands": commands,
    "POST /threads/{thread_id}/stream/events": subscribed,
    "POST /v1/chat/completions": completed,
    "GET /v1/models": plain,
    "GET /v1/models/{model_id}": model,
    "POST /assistants": new_assistant,
    "POST /assistants/search": found_assistants,
    "POST /assistants/count": found_assistants,
    "GET /assistants/{assistant_id}": of("assistant_id"),
    "PATCH /assistants/{assistant_id}": of("assistant_id"),
    "DELETE /assistants/{assistant_id}": deleted_assistant,
    "GET /assistants/{assistant_id}/graph": of("assistant_id"),
    "GET /assistants/{assistant_id}/schemas": of("assistant_id"),
    "GET /assistants/{assistant_id}/subgraphs": of("assistant_id"),
    "GET /assistants/{assistant_id}/subgraphs/{namespace}": of("assistant_id"),
    "POST /assistants/{assistant_id}/versions": of("assistant_id"),
    "POST /assistants/{assistant_id}/latest": of("assistant_id"),
    "POST /a2a/{assistant_id}": nothing,
    "GET /.well-known/agent-card.json": nothing,
    "GET /mcp/": nothing,
    "POST /mcp/": nothing,
    "DELETE /mcp/": nothing,
    "GET /metrics": nothing,
}


def attempts(operation: str, world: World) -> Iterator[Attempt]:
    asker = Asker(operation, world)
    if "{thread_id}" in operation:
        for thread in world.al_ice.threads:
            says = f"Access denied to thread {thread}"
            path = {"thread_id": thread, "run_id": world.al_ice.run, "rule_id": world.al_ice.rule}
            yield asker.ask("thread_id in the path", path=path, allowed=frozenset({403}), says=says)
            yield asker.ask("... of her thread", path={**asker.ids(asker.her), "thread_id": thread}, says=says)
    yield from MATRIX[operation](asker)
