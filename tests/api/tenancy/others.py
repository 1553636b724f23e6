"""Where another user's ids can stand in requests for the store, assistants, the v3 protocol and OpenAI's models."""

from collections.abc import Iterator

from tests.api.tenancy.asker import Asker
from tests.api.tenancy.attempts import FINE, REFUSED, Attempt
from tests.api.tenancy.runs import run_patches
from tests.api.tenancy.threads import filtered, marks
from tests.api.tenancy.world import CANARY, OWNER, Json, run_body

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
    yield asker.with_body("metadata", {"metadata": marks(asker)}, allowed=FINE)
    yield asker.with_body("owner_id", {"owner_id": OWNER}, allowed=frozenset({422}))


def changed_assistant(asker: Asker) -> Iterator[Attempt]:
    """It is al's own, and says of itself what is al-ice's."""
    yield asker.with_body("metadata", {"metadata": marks(asker)}, allowed=FINE)
    yield asker.with_body("graph_id", {"graph_id": asker.her.assistant}, allowed=REFUSED)
    for name, value in (
        ("thread_id", asker.her.thread),
        ("user_id", OWNER),
        ("checkpoint_id", asker.her.checkpoints[0]),
    ):
        yield asker.with_body(f"context.{name}", {"context": {name: value}}, allowed=frozenset({422}))
        config = {"configurable": {name: value}}
        yield asker.with_body(f"config.configurable.{name}", {"config": config}, allowed=frozenset({422}))


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
        if "command" not in what and FINE - allowed:
            yield command(what, "run.start", {**run_body("mine"), **patch})
        elif allowed == FINE:
            yield command(what, "run.start", {**run_body("mine"), **patch}, error=False)
    answer: Json = {"interrupt_id": asker.her.interrupt, "response": {"type": "approve"}, "namespace": []}
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
    shown = {"user": OWNER, "metadata": {"thread_id": asker.her.thread}}
    yield asker.with_body("user", shown, allowed=frozenset({200}))
    yield asker.with_body("thread_id", {"thread_id": asker.her.thread}, allowed=frozenset({400, 422}))
    bare = {"x-thread-id": asker.her.paused[-36:]}
    yield asker.ask("her uuid, bare", headers=bare, allowed=frozenset({200}))


def model(asker: Asker) -> Iterator[Attempt]:
    for name in (asker.her.assistant, f"Bot {CANARY}"):
        yield asker.ask("model_id", path={"model_id": name}, allowed=frozenset({404}))
