"""Where another user's ids can stand in requests for threads and their states."""

from collections.abc import Iterator

from tests.api.tenancy.asker import Asker
from tests.api.tenancy.attempts import FINE, REFUSED, Attempt
from tests.api.tenancy.world import CANARY, OWNER, SHARED_ID, Json


def marks(asker: Asker) -> Json:
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
    yield asker.ask("metadata", {"metadata": marks(asker)}, allowed=frozenset({200}))
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
    for metadata in ({"note": CANARY}, marks(asker), {"owner": OWNER}):
        yield asker.ask(f"metadata {sorted(metadata)}", {"metadata": metadata}, allowed=frozenset({200}))
    yield asker.ask("nothing", {}, allowed=frozenset({200}))


def pruned(asker: Asker) -> Iterator[Attempt]:
    for thread in asker.her.threads:
        for strategy in ("delete", "keep_latest"):
            body = {"thread_ids": [asker.al.thread, thread], "strategy": strategy}
            yield asker.ask(f"thread_ids, {strategy}", body, allowed=frozenset({403}))


def marked(asker: Asker) -> Iterator[Attempt]:
    yield asker.with_body("metadata", {"metadata": marks(asker)}, allowed=FINE)


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
    yield asker.with_body("metadata", {"metadata": marks(asker)}, allowed=FINE)


def history_before(asker: Asker) -> Iterator[Attempt]:
    yield asker.ask("before", params={"before": asker.her.checkpoints[0]}, allowed=FINE | REFUSED)
