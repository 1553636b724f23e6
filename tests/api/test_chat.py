"""One conversation over HTTP, from the message to the sandbox's output."""

import asyncio

import httpx
import orjson
from tests.api.harness import NewUser, Server, User, only, pending, read_events

WRITE = ("write_file", {"file_path": "/workspace/hello.txt", "content": "hello\n"})


def execute(command: str) -> tuple[str, dict[str, str]]:
    return ("execute", {"command": command})


async def test_a_message_is_answered_and_the_stream_ends_with_its_run(alice: User):
    events = await alice.play(await alice.new_session(), then="good morning")
    kinds = [event.type for event in events]
    assert kinds[0] == "message_received"
    assert kinds[-1] == "run_end"
    assert only(events, "message_complete")["final_content"] == "good morning"
    assert only(events, "run_end")["status"] == "success"


async def test_event_ids_count_from_one_without_gaps(alice: User):
    events = await alice.play(await alice.new_session(), ("ls", {"path": "/workspace"}))
    assert [event.id for event in events] == list(range(1, len(events) + 1))


async def test_a_command_waits_for_approval_and_then_runs_in_the_sandbox(alice: User):
    thread = await alice.new_session()
    asked = pending(await alice.play(thread, execute("echo moored && id -u")))
    assert asked[0]["tool_input"] == {"command": "echo moored && id -u"}
    events = await alice.resume(thread, action="continue")
    result = only(events, "tool_result")
    assert result["status"] == "success"
    assert result["exit_code"] == 0
    assert "moored" in result["result"]
    assert "".join(event.data["delta"] for event in events if event.type == "tool_output").startswith("moored\n")
    assert only(events, "run_end")["status"] == "success"


async def test_an_edited_command_runs_as_edited_and_the_original_does_not(alice: User):
    thread = await alice.new_session()
    asked = pending(await alice.play(thread, execute("echo original")))
    edited = {"type": "edit", "edited_action": {"name": "execute", "args": {"command": "echo edited"}}}
    events = await alice.resume(thread, decisions=[{"interrupt_id": asked[0]["id"], **edited}])
    assert only(events, "tool_result")["executed_input"] == {"command": "echo edited"}
    output = "".join(event.data["delta"] for event in events if event.type == "tool_output")
    assert output == "edited\n"


async def test_an_approved_file_is_on_the_host(alice: User, server: Server):
    thread = await alice.new_session()
    await alice.play(thread, WRITE)
    await alice.resume(thread, action="continue")
    assert (server.workspaces / "alice" / thread / "hello.txt").read_text() == "hello\n"


async def test_a_rejected_call_never_runs_and_the_model_goes_on(alice: User, server: Server):
    thread = await alice.new_session()
    await alice.play(thread, WRITE)
    events = await alice.resume(thread, action="cancel")
    assert only(events, "tool_result")["status"] == "rejected"
    assert only(events, "run_end")["status"] == "success"
    assert not (server.workspaces / "alice" / thread / "hello.txt").exists()


async def test_a_response_stands_in_for_the_tool(alice: User):
    thread = await alice.new_session()
    asked = pending(await alice.play(thread, execute("date")))
    answer = {"call_id": asked[0]["call_id"], "type": "respond", "message": "it is noon"}
    events = await alice.resume(thread, decisions=[answer])
    assert only(events, "tool_result")["result"] == "it is noon"


async def test_parallel_calls_are_answered_one_by_one(alice: User):
    thread = await alice.new_session()
    asked = pending(await alice.play(thread, [execute("echo one"), execute("echo two")]))
    assert len(asked) == 2
    events = await alice.resume(thread, decisions=[{"interrupt_id": asked[0]["id"], "type": "approve"}])
    assert only(events, "run_end")["status"] == "interrupted"
    assert [item["id"] for item in pending(events)] == [asked[1]["id"]]
    events = await alice.resume(thread, decisions=[{"interrupt_id": asked[1]["id"], "type": "reject", "message": "no"}])
    assert only(events, "run_end")["status"] == "success"


async def test_a_sub_agents_call_waits_for_approval_too(alice: User):
    thread = await alice.new_session()
    inner = orjson.dumps({"calls": [{"name": "execute", "args": {"command": "echo inner"}}], "then": "inner done"})
    task = ("task", {"description": inner.decode(), "subagent_type": "general-purpose"})
    asked = pending(await alice.play(thread, task))
    assert asked[0]["agent"] == "general-purpose"
    assert asked[0]["parent_call_id"]
    events = await alice.resume(thread, action="continue")
    assert only(events, "run_end")["status"] == "success"


async def test_a_second_message_waits_its_turn(alice: User):
    thread = await alice.new_session()
    first, second = await asyncio.gather(alice.play(thread, then="one"), alice.play(thread, then="two"))
    for events in (first, second):
        assert only(events, "run_end")["status"] == "success"
    messages = (await alice.client.get(f"/api/sessions/{thread}/messages")).json()["items"]
    assert [item["role"] for item in messages] == ["user", "user", "assistant", "assistant"] or [
        item["role"] for item in messages
    ] == ["user", "assistant", "user", "assistant"]


async def test_a_reader_that_comes_back_gets_exactly_the_rest(alice: User):
    thread = await alice.new_session()
    whole = await alice.play(thread, ("ls", {"path": "/workspace"}), then="a b c")
    middle = len(whole) // 2
    headers = {"Last-Event-ID": str(whole[middle].id)}
    async with alice.client.stream("GET", f"/api/sessions/{thread}/events", headers=headers) as reply:
        rest = []
        async for event in read_events(reply):
            rest.append(event)
            if event.type == "run_end":
                break
    assert rest == whole[middle + 1 :]


async def test_a_repeated_idempotency_key_attaches_to_the_same_run(alice: User):
    thread = await alice.new_session()
    first = await alice.chat(thread, "hello", **{"Idempotency-Key": "k-1"})
    again = await alice.chat(thread, "hello", **{"Idempotency-Key": "k-1"})
    assert again == first
    reply = await alice.client.post(
        f"/api/chat/{thread}", json={"message": "other"}, headers={"Idempotency-Key": "k-1"}
    )
    assert reply.status_code == 422


async def test_a_client_that_goes_away_does_not_stop_the_run(alice: User):
    thread = await alice.new_session()
    body = {"message": orjson.dumps({"calls": [{"name": "ls", "args": {"path": "/"}}], "then": "done"}).decode()}
    async with alice.client.stream("POST", f"/api/chat/{thread}", json=body) as reply:
        assert reply.status_code == 200
    async with asyncio.timeout(20), alice.client.stream("GET", f"/api/sessions/{thread}/events") as reply:
        async for event in read_events(reply):
            if event.type == "run_end":
                assert event.data["status"] == "success"
                return


async def test_a_message_while_an_approval_waits_is_refused(alice: User):
    thread = await alice.new_session()
    await alice.play(thread, execute("true"))
    reply = await alice.client.post(f"/api/chat/{thread}", json={"message": "and?"})
    assert reply.status_code == 409
    assert reply.json()["code"] == "approval_pending"


async def test_malformed_decisions_change_nothing_and_the_right_one_still_works(alice: User):
    thread = await alice.new_session()
    asked = pending(await alice.play(thread, execute("echo right")))[0]
    by_id = {"interrupt_id": asked["id"]}
    edit = {"type": "edit"}
    for decision in (
        {},
        {"type": "approve"},
        {**by_id, "type": "yes"},
        {**by_id, "type": "edit"},
        {**by_id, **edit, "edited_action": {"name": "write_file", "args": {"command": "x"}}},
        {**by_id, **edit, "edited_action": {"name": "execute", "args": {"cmd": "x"}}},
        {**by_id, **edit, "edited_action": {"name": "execute", "args": {"command": "x", "extra": 1}}},
        {**by_id, **edit, "edited_action": {"name": "execute", "args": {"command": 7}}},
        {**by_id, "type": "respond"},
        {**by_id, "type": "approve", "edited_action": {"name": "execute", "args": {"command": "x"}}},
        {**by_id, "type": "approve", "surprise": True},
    ):
        reply = await alice.client.post(f"/api/resume/{thread}", json={"decisions": [decision]})
        assert reply.status_code == 422, decision
    for decision, status in (
        ({"interrupt_id": "0" * 32, "type": "approve"}, 404),
        ({**by_id, "type": "approve", "digest": "0" * 64}, 409),
    ):
        reply = await alice.client.post(f"/api/resume/{thread}", json={"decisions": [decision]})
        assert reply.status_code == status, decision
    events = await alice.resume(thread, decisions=[{**by_id, "type": "approve", "digest": asked["digest"]}])
    assert "right" in only(events, "tool_result")["result"]


async def test_of_two_approvals_at_once_one_wins_and_there_is_one_effect(alice: User, server: Server):
    thread = await alice.new_session()
    asked = pending(await alice.play(thread, execute("echo once >> effects.log")))[0]
    path = f"/api/approvals/{asked['id']}/decision"
    replies = await asyncio.gather(*(alice.client.post(path, json={"type": "approve"}) for _ in range(20)))
    assert sorted(reply.status_code for reply in replies) == [200] + [409] * 19
    run_id = next(reply.json()["run_id"] for reply in replies if reply.status_code == 200)
    async with asyncio.timeout(30), alice.client.stream("GET", f"/api/sessions/{thread}/events") as reply:
        async for event in read_events(reply):
            if event.type == "run_end" and event.data["run_id"] == run_id:
                break
    assert (server.workspaces / "alice" / thread / "effects.log").read_text() == "once\n"


async def test_resume_with_nothing_pending_is_refused(alice: User):
    thread = await alice.new_session()
    reply = await alice.client.post(f"/api/resume/{thread}", json={"action": "continue"})
    assert reply.status_code == 409


async def test_continue_up_to_what_was_seen_refuses_what_came_later(alice: User):
    thread = await alice.new_session()
    events = await alice.play(thread, execute("true"))
    seen = next(event.id for event in events if event.type == "interrupt") or 0
    reply = await alice.client.post(f"/api/resume/{thread}", json={"action": "continue", "up_to_seq": seen - 1})
    assert reply.status_code == 409
    reply = await alice.client.post(f"/api/resume/{thread}", json={"action": "continue", "up_to_seq": seen})
    assert reply.json()["success"] is True


async def test_cancel_stops_a_running_command_and_the_session_goes_on(alice: User):
    thread = await alice.new_session()
    await alice.play(thread, execute("echo started; sleep 600"))
    body = {"action": "continue"}
    headers = {"accept": "text/event-stream"}
    async with (
        asyncio.timeout(30),
        alice.client.stream("POST", f"/api/resume/{thread}", json=body, headers=headers) as reply,
    ):
        async for event in read_events(reply):
            if event.type == "tool_output":
                assert (await alice.client.post(f"/api/sessions/{thread}/cancel")).status_code == 200
            if event.type == "run_end":
                assert event.data["status"] == "cancelled"
    events = await alice.play(thread, then="still here")
    assert only(events, "message_complete")["final_content"] == "still here"


async def test_a_follow_up_remembers_the_conversation(alice: User, new_user: NewUser):
    thread = await alice.new_session()
    await alice.play(thread, then="first answer")
    state = (await alice.client.get(f"/api/sessions/{thread}/state")).json()
    assert [item["content"] for item in state["messages"] if item["role"] == "assistant"] == ["first answer"]
    assert state["last_seq"] == state["thread"]["last_seq"]


async def test_a_broken_stream_id_is_refused(alice: User):
    thread = await alice.new_session()
    for bad in ("-1", "abc", "1.5", "9" * 30):
        reply = await alice.client.get(f"/api/sessions/{thread}/events", headers={"Last-Event-ID": bad})
        assert reply.status_code == 422, bad


async def test_an_empty_or_huge_message_is_refused(alice: User):
    thread = await alice.new_session()
    for message in ("", "x" * 100_001):
        reply: httpx.Response = await alice.client.post(f"/api/chat/{thread}", json={"message": message})
        assert reply.status_code == 422


async def test_what_a_broken_off_step_still_asks_cannot_run_its_other_calls_again(alice: User, server: Server):
    thread = await alice.new_session()
    asked = pending(
        await alice.play(thread, [execute("echo ran | tee -a effects.log; sleep 600"), execute("echo second")])
    )
    body = {"decisions": [{"interrupt_id": asked[0]["id"], "type": "approve"}]}
    headers = {"accept": "text/event-stream"}
    effects = server.workspaces / "alice" / thread / "effects.log"
    async with (
        asyncio.timeout(30),
        alice.client.stream("POST", f"/api/resume/{thread}", json=body, headers=headers) as reply,
    ):
        async for event in read_events(reply):
            if event.type == "tool_output":
                await alice.client.post(f"/api/sessions/{thread}/cancel")
            if event.type == "run_end":
                assert event.data["status"] == "cancelled"
    reply = await alice.client.post(f"/api/approvals/{asked[1]['id']}/decision", json={"type": "approve"})
    assert reply.status_code == 409
    events = await alice.play(thread, then="on we go")
    assert only(events, "run_end")["status"] == "success"
    assert effects.read_text() == "ran\n"
