"""The approval card: every way to answer it, and what happens when something comes between."""

from playwright.async_api import Page, expect
from tests.api.harness import User
from tests.web.browser import Look, Screen, execute, script, write_file
from tests.web.conftest import NewScreen


def count_decisions(page: Page) -> list[str]:
    """The URLs of the decisions that the page sends from now on."""
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.url.endswith("/decision") else None)
    return sent


async def stop_time(page: Page) -> None:
    """From a second after now on: what was under way is done, and nothing is drawn any more."""
    await page.clock.pause_at(await page.evaluate("Date.now() / 1000 + 1"))


async def write(user: User, thread_id: str, path: str, content: str) -> None:
    """Change a file of the workspace while nobody looks."""
    reply = await user.client.put(f"/api/files/{thread_id}/content", params={"path": path}, content=content)
    assert reply.status_code in (200, 201), reply.text


async def test_a_key_decides_only_in_a_card_that_has_the_focus_and_has_been_there_for_a_while(
    new_screen: NewScreen, ada: User
):
    screen = await new_screen()
    await screen.page.clock.install()
    await screen.log_in(ada)
    await screen.new_session()
    await screen.say(script([execute("echo first"), execute("echo second")]))
    first, second = screen.card("echo first"), screen.card("echo second")
    await first.is_armed()
    decisions = count_decisions(screen.page)
    await screen.composer.press("a")
    await expect(screen.composer).to_have_value("a")
    await screen.composer.fill("")
    await screen.timeline.press("a")

    # Time stands still: when the first is decided, the second is deaf again until time goes on.
    await stop_time(screen.page)
    await first.approve()
    await expect(second.button("Approve")).to_have_attribute("aria-disabled", "true")
    await second.shown.press("a")
    await screen.page.clock.run_for(600)
    await second.is_armed()
    assert len(decisions) == 1
    await second.shown.press("a")
    await screen.page.clock.resume()
    await second.became("Approved")
    await screen.sees("That was all.")


async def test_what_was_edited_is_what_runs_and_both_forms_stay_to_be_seen(screen: Screen):
    await screen.new_session()
    await screen.say(script(execute("echo $((20 + 1))")))
    card = screen.card()
    await card.edit("command", "echo $((20 + 2))")
    await card.became("Edited and approved")
    await screen.sees("That was all.")
    await card.button("Details").click()
    await expect(card.shown.get_by_text("echo $((20 + 1))", exact=True).last).to_be_visible()
    await expect(card.shown.get_by_text("echo $((20 + 2))", exact=True).last).to_be_visible()
    await expect(await screen.open_panel("Terminal")).to_contain_text("22")


async def test_an_edit_of_a_file_shows_what_it_would_change_before_it_is_approved(screen: Screen):
    await screen.new_session()
    await screen.say(script(write_file("poem.txt", "roses are red\n")))
    card = screen.card("poem.txt")
    screen.watch.expect("404 GET /api/files/*/content")  # there is no such file yet
    await card.press("Edit")
    await card.shown.get_by_role("textbox", name="content").fill("roses are blue\n")
    await expect(card.shown.get_by_text("What your edit would change in the file as it is now")).to_be_visible()
    await card.button("Approve as edited").click()
    await card.became("Edited and approved")
    await screen.sees("That was all.")


async def test_a_rejection_tells_the_agent_why(screen: Screen):
    await screen.new_session()
    await screen.say(script(execute("rm -f notes.txt"), then="Then I leave it."))
    card = screen.card("rm -f notes.txt")
    await card.reject("the notes are needed")
    await card.became("Rejected")
    await expect(card.shown).to_contain_text("the notes are needed")
    await screen.sees("Then I leave it.")


async def test_an_answer_takes_the_place_of_the_call(screen: Screen):
    await screen.new_session()
    await screen.say(script(execute("cat secret.txt")))
    card = screen.card("cat secret.txt")
    await card.respond("it holds the word tulip")
    await card.became("Answered in the tool’s place")
    await screen.sees("That was all.")
    await card.button("Details").click()
    await expect(card.shown.get_by_text("It did not run.")).to_be_visible()


async def test_calls_in_parallel_are_decided_one_by_one(screen: Screen):
    await screen.new_session()
    await screen.say(script([execute("echo $((30 + 1))"), execute("echo $((30 + 2))"), execute("echo $((30 + 3))")]))
    second = screen.card("30 + 2")
    await second.reject("not this one")
    await second.became("Rejected")
    await screen.card("30 + 1").approve()
    await screen.card("30 + 3").approve()
    await screen.sees("That was all.")
    terminal = await screen.open_panel("Terminal")
    await expect(terminal).to_contain_text("31")
    await expect(terminal).to_contain_text("33")
    await expect(terminal.get_by_text("32", exact=True)).to_have_count(0)


async def test_a_remembered_rule_lets_the_next_call_pass_until_it_is_revoked(screen: Screen):
    await screen.new_session()
    await screen.say(script(execute("echo again"), execute("echo again")))
    card = screen.card("echo again")
    await card.press("Remember…")
    await card.button("Approve and remember").click()
    await screen.sees("That was all.")
    await expect(screen.page.locator("[data-approval=pending]")).to_have_count(0)

    await screen.say(script(execute("touch other")))
    other = screen.card("touch other")
    await other.button("Rules of this session").click()
    await screen.button("Revoke the rule for echo again").click()
    await expect(screen.text("Nothing is remembered in this session")).to_be_visible()
    await screen.button("Close").click()
    await other.reject("enough")
    await other.became("Rejected")

    await screen.say(script(execute("echo again")))
    await expect(screen.page.locator("[data-approval=pending]")).to_contain_text("echo again")


async def test_a_file_that_changed_meanwhile_is_looked_at_again(screen: Screen, ada: User):
    thread_id = await screen.new_session()
    await write(ada, thread_id, "notes.txt", "one\n")
    edit = {"file_path": "/workspace/notes.txt", "old_string": "one", "new_string": "two"}
    await screen.say(script(("edit_file", edit)))
    card = screen.card("notes.txt")
    await card.is_armed()
    await write(ada, thread_id, "notes.txt", "zero\none\n")
    screen.watch.expect("409 POST /api/approvals/*/decision")
    await card.approve()
    await expect(card.shown.get_by_role("alert")).to_contain_text("The file changed meanwhile: look again")
    await expect(card.shown.get_by_text("zero").first).to_be_visible()
    await card.approve()
    await card.became("Approved")
    await screen.sees("That was all.")


async def test_a_decision_in_one_tab_shows_in_the_other(screen: Screen):
    await screen.new_session()
    await screen.say(script(execute("echo shared")))
    other = await screen.another_tab()
    await other.open_session(screen.thread_id)
    await other.card("echo shared").is_armed()
    await screen.card("echo shared").approve()
    await other.card("echo shared").became("by you")
    await other.sees("That was all.")


async def test_an_answer_that_comes_too_late_is_told_who_was_first(screen: Screen, new_screen: NewScreen, ada: User):
    await screen.new_session()
    await screen.say(script(execute("echo late")))
    slow = await new_screen()
    await slow.page.clock.install()
    await slow.log_in(ada, f"sessions/{screen.thread_id}")
    card = slow.card("echo late")
    await card.is_armed()
    await stop_time(slow.page)  # it draws nothing new
    await screen.card("echo late").reject("no")
    await screen.card("echo late").became("Rejected")
    slow.watch.expect("409 POST /api/approvals/*/decision")
    await card.approve()
    await card.became("This was decided elsewhere before your answer came.")
    await expect(card.shown).to_contain_text("Rejected")


async def test_a_command_with_hidden_characters_is_marked_and_cannot_be_remembered(screen: Screen):
    await screen.new_session()
    await screen.say(script(execute("echo visible\u200b # \u202egnp.tac\u202c")))
    card = screen.card("gnp.tac")
    await expect(card.shown.get_by_text("Look twice")).to_be_visible()
    await expect(card.shown.get_by_text("3 characters in “command” are invisible")).to_be_visible()
    await expect(card.shown.get_by_text("U+202E").first).to_be_visible()
    await expect(card.button("Remember…")).to_have_count(0)
    await card.approve()
    await card.became("Approved")


async def test_all_that_waits_in_all_sessions_is_answered_from_the_inbox_on_a_phone(new_screen: NewScreen, ada: User):
    for command in ("echo $((40 + 1))", "echo $((40 + 2))"):
        await ada.play(await ada.new_session(title=f"About {command}"), ("execute", {"command": command}))
    screen = await new_screen(Look(width=390))
    await screen.log_in(ada, "approvals")
    await expect(screen.text("2 approvals wait")).to_be_visible()
    await screen.assert_fits()
    await screen.card("40 + 1").approve()
    await screen.card("40 + 1").became("Approved")
    await screen.card("40 + 2").reject("once is enough")
    await expect(screen.text("Nothing waits for you")).to_be_visible()
    await screen.page.get_by_role("tab", name="History").click()
    await expect(screen.text("once is enough")).to_be_visible()
