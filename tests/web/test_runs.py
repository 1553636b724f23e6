"""A run as its readers see it: over reloads, devices and lost connections, while it goes on and when it fails."""

from typing import Any

import pytest
from playwright.async_api import expect
from tests.api.harness import User
from tests.web.browser import Screen, execute, script
from tests.web.conftest import NewScreen

UNTIL_TOLD = "echo $((50 + 1)); until [ -e go ]; do sleep 0.1; done; echo $((50 + 2))"


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    return {"llm_allowed_models": "scripted:*"}


async def begin_waiting(screen: Screen) -> None:
    """Have the agent run a command that prints 51, and waits until it is told to print 52."""
    await screen.say(script(execute(UNTIL_TOLD)))
    await screen.card("until").approve()
    await screen.sees("51")


async def tell_to_go_on(user: User, thread_id: str) -> None:
    reply = await user.client.put(f"/api/files/{thread_id}/content", params={"path": "go"}, content="")
    assert reply.status_code == 201, reply.text


async def new_assistant(user: User, model: str) -> str:
    made = await user.client.post("/assistants", json={"graph_id": "agent", "context": {"model": model}})
    assert made.status_code == 200, made.text
    return made.json()["assistant_id"]


async def test_a_reload_and_a_second_device_show_the_run_that_goes_on(screen: Screen, new_screen: NewScreen, ada: User):
    thread_id = await screen.new_session()
    await begin_waiting(screen)
    await screen.page.reload()
    phone = await new_screen()
    await phone.log_in(ada, f"sessions/{thread_id}")
    for one in (screen, phone):
        await one.sees("51", "Working…")
    await tell_to_go_on(ada, thread_id)
    for one in (screen, phone):
        await one.sees("52", "That was all.")
        await expect(one.text("Working…")).to_have_count(0)


async def test_whoever_is_offline_for_a_while_loses_nothing(screen: Screen, ada: User):
    thread_id = await screen.new_session()
    await begin_waiting(screen)
    screen.watch.allow("net::ERR_INTERNET_DISCONNECTED *")
    await screen.page.context.set_offline(True)
    await screen.say("sent without a network")
    await expect(screen.text("Not sent yet")).to_be_visible()
    await screen.composer.fill("not even sent")
    await tell_to_go_on(ada, thread_id)
    await screen.page.context.set_offline(False)
    await screen.sees("52", "That was all.", "I expect a message such as")
    await expect(screen.timeline.get_by_text("sent without a network")).to_have_count(1)
    await expect(screen.composer).to_have_value("not even sent")
    await screen.page.reload()
    await expect(screen.composer).to_have_value("not even sent")
    await expect(screen.timeline.get_by_text("sent without a network")).to_have_count(1)


async def test_stop_ends_what_runs(screen: Screen):
    await screen.new_session()
    await begin_waiting(screen)
    await screen.button("Stop").click()
    await screen.sees("Stopped.")
    await expect(screen.button("Stop")).to_have_count(0)
    await screen.say("and now?")
    await screen.sees("I expect a message such as")


async def test_what_is_said_while_the_agent_works_waits_for_its_turn(screen: Screen, ada: User):
    thread_id = await screen.new_session()
    await begin_waiting(screen)
    for number in ("first", "second"):
        await screen.say(script(then=f"That was the {number}."))
    await expect(screen.timeline.get_by_text("Queued: it is read when its turn comes")).to_have_count(2)
    await tell_to_go_on(ada, thread_id)
    await screen.sees("That was all.", "That was the first.", "That was the second.")
    await expect(screen.timeline.get_by_text("Queued: it is read when its turn comes")).to_have_count(0)


async def test_a_message_to_an_agent_that_waits_for_an_answer_rejects_what_waits_and_says_so_first(screen: Screen):
    await screen.new_session()
    await screen.say(script(execute("echo never")))
    await screen.card("echo never").is_armed()
    await screen.say(script(then="Something else."))
    await expect(screen.page.get_by_role("dialog")).to_contain_text("A new message rejects it first.")
    await screen.button("Reject and send").click()
    await screen.card("echo never").became("Rejected")
    await screen.sees("Something else.")


async def test_a_failed_run_says_why_and_can_be_tried_again(screen: Screen, ada: User):
    assistant_id = await new_assistant(ada, "scripted:error-401")
    await screen.open_session(await ada.new_session(assistant_id=assistant_id))
    await screen.say("hello there")
    await screen.sees("The run failed", "The model’s provider refused the key.")
    mended = {"context": {"model": "scripted:hello"}}
    assert (await ada.client.patch(f"/assistants/{assistant_id}", json=mended)).status_code == 200
    await screen.button("Send the message again").click()
    await screen.sees('Hello! You said: "hello there".')
    await expect(screen.button("Send the message again")).to_have_count(0)


async def test_a_subagents_work_is_shown_below_the_call_that_started_it_also_after_a_reload(screen: Screen, ada: User):
    await screen.open_session(await ada.new_session(assistant_id=await new_assistant(ada, "scripted:subagent")))
    await screen.say("delegate")
    await screen.card("report.txt").approve()
    await screen.card("wc -w report.txt").approve()
    await screen.sees("The sub-agent came back.")
    await screen.page.reload()
    await expect(screen.timeline.locator(".rail")).to_contain_text("wc -w report.txt")
    await screen.sees("The sub-agent came back.")


async def test_what_an_agent_says_is_drawn_as_markdown_and_runs_nothing(screen: Screen):
    await screen.new_session()
    said = "**Bold** <img src=x onerror=alert(1)> [here](javascript:alert(1)) ![far](https://example.com/a.png)"
    await screen.say(script(then=said))
    message = screen.timeline.locator("strong", has_text="Bold")
    await expect(message).to_be_visible()
    await expect(screen.timeline.locator("img")).to_have_count(0)
    await expect(screen.timeline.locator("a[href^='javascript']")).to_have_count(0)


async def test_a_script_that_gets_into_the_page_all_the_same_does_not_run(screen: Screen):
    screen.watch.expect("console: *Content Security Policy directive*")
    added = "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = 1' }))"
    await screen.page.evaluate(added)
    assert await screen.page.evaluate("window.ran") is None
