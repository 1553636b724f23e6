"""Remembered rules over HTTP: what they let through, what they stop, and taking them back."""

from typing import Any

import httpx
import pytest
from tests.api.harness import Event, NewUser, User, only, pending


def execute(command: str) -> tuple[str, dict[str, str]]:
    return ("execute", {"command": command})


def write(path: str) -> tuple[str, dict[str, str]]:
    return ("write_file", {"file_path": path, "content": "x\n"})


async def remember(user: User, thread: str, call: Any, *, decision: str = "approve", **rule: Any) -> list[Event]:
    """Have the agent ask, and answer once and for all."""
    [item] = pending(await user.play(thread, call))
    answer = {"interrupt_id": item["id"], "type": decision, "remember": rule}
    return await user.resume(thread, decisions=[answer])


async def rules_of(user: User, thread: str) -> list[dict[str, Any]]:
    return (await user.client.get(f"/api/sessions/{thread}/rules")).json()["items"]


async def revoke(user: User, thread: str, rule_id: str) -> httpx.Response:
    return await user.client.delete(f"/api/sessions/{thread}/rules/{rule_id}")


def was_asked(events: list[Event]) -> bool:
    return any(event.type == "interrupt" for event in events)


async def test_a_remembered_prefix_lets_such_commands_run_and_no_others(alice: User):
    thread = await alice.new_session()
    await remember(alice, thread, execute("echo one"), match="prefix", prefix="echo")
    events = await alice.play(thread, execute("echo two"))
    assert not was_asked(events)
    assert "two" in only(events, "tool_result")["result"]
    [rule] = await rules_of(alice, thread)
    assert only(events, "decision")["decided_via"] == f"rule:{rule['rule_id']}"
    assert was_asked(await alice.play(thread, execute("echo three; date")))


async def test_a_remembered_command_runs_again_only_to_the_letter(alice: User):
    thread = await alice.new_session()
    await remember(alice, thread, execute("echo a; echo b"), match="same")
    assert not was_asked(await alice.play(thread, execute("echo a; echo b")))
    assert was_asked(await alice.play(thread, execute("echo a; echo c")))


async def test_a_remembered_rejection_stops_the_next_call_without_asking(alice: User):
    thread = await alice.new_session()
    await remember(alice, thread, execute("git push"), decision="reject", match="prefix", prefix="git push")
    events = await alice.play(thread, execute("git push --force"))
    assert not was_asked(events)
    assert only(events, "tool_result")["status"] == "rejected"


async def decide(user: User, item: dict[str, Any], **decision: Any) -> httpx.Response:
    return await user.client.post(f"/api/approvals/{item['id']}/decision", json=decision)


@pytest.mark.parametrize("kind", ["approve", "reject"])
@pytest.mark.parametrize(
    ("call", "flag"),
    [
        (execute("rm -rf build"), {"risks": ["deletes_recursively"]}),
        (write("/workspace/.bashrc"), {"risks": ["hidden_file"]}),
        (
            execute("ls a\u200bb"),
            {"warnings": [{"field": "command", "characters": ["U+200B ZERO WIDTH SPACE"], "count": 1}]},
        ),
    ],
)
async def test_a_flagged_call_cannot_be_remembered_and_stays_answerable(alice: User, kind: str, call: Any, flag: Any):
    thread = await alice.new_session()
    [item] = pending(await alice.play(thread, call))
    assert flag.items() <= item["facts"].items()
    refused = await decide(alice, item, type=kind, remember={"match": "same"})
    assert (refused.status_code, refused.json()["code"]) == (422, "not_rememberable")
    assert await rules_of(alice, thread) == []
    assert (await decide(alice, item, type=kind)).status_code == 200


async def test_a_batch_with_one_that_cannot_be_remembered_decides_nothing(alice: User):
    thread = await alice.new_session()
    items = pending(await alice.play(thread, [execute("echo a"), execute("sudo ls")]))
    decisions = [{"interrupt_id": item["id"], "type": "approve", "remember": {"match": "same"}} for item in items]
    refused = await alice.client.post(f"/api/resume/{thread}", json={"decisions": decisions})
    assert (refused.status_code, refused.json()["code"]) == (422, "not_rememberable")
    assert await rules_of(alice, thread) == []
    waiting = (await alice.client.get("/api/approvals", params={"thread_id": thread, "status": "pending"})).json()
    assert len(waiting["items"]) == 2


async def test_a_remembered_prefix_lets_no_risky_command_run(alice: User):
    thread = await alice.new_session()
    await remember(alice, thread, execute("rm -f a"), match="prefix", prefix="rm")
    assert not was_asked(await alice.play(thread, execute("rm -f b")))
    assert was_asked(await alice.play(thread, execute("rm -rf b")))


async def test_a_remembered_folder_lets_no_hidden_text_in(alice: User):
    thread = await alice.new_session()
    await remember(alice, thread, write("/workspace/a.txt"), match="path", path="/workspace")
    hiding = ("write_file", {"file_path": "/workspace/b.txt", "content": "x\u202ey"})
    assert was_asked(await alice.play(thread, hiding))


async def test_denying_wins(alice: User):
    thread = await alice.new_session()
    await remember(alice, thread, execute("echo no"), decision="reject", match="same")
    await remember(alice, thread, execute("echo yes"), match="prefix", prefix="echo")
    events = await alice.play(thread, execute("echo no"))
    assert only(events, "tool_result")["status"] == "rejected"


async def test_a_remembered_folder_counts_where_it_really_is(alice: User):
    thread = await alice.new_session()
    await remember(alice, thread, execute("mkdir src && ln -s /shared src/out"), match="same")
    await remember(alice, thread, write("/workspace/src/a.txt"), match="path", path="/workspace/src")
    assert not was_asked(await alice.play(thread, write("/workspace/src/b/c.txt")))
    assert was_asked(await alice.play(thread, write("/workspace/src/out/d.txt")))


@pytest.mark.parametrize("path", ["shared/a.txt", "\\shared\\a.txt", "/workspace/out\\a.txt"])
async def test_a_remembered_folder_does_not_let_through_another_spelling(alice: User, path: str):
    thread = await alice.new_session()
    await remember(alice, thread, execute("ln -s /shared out"), match="same")
    await remember(alice, thread, write("/workspace/a.txt"), match="path", path="/workspace")
    assert was_asked(await alice.play(thread, write(path)))


async def test_a_revoked_rule_decides_nothing(alice: User):
    thread = await alice.new_session()
    await remember(alice, thread, execute("echo one"), match="prefix", prefix="echo")
    [rule] = await rules_of(alice, thread)
    assert (rule["effect"], rule["tool"], rule["pattern"]) == ("allow", "execute", {"tokens": ["echo"]})
    assert (await revoke(alice, thread, rule["rule_id"])).status_code == 204
    assert await rules_of(alice, thread) == []
    assert (await revoke(alice, thread, rule["rule_id"])).status_code == 404
    assert was_asked(await alice.play(thread, execute("echo two")))


async def test_rules_hold_in_their_session_only(alice: User):
    thread, other = await alice.new_session(), await alice.new_session()
    await remember(alice, thread, execute("echo one"), match="prefix", prefix="echo")
    [rule] = await rules_of(alice, thread)
    assert await rules_of(alice, other) == []
    assert (await revoke(alice, other, rule["rule_id"])).status_code == 404
    assert was_asked(await alice.play(other, execute("echo two")))


async def test_another_users_rules_are_out_of_reach(alice: User, new_user: NewUser):
    thread = await alice.new_session()
    await remember(alice, thread, execute("echo one"), match="same")
    [rule] = await rules_of(alice, thread)
    bob = await new_user("bob")
    assert (await bob.client.get(f"/api/sessions/{thread}/rules")).status_code == 403
    assert (await revoke(bob, thread, rule["rule_id"])).status_code == 403
    assert (await revoke(bob, await bob.new_session(), rule["rule_id"])).status_code == 404
    assert len(await rules_of(alice, thread)) == 1


@pytest.mark.parametrize("rule_id", ["nonsense", "%00", "00000000-0000-0000-0000-000000000000"])
async def test_an_unknown_rule_is_not_found(alice: User, rule_id: str):
    assert (await revoke(alice, await alice.new_session(), rule_id)).status_code == 404


async def test_rules_are_listed_page_by_page(alice: User):
    thread = await alice.new_session()
    for number in range(3):
        await remember(alice, thread, execute(f"echo {number}"), match="same")
    path = f"/api/sessions/{thread}/rules"
    first = (await alice.client.get(path, params={"limit": 2})).json()
    rest = (await alice.client.get(path, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    commands = [item["pattern"]["command"] for item in [*first["items"], *rest["items"]]]
    assert commands == ["echo 2", "echo 1", "echo 0"]
    assert rest["next_cursor"] is None
    assert (await alice.client.get(path, params={"cursor": "nonsense"})).status_code == 422
