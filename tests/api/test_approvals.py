"""Answers to what agents ask, over HTTP: refused ones, repeated ones, late ones, and files that change meanwhile."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from tests.api.harness import Event, NewUser, Server, User, only, pending, read_events

WRITE = ("write_file", {"file_path": "/workspace/notes.txt", "content": "from the agent\n"})


def execute(command: str) -> tuple[str, dict[str, str]]:
    return ("execute", {"command": command})


def edit(args: Any, name: str = "execute") -> dict[str, Any]:
    return {"type": "edit", "edited_action": {"name": name, "args": args}}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


async def asked(user: User, thread: str, *calls: Any) -> list[dict[str, Any]]:
    return pending(await user.play(thread, *calls))


async def decide(user: User, interrupt_id: str, decision: Any, **headers: str) -> httpx.Response:
    return await user.client.post(f"/api/approvals/{interrupt_id}/decision", json=decision, headers=headers)


async def read_run(user: User, thread: str, run_id: str) -> list[Event]:
    """The events of one run, to its end."""
    found: list[Event] = []
    async with asyncio.timeout(30), user.client.stream("GET", f"/api/sessions/{thread}/events") as reply:
        async for event in read_events(reply):
            found.append(event)
            if event.type == "run_end" and event.data["run_id"] == run_id:
                return found
    raise AssertionError("the stream ended")


# Refused --------------------------------------------------------------------------------------------------------------

MALFORMED: dict[str, tuple[dict[str, Any], int]] = {
    "unknown type": ({"type": "yes"}, 422),
    "no type": ({}, 422),
    "edit without edited_action": ({"type": "edit"}, 422),
    "edit without args": ({"type": "edit", "edited_action": {"name": "execute"}}, 422),
    "another tool": (edit({"command": "x"}, name="write_file"), 422),
    "extra argument": (edit({"command": "x", "surprise": 1}), 422),
    "missing argument": (edit({"timeout": 1}), 422),
    "wrong type": (edit({"command": 7}), 422),
    "too large": (edit({"command": "x" * 300_000}), 422),
    "an integer that no database holds": (edit({"command": "x", "timeout": 10**30}), 422),
    "deep nesting": (edit({"command": nested(30)}), 422),
    "approve with edited_action": ({**edit({"command": "x"}), "type": "approve"}, 422),
    "approve with a message": ({"type": "approve", "message": "fine"}, 422),
    "respond without a message": ({"type": "respond"}, 422),
    "respond with an empty message": ({"type": "respond", "message": ""}, 422),
    "message too long": ({"type": "reject", "message": "x" * 10_001}, 422),
    "unknown field": ({"type": "approve", "surprise": True}, 422),
    "wrong digest": ({"type": "approve", "digest": "0" * 64}, 409),
    "edit and remember": ({**edit({"command": "x"}), "remember": {"match": "same"}}, 422),
    "remembers another command": ({"type": "approve", "remember": {"match": "prefix", "prefix": "rm"}}, 422),
    "remembers for too long": (
        {"type": "approve", "remember": {"match": "same", "expires_in_seconds": 31 * 86400}},
        422,
    ),
}
RAW = {
    "NaN": b'{"type":"edit","edited_action":{"name":"execute","args":{"command":"x","timeout":NaN}}}',
    "a number beyond all": b'{"type":"edit","edited_action":{"name":"execute","args":{"command":"x","timeout":1e999}}}',
    "NUL": b'{"type":"edit","edited_action":{"name":"execute","args":{"command":"a\\u0000b"}}}',
    "lone surrogate": b'{"type":"edit","edited_action":{"name":"execute","args":{"command":"\\ud800"}}}',
    "half a body": b'{"type":"approve"',
    "a list": b'[{"type":"approve"}]',
    "far too deep": b'{"type":"edit","edited_action":{"name":"execute","args":' + b'{"a":' * 500 + b"1" + b"}" * 502,
}


async def test_malformed_answers_change_nothing_and_the_right_one_still_runs_once(alice: User, server: Server):
    thread = await alice.new_session()
    [item] = await asked(alice, thread, execute("echo ran >> effects.log"))
    for kind, (decision, status) in MALFORMED.items():
        reply = await decide(alice, item["id"], decision)
        assert reply.status_code == status, (kind, reply.text)
        body = {"decisions": [{"interrupt_id": item["id"], **decision}]}
        reply = await alice.client.post(f"/api/resume/{thread}", json=body)
        assert reply.status_code == status, (kind, reply.text)
    headers = {"content-type": "application/json"}
    for kind, raw in RAW.items():
        reply = await alice.client.post(f"/api/approvals/{item['id']}/decision", content=raw, headers=headers)
        assert reply.status_code == 422, (kind, reply.text)
    shown = (await alice.client.get(f"/api/approvals/{item['id']}")).json()
    assert (shown["status"], shown["digest"]) == ("pending", item["digest"])
    reply = await decide(alice, item["id"], {"type": "approve", "digest": item["digest"]})
    assert reply.status_code == 200
    events = await read_run(alice, thread, reply.json()["run_id"])
    assert only(events, "tool_result")["status"] == "success"
    assert (server.workspaces / "alice" / thread / "effects.log").read_text() == "ran\n"


async def test_malformed_lists_of_answers_are_refused(alice: User):
    thread = await alice.new_session()
    one, two = await asked(alice, thread, [execute("echo 1"), execute("echo 2")])
    approve = {"interrupt_id": one["id"], "type": "approve"}
    for body in (
        {},
        {"decisions": []},
        {"decisions": [{"type": "approve"}]},
        {"decisions": [approve, approve]},
        {"decisions": [approve, {"call_id": one["call_id"], "type": "reject"}]},
        {"decisions": [approve, {"interrupt_id": two["id"], "type": "respond"}]},
        {"decisions": [approve], "action": "continue"},
        {"decisions": [approve], "up_to_seq": 1},
        {"action": "go"},
        {"action": "continue", "up_to_seq": -1},
    ):
        reply = await alice.client.post(f"/api/resume/{thread}", json=body)
        assert reply.status_code == 422, body
    listed = (await alice.client.get("/api/approvals", params={"status": "pending", "thread_id": thread})).json()
    assert {item["id"] for item in listed["items"]} == {one["id"], two["id"]}


async def test_another_users_approval_is_unknown(alice: User, new_user: NewUser):
    bob = await new_user("bob")
    thread, theirs = await alice.new_session(), await bob.new_session()
    [item] = await asked(bob, theirs, execute("true"))
    await asked(alice, thread, execute("true"))
    assert (await decide(alice, item["id"], {"type": "approve"})).status_code == 404
    assert (await alice.client.get(f"/api/approvals/{item['id']}")).status_code == 404
    body = {"decisions": [{"interrupt_id": item["id"], "type": "approve"}]}
    assert (await alice.client.post(f"/api/resume/{thread}", json=body)).status_code == 404
    assert (await bob.client.get(f"/api/approvals/{item['id']}")).json()["status"] == "pending"


@pytest.mark.parametrize("interrupt_id", ["0" * 32, "nonsense", "%00", "a" * 500])
async def test_an_unknown_approval_is_not_found(alice: User, interrupt_id: str):
    assert (await decide(alice, interrupt_id, {"type": "approve"})).status_code == 404


async def test_what_is_decided_cannot_be_decided_again(alice: User):
    thread = await alice.new_session()
    [item] = await asked(alice, thread, execute("echo once"))
    first = await decide(alice, item["id"], {"type": "reject", "message": "not now"})
    assert first.status_code == 200
    again = await decide(alice, item["id"], {"type": "approve"})
    assert (again.status_code, again.json()["code"]) == (409, "interrupt_decided")


async def test_a_closed_session_takes_no_answer(alice: User):
    thread = await alice.new_session()
    [item] = await asked(alice, thread, execute("true"))
    await alice.client.post(f"/api/sessions/{thread}/close")
    assert (await decide(alice, item["id"], {"type": "approve"})).status_code == 409


# Shown ----------------------------------------------------------------------------------------------------------------


async def test_an_approval_shows_what_was_asked_and_what_became_of_it(alice: User):
    thread = await alice.new_session()
    events = await alice.play(thread, execute("echo a"))
    [item] = pending(events)
    reply = await decide(alice, item["id"], edit({"command": "echo b"}))
    approval = reply.json()["approval"]
    assert {name: approval[name] for name in item if name != "expires_at"} == {
        name: item[name] for name in item if name != "expires_at"
    }
    assert approval["status"] == "edited"
    assert approval["executed_input"] == {"command": "echo b"}
    assert approval["decision"] == {"type": "edit", "args": {"command": "echo b"}}
    assert (approval["decided_by"], approval["decided_via"]) == ("alice", "api")
    assert approval["decided_at"]
    assert (await alice.client.get(f"/api/approvals/{item['id']}")).json() == approval


async def test_a_file_change_comes_with_its_diff(alice: User, server: Server):
    thread = await alice.new_session()
    (server.workspaces / "alice" / thread).mkdir(parents=True, exist_ok=True)
    [item] = await asked(alice, thread, WRITE)
    assert item["diff"] == "--- /dev/null\n+++ b/workspace/notes.txt\n@@ -0,0 +1 @@\n+from the agent\n"


async def test_hidden_characters_are_warned_of(alice: User):
    [item] = await asked(alice, await alice.new_session(), execute("echo safe \u202egnp.sh"))
    assert item["facts"]["warnings"] == [
        {"field": "command", "characters": ["U+202E RIGHT-TO-LEFT OVERRIDE"], "count": 1}
    ]


# A file that changes meanwhile ----------------------------------------------------------------------------------------


async def test_a_file_that_changed_is_asked_about_again(alice: User, server: Server):
    thread = await alice.new_session()
    [item] = await asked(alice, thread, WRITE)
    file = server.workspaces / "alice" / thread / "notes.txt"
    file.write_text("from somebody else\n")
    file.chmod(0o666)
    reply = await decide(alice, item["id"], {"type": "approve", "digest": item["digest"]})
    assert (reply.status_code, reply.json()["code"]) == (409, "file_changed")
    shown = (await alice.client.get(f"/api/approvals/{item['id']}")).json()
    assert shown["status"] == "pending"
    assert "-from somebody else" in shown["diff"]
    assert shown["digest"] != item["digest"]
    stale = await decide(alice, item["id"], {"type": "approve", "digest": item["digest"]})
    assert (stale.status_code, stale.json()["code"]) == (409, "stale_digest")
    assert file.read_text() == "from somebody else\n"
    reply = await decide(alice, item["id"], {"type": "approve", "digest": shown["digest"]})
    events = await read_run(alice, thread, reply.json()["run_id"])
    assert only(events, "tool_result")["status"] == "success"
    assert [event.data["interrupts"][0]["digest"] for event in events if event.type == "interrupt"] == [
        item["digest"],
        shown["digest"],
    ]
    assert file.read_text() == "from the agent\n"


# Repeated -------------------------------------------------------------------------------------------------------------


async def test_a_repeated_decision_gets_the_same_answer_and_runs_once(alice: User, server: Server):
    thread = await alice.new_session()
    [item] = await asked(alice, thread, execute("echo ran >> effects.log"))
    key = {"Idempotency-Key": f"key-{thread}"}
    replies = await asyncio.gather(*(decide(alice, item["id"], {"type": "approve"}, **key) for _ in range(20)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.content for reply in replies}) == 1
    await read_run(alice, thread, replies[0].json()["run_id"])
    later = await decide(alice, item["id"], {"type": "approve"}, **key)
    assert later.content == replies[0].content
    other = await decide(alice, item["id"], {"type": "reject"}, **key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (server.workspaces / "alice" / thread / "effects.log").read_text() == "ran\n"


async def test_a_repeated_resume_reads_the_same_run(alice: User):
    thread = await alice.new_session()
    await asked(alice, thread, execute("echo hello"))
    headers = {"Idempotency-Key": f"key-{thread}"}
    path, body = f"/api/resume/{thread}", {"action": "continue"}
    first = await alice.stream("POST", path, json=body, headers=headers)
    again = await alice.stream("POST", path, json=body, headers=headers)
    assert again == first
    plain = await alice.client.post(path, json=body, headers=headers)
    assert plain.json()["run_id"] == only(first, "run_end")["run_id"]
    assert (await alice.client.post(path, json={"action": "cancel"}, headers=headers)).status_code == 422


# Cancelled ------------------------------------------------------------------------------------------------------------


async def test_a_cancelled_approval_is_a_rejection_in_the_history_and_the_session_goes_on(alice: User):
    thread = await alice.new_session()
    [item] = await asked(alice, thread, execute("echo never"))
    assert (await alice.client.post(f"/api/sessions/{thread}/cancel")).json()["run_status"] == "idle"
    messages = (await alice.client.get(f"/api/sessions/{thread}/messages")).json()["items"]
    assert (messages[-1]["role"], messages[-1]["call_id"]) == ("tool", item["call_id"])
    assert messages[-1]["content"] == "The user cancelled; this execute call was not run."
    events = await alice.chat(thread, orjson.dumps({"then": "on we go"}).decode())
    assert only(events, "run_end")["status"] == "success"
