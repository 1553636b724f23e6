"""Every operation of the official OpenAPI document that the other groups do not call: its status and its shape."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
from tests.compat.wire import Wire, run_body, script

type Facts = AsyncIterator[tuple[str, str]]

NOWHERE = "00000000-0000-4000-8000-000000000000"


async def system(wire: Wire) -> Facts:
    for path in ("/ok", "/info", "/metrics", "/docs", "/openapi.json", "/.well-known/agent-card.json", "/mcp/"):
        yield f"`GET {path}`", str((await wire.http.get(path)).status_code)
    for path in ("/mcp/", "/a2a/agent"):
        yield f"`POST {path}`", str((await wire.post(path, {})).status_code)
    yield "flags in `/info`", ", ".join(sorted((await wire.get("/info"))["flags"]))


async def assistants(wire: Wire) -> Facts:
    found = await wire.post("/assistants/search", {"graph_id": "agent"})
    yield "`POST /assistants/search`", _answer(found)
    yield "... the graph's own is made by", found.json()[0]["metadata"].get("created_by", "nobody")
    own = found.json()[0]["assistant_id"]
    yield "`POST /assistants/count`", _answer(await wire.post("/assistants/count", {}))
    yield "`GET /assistants/{id}`", _answer(await wire.http.get(f"/assistants/{own}"))
    yield "... by the graph's name", str((await wire.http.get("/assistants/agent")).status_code)
    yield "... unknown", str((await wire.http.get(f"/assistants/{NOWHERE}")).status_code)
    for part in ("schemas", "graph", "graph?xray=true", "subgraphs", "subgraphs?recurse=true", "subgraphs/tools"):
        yield f"`GET /assistants/{{id}}/{part}`", _answer(await wire.http.get(f"/assistants/{own}/{part}"))


async def saved_assistants(wire: Wire) -> Facts:
    body = {"graph_id": "agent", "name": f"probe {uuid.uuid4().hex[:8]}", "metadata": {"probe": "yes"}}
    made = await wire.post("/assistants", body)
    yield "`POST /assistants`", _answer(made)
    path = f"/assistants/{made.json()['assistant_id']}"
    changed = await wire.http.patch(path, json={"name": f"{body['name']} again"})
    yield "`PATCH /assistants/{id}`", f"{changed.status_code}, version {changed.json().get('version')}"
    yield "`POST /assistants/{id}/versions`", _answer(await wire.post(f"{path}/versions", {}))
    back = await wire.post(f"{path}/latest", {"version": 1})
    yield (
        "`POST /assistants/{id}/latest`",
        f"{back.status_code}, the first name {back.json().get('name') == body['name']}",
    )
    yield "... an unknown version", str((await wire.post(f"{path}/latest", {"version": 99})).status_code)
    mine = (await wire.post("/assistants/search", {"metadata": {"probe": "yes"}})).json()
    yield "found by metadata", str(made.json()["assistant_id"] in [one["assistant_id"] for one in mine])
    thread = await wire.new_thread()
    used = await wire.wait(thread, script(then="it is me"), assistant_id=made.json()["assistant_id"])
    yield "a run of a saved assistant", used.json()["messages"][-1]["content"]
    yield "`DELETE /assistants/{id}`", str((await wire.http.delete(path)).status_code)
    yield "... then", str((await wire.http.get(path)).status_code)
    yield "an assistant of an unknown graph", str((await wire.post("/assistants", {"graph_id": "nothing"})).status_code)


async def thread_operations(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, script(then="one"))
    path = f"/threads/{thread}"
    changed = await wire.http.patch(path, json={"metadata": {"title": "t"}})
    yield "`PATCH /threads/{id}`", f"{changed.status_code}, {', '.join(sorted(changed.json().get('metadata', {})))}"
    yield "`GET /threads/{id}/storage`", _answer(await wire.http.get(f"{path}/storage"))
    state = await wire.get(f"{path}/state")
    at = {"checkpoint": state["checkpoint"]}
    yield "`POST /threads/{id}/state/checkpoint`", _answer(await wire.post(f"{path}/state/checkpoint", at))
    yield "`GET /threads/{id}/history`", _answer(await wire.http.get(f"{path}/history", params={"limit": 1}))
    picked = await wire.http.get(f"{path}/state", params={"select": ["values.messages", "next"]})
    yield "`select` on the state", _answer(picked)
    body = {"thread_ids": [thread], "strategy": "keep_latest"}
    yield "`POST /threads/prune` (keep_latest)", _answer(await wire.post("/threads/prune", body))
    yield "... messages left", str(len(await wire.messages(thread)))
    yield "... states left", str(len((await wire.post(f"{path}/history", {"limit": 100})).json()))
    body = {"thread_ids": [thread, str(uuid.uuid4())], "strategy": "delete"}
    yield "`POST /threads/prune` (delete, one unknown)", _answer(await wire.post("/threads/prune", body))
    async with wire.stream("GET", f"/threads/{await wire.new_thread()}/stream") as stream:
        yield "`GET /threads/{id}/stream`", str(stream.status)


async def stateless_runs(wire: Wire) -> Facts:
    made = await wire.post("/runs", run_body(script(then="alone")))
    yield "`POST /runs`", _answer(made)
    many = await wire.post("/runs/batch", [run_body(script(then="a")), run_body(script(then="b"))])
    yield "`POST /runs/batch`", f"{_answer(many)} of {len(many.json())}"
    body = {"thread_id": made.json()["thread_id"], "run_ids": [NOWHERE]}
    yield "`POST /runs/cancel` of an unknown run", str((await wire.post("/runs/cancel", body)).status_code)


async def store(wire: Wire) -> Facts:
    space = ["probe", uuid.uuid4().hex]
    item = {"namespace": space, "key": "k", "value": {"x": 1}}
    put = await wire.http.put("/store/items", json=item)
    yield "`PUT /store/items`", f"{put.status_code}, {len(put.content)} bytes"
    at = {"namespace": ".".join(space), "key": "k"}
    yield "`GET /store/items`", _answer(await wire.http.get("/store/items", params=at))
    yield "... unknown", _answer(await wire.http.get("/store/items", params={**at, "key": "no"}))
    found = await wire.post("/store/items/search", {"namespace_prefix": space, "filter": {"x": 1}})
    yield "`POST /store/items/search`", f"{_answer(found)}; {len(found.json()['items'])} found"
    more = await wire.post("/store/items/search", {"namespace_prefix": space, "filter": {"x": {"$gte": 2}}})
    yield "... by `$gte`", f"{len(more.json()['items'])} found" if more.is_success else str(more.status_code)
    words = await wire.post("/store/items/search", {"namespace_prefix": space, "query": "one"})
    yield "... by a `query`", f"{words.status_code}"
    spaces = await wire.post("/store/namespaces", {"prefix": ["probe"], "max_depth": 1})
    yield "`POST /store/namespaces`", f"{spaces.status_code}, {spaces.json().get('namespaces')}"
    gone = await wire.http.request("DELETE", "/store/items", json={"namespace": space, "key": "k"})
    yield "`DELETE /store/items`", f"{gone.status_code}, {len(gone.content)} bytes"
    for what, wrong in (("an empty namespace", []), ("a namespace with a dot", ["a.b"])):
        reply = await wire.http.put("/store/items", json={**item, "namespace": wrong})
        yield f"`PUT` into {what}", str(reply.status_code)


async def crons(wire: Wire) -> Facts:
    body = {**run_body(script(then="hourly")), "schedule": "0 * * * *"}
    made = await wire.post("/runs/crons", body)
    yield "`POST /runs/crons`", _answer(made)
    thread = await wire.new_thread()
    of_thread = await wire.post(f"/threads/{thread}/runs/crons", body)
    yield "`POST /threads/{id}/runs/crons`", str(of_thread.status_code)
    yield "`POST /runs/crons/search`", _answer(await wire.post("/runs/crons/search", {"thread_id": thread}))
    yield "`POST /runs/crons/count`", _answer(await wire.post("/runs/crons/count", {}))
    path = f"/runs/crons/{made.json()['cron_id']}"
    yield "`GET /runs/crons/{id}`", str((await wire.http.get(path)).status_code)
    changed = await wire.http.patch(path, json={"enabled": False})
    yield "`PATCH /runs/crons/{id}`", f"{changed.status_code}, enabled {changed.json().get('enabled')}"
    yield (
        "a cron with a wrong schedule",
        str((await wire.post("/runs/crons", {**body, "schedule": "often"})).status_code),
    )
    for one in (path, f"/runs/crons/{of_thread.json()['cron_id']}"):
        gone = await wire.http.delete(one)
    yield "`DELETE /runs/crons/{id}`", str(gone.status_code)
    yield "... again", str((await wire.http.delete(path)).status_code)


async def run_options(wire: Wire) -> Facts:
    """One run for each option that a run may be asked with."""
    options: tuple[tuple[str, dict[str, Any]], ...] = (
        ("config.tags", {"config": {"tags": ["a"]}}),
        ("config.configurable", {"config": {"configurable": {"x": 1}}}),
        ("context", {"context": {"x": 1}}),
        ("metadata", {"metadata": {"x": 1}}),
        ("durability: exit", {"durability": "exit"}),
        ("checkpoint_during", {"checkpoint_during": True}),
        ("feedback_keys", {"feedback_keys": ["a"]}),
        ("interrupt_after: *", {"interrupt_after": "*"}),
        ("webhook to a loopback address", {"webhook": "http://127.0.0.1:9/hook"}),
        ("after_seconds", {"after_seconds": 1}),
        ("on_completion: delete", {"on_completion": "delete"}),
        ("langsmith_tracer", {"langsmith_tracer": {"project_name": "p"}}),
        ("checkpoint of another thread", {"checkpoint": {"thread_id": NOWHERE, "checkpoint_id": NOWHERE}}),
        ("an unknown checkpoint_id", {"checkpoint_id": NOWHERE}),
        ("command.goto an unknown node", {"command": {"goto": "nowhere"}}),
        ("command.update", {"command": {"update": {"messages": []}}}),
    )
    for name, option in options:
        reply = await wire.create(await wire.new_thread(), script(then="fine"), **option)
        yield f"option `{name}`", await _outcome(wire, reply)


async def _outcome(wire: Wire, reply: httpx.Response) -> str:
    if not reply.is_success:
        return str(reply.status_code)
    run = reply.json()
    return f"{reply.status_code}, {await wire.until_run(run['thread_id'], run['run_id'])}"


def _answer(reply: httpx.Response) -> str:
    """The status, and the answer's keys, those of a list's first entry."""
    try:
        body = reply.json()
    except ValueError:
        return str(reply.status_code)
    if not reply.is_success:
        return str(reply.status_code)
    return f"{reply.status_code}, {_shape(body)}"


def _shape(body: Any) -> str:
    if isinstance(body, list):
        return f"list of {{{_shape(body[0])}}}" if body else "empty list"
    return ", ".join(sorted(body)) if isinstance(body, dict) else type(body).__name__


SCENARIOS = (system, assistants, saved_assistants, thread_operations, stateless_runs, store, crons, run_options)
