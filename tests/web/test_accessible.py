"""Everybody can use every state of the conversation and its questions: axe finds nothing, nothing is cut off."""

import pytest
from playwright.async_api import expect
from tests.api.harness import User
from tests.web.browser import Look, Screen, execute, script, write_file
from tests.web.conftest import NewScreen
from tests.web.words import CHINESE, ENGLISH

LOOKS = [
    Look(ENGLISH, 1360, "light"),
    Look(ENGLISH, 390, "dark"),
    Look(CHINESE, 1360, "dark"),
    Look(CHINESE, 390, "light"),
]
WAITS = "echo $((60 + 1)); until [ -e go ]; do sleep 0.1; done"


async def looks_right(screen: Screen) -> None:
    await screen.assert_fits()
    await screen.assert_accessible()


@pytest.mark.parametrize("look", LOOKS, ids=str)
async def test_the_way_from_the_log_in_to_a_decided_question(new_screen: NewScreen, ada: User, look: Look):
    screen, words = await new_screen(look), look.words
    screen.watch.expect("401 POST /api/auth/refresh", "404 GET /api/files/*/content")
    await screen.open()
    await expect(screen.button(words.log_in)).to_be_visible()
    await looks_right(screen)
    await screen.give_password(ada.name)
    await expect(screen.page.get_by_role("button", name=words.starter)).to_be_visible()
    await looks_right(screen)

    thread_id = await screen.new_session()
    await expect(screen.composer).to_be_visible()
    await looks_right(screen)
    calls = [write_file("poem.txt", "roses are red\n"), execute("rm -rf ~ \u200b"), execute(WAITS)]
    await screen.say(
        script(calls, then="## A title\n\n| a | b |\n|---|---|\n| 1 | `two` |\n\n```python\nprint(1)\n```")
    )
    writes, flagged, waits = screen.card("poem.txt"), screen.card("rm -rf"), screen.card("until [ -e go ]")
    await waits.is_armed()
    await looks_right(screen)
    await writes.press(words.edit)
    await writes.shown.get_by_role("textbox", name="content").fill("roses are blue\n")
    await expect(writes.shown.get_by_text(words.edited_file)).to_be_visible()
    await looks_right(screen)
    await writes.button(words.approve_edited).click()
    await writes.became(words.edited)
    await flagged.press(words.reject)
    await looks_right(screen)
    await flagged.button(words.reject).click()
    await flagged.became(words.rejected)
    await waits.press(words.remember)
    await expect(waits.button(words.approve_and_remember)).to_be_visible()
    await looks_right(screen)
    await waits.button(words.approve_and_remember).click()
    await screen.sees("61")
    await looks_right(screen)
    for tab in (words.plan, words.files, words.terminal):
        await screen.open_panel(tab)
        await looks_right(screen)
    assert (await ada.client.put(f"/api/files/{thread_id}/content", params={"path": "go"})).status_code == 201
    await expect(screen.timeline.locator("table", has_text="two")).to_be_attached()
    await looks_right(screen)


@pytest.mark.parametrize("look", LOOKS, ids=str)
async def test_the_inbox_and_the_settings(new_screen: NewScreen, ada: User, look: Look):
    for command in ("echo one", "echo two"):
        await ada.play(await ada.new_session(title=command), ("execute", {"command": command}))
    screen = await new_screen(look)
    await screen.log_in(ada, "approvals")
    await screen.card("echo one").is_armed()
    await looks_right(screen)
    await screen.card("echo one").approve()
    await screen.card("echo one").became(look.words.approved)
    await looks_right(screen)
    await screen.open("settings")
    await expect(screen.page.get_by_role("heading", name=look.words.settings)).to_be_visible()
    await looks_right(screen)
