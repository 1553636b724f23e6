"""Where another user's ids can stand in requests for runs and crons."""

from collections.abc import Iterator

from tests.api.tenancy.asker import Asker, of
from tests.api.tenancy.attempts import FINE, REFUSED, Attempt
from tests.api.tenancy.threads import checkpoint_of, filtered, marks
from tests.api.tenancy.world import OWNER, Json, run_body


def run_patches(asker: Asker) -> Iterator[tuple[str, Json, frozenset[int]]]:
    """What of al-ice's can stand in the body of a run, and what comes of it."""
    her = asker.her
    places = {"thread_id": her.thread, "run_id": her.run, "user_id": OWNER, "checkpoint_id": her.checkpoints[0]}
    places |= {"checkpoint_ns": f"tools:{her.call}", "owner": OWNER, "langgraph_auth_user_id": OWNER}
    for name, value in places.items():
        yield f"config.configurable.{name}", {"config": {"configurable": {name: value}}}, REFUSED
        yield f"context.{name}", {"context": {name: value}}, REFUSED
    inside = {"checkpoint_map": {"": her.checkpoints[0]}, "__pregel_checkpointer": her.thread, "__pregel_task_id": "x"}
    for name, value in inside.items():
        yield f"config.configurable.{name}", {"config": {"configurable": {name: value}}}, FINE | REFUSED
    for what, patch in checkpoint_of(asker):
        yield what, patch, REFUSED
    yield "checkpoint_id", {"checkpoint_id": her.checkpoints[0]}, REFUSED
    yield "assistant_id", {"assistant_id": her.assistant}, frozenset({404})
    yield "command.resume", {"input": None, "command": {"resume": {her.interrupt: {"type": "approve"}}}}, REFUSED
    yield "metadata", {"metadata": marks(asker)}, FINE
    yield "config.metadata", {"config": {"metadata": {"owner": OWNER}}}, frozenset({422})
    said = {"type": "human", "id": her.messages[0], "content": "mine"}
    yield "input.messages.id", {"input": {"messages": [said]}}, FINE
    update = {"update": {"messages": [said]}}
    yield "command.update", {"input": None, "command": update}, FINE | REFUSED
    yield "thread_id", {"thread_id": her.thread}, frozenset({422})
    yield "user_id", {"user_id": OWNER}, frozenset({422})


def runs(asker: Asker) -> Iterator[Attempt]:
    for what, patch, allowed in run_patches(asker):
        if "crons" not in asker.template or "command" not in what:
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
