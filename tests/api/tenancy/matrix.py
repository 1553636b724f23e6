"""The tenancy matrix: for every operation, each place of a request in which another user's id can stand."""

from collections.abc import Iterator

from tests.api.tenancy.asker import Asker, Rows, both, going_on, nothing, of, plain, run_of
from tests.api.tenancy.attempts import Attempt
from tests.api.tenancy.others import (
    changed_assistant,
    commands,
    completed,
    deleted_assistant,
    found_assistants,
    found_items,
    got_item,
    model,
    new_assistant,
    stored,
    subscribed,
)
from tests.api.tenancy.own import (
    approvals,
    chatted,
    followed,
    found_messages,
    list_of_sessions,
    new_session,
    paged,
    registered,
    resumed,
)
from tests.api.tenancy.runs import batch, cancelled, changed_cron, found_crons, runs
from tests.api.tenancy.threads import (
    filtered,
    found_threads,
    history,
    history_before,
    marked,
    new_thread,
    pruned,
    stated,
)
from tests.api.tenancy.world import World

ENDLESS = {
    "GET /api/sessions/{thread_id}/events", "GET /threads/{thread_id}/stream",
    "POST /threads/{thread_id}/stream/events",
}  # fmt: skip


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
    "GET /threads/{thread_id}/runs/{run_id}/stream": both(run_of, going_on),
    "POST /threads/{thread_id}/runs/{run_id}/cancel": run_of,
    "POST /runs": runs,
    "POST /runs/stream": runs,
    "POST /runs/wait": runs,
    "POST /runs/batch": batch,
    "POST /runs/cancel": cancelled,
    "GET /runs/{run_id}/stream": both(run_of, going_on),
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
    "POST /assistants": both(new_assistant, changed_assistant),
    "POST /assistants/search": found_assistants,
    "POST /assistants/count": found_assistants,
    "GET /assistants/{assistant_id}": of("assistant_id"),
    "PATCH /assistants/{assistant_id}": both(of("assistant_id"), changed_assistant),
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
