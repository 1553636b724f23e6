"""Things that are there, for requests to name: a request about nothing is refused at the door, and shows little."""

import uuid
from typing import Any

from schemathesis import Case
from tests.api.harness import PASSWORD, User

# What a run takes that does not depend on what else is there.
_OF_RUNS = {
    "input", "metadata", "stream_mode", "stream_subgraphs", "multitask_strategy", "if_not_exists", "on_disconnect",
    "on_completion", "durability",
}  # fmt: skip
_NAMES: dict[str, Any] = {
    "assistant_id": "agent",
    "graph_id": "agent",
    "model": "agent",
    "schedule": "0 0 1 1 *",
    "channels": ["values", "messages", "lifecycle"],
    "password": PASSWORD,
    "new_password": PASSWORD,
}


async def things_for(user: User, operation: str) -> dict[str, str]:
    """What an operation's path asks for, new, by the names of its parameters."""
    things: dict[str, str] = {}
    if "{thread_id}" in operation:
        things |= await _thread(user, operation)
    elif "{interrupt_id}" in operation:
        _, things["interrupt_id"] = await _paused(user)
    elif "{run_id}" in operation:
        things["run_id"] = await _made(user, "/runs", "run_id", assistant_id="agent", on_completion="keep")
    elif "{assistant_id}" in operation:
        things["assistant_id"] = await _made(user, "/assistants", "assistant_id", graph_id="agent")
    elif "{cron_id}" in operation:
        things["cron_id"] = await _made(user, "/runs/crons", "cron_id", assistant_id="agent", schedule="0 0 1 1 *")
    elif "{key_id}" in operation:
        things["key_id"] = await _made(user, "/api/auth/keys", "key_id", name="key")
    elif "{user_id}" in operation:
        name = f"user-{uuid.uuid4().hex[:8]}"
        things["user_id"] = await _made(user, "/api/admin/users", "user_id", username=name, password=PASSWORD)
    elif "{model_id}" in operation:
        things["model_id"] = "agent"
    return things


async def _thread(user: User, operation: str) -> dict[str, str]:
    """A thread with a past; one that waits for approval where approvals are answered."""
    if operation.startswith("POST /api/resume"):
        return {"thread_id": (await _paused(user))[0]}
    thread_id = await user.new_session()
    await user.chat(thread_id, "hi")
    things = {"thread_id": thread_id}
    if "{run_id}" in operation:
        things["run_id"] = (await user.client.get(f"/threads/{thread_id}/runs")).json()[0]["run_id"]
    if "{checkpoint_id}" in operation:
        state = (await user.client.get(f"/threads/{thread_id}/state")).json()
        things["checkpoint_id"] = state["checkpoint"]["checkpoint_id"]
    if "{snapshot_id}" in operation:
        things["snapshot_id"] = await _made(user, f"/api/sessions/{thread_id}/snapshots", "snapshot_id")
    return things


async def _paused(user: User) -> tuple[str, str]:
    """A thread that waits for approval, and what it waits for."""
    thread_id = await user.new_session()
    events = await user.play(thread_id, ("execute", {"command": "true"}))
    return thread_id, next(event.data for event in events if event.type == "interrupt")["interrupts"][0]["id"]


async def _made(user: User, path: str, id_name: str, **body: Any) -> str:
    reply = await user.client.post(path, json=body)
    assert reply.is_success, reply.text
    return reply.json()[id_name]


def plausible(operation: str, case: Case) -> None:
    """Have a valid request name what there is: assistants, channels, times, somebody who may log in."""
    case.headers.pop("X-Thread-Id", None)
    if isinstance(case.body, dict):
        case.body = _plausible(operation, case.body)
    elif isinstance(case.body, list) and operation.endswith("/batch"):
        case.body = [_plausible(operation, item) for item in case.body]


def _plausible(operation: str, body: dict[str, Any]) -> dict[str, Any]:
    if "/runs" in operation and "assistant_id" in body and "/crons/" not in operation:
        body = {name: value for name, value in body.items() if name in _OF_RUNS | _NAMES.keys()}
    body = body | {name: value for name, value in _NAMES.items() if name in body}
    match operation:
        case "POST /threads":
            return body | {"thread_id": str(uuid.uuid4()), "supersteps": []}
        case "POST /api/auth/login":
            return body | {"username": "alice"}
        case "POST /v1/chat/completions":
            return body | {"messages": [*body["messages"], {"role": "user", "content": "hi"}]}
        case "POST /threads/{thread_id}/commands":
            return body | {"method": "run.start", "params": {"assistant_id": "agent", "input": {}}}
        case "POST /runs/crons/search" | "POST /runs/crons/count" | "POST /runs/cancel":
            return {name: value for name, value in body.items() if name not in ("thread_id", "assistant_id")}
        case _:
            return body
