"""The first minute with Moorage: nothing is configured but the scripted model, and nobody is known yet."""

from typing import Any

import pytest
from playwright.async_api import expect
from tests.api.harness import PASSWORD
from tests.web.browser import Look, Screen
from tests.web.conftest import NewScreen
from tests.web.words import CHINESE, ENGLISH

LOOKS = [Look(ENGLISH), Look(CHINESE, 390, "dark")]


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    return {"llm_model": "scripted:demo"}


async def register(screen: Screen, name: str) -> None:
    screen.watch.expect("401 POST /api/auth/refresh")
    await screen.open()
    await screen.button(screen.words.register).click()
    await screen.page.get_by_label(screen.words.user_name).fill(name)
    await screen.page.get_by_label(screen.words.password).fill(PASSWORD)
    await screen.page.locator("form").get_by_role("button", name=screen.words.register).click()


@pytest.mark.parametrize("look", LOOKS, ids=str)
async def test_a_newcomer_gets_from_an_empty_account_to_an_edited_command(new_screen: NewScreen, look: Look):
    screen = await new_screen(look)
    words = look.words
    await register(screen, f"newcomer{LOOKS.index(look)}")
    await expect(screen.text(words.scripted)).to_be_visible()
    await screen.page.get_by_role("button", name=words.starter).click()

    writes = screen.card("hello.py")
    await expect(writes.shown.get_by_role("table")).to_contain_text("print(")
    await writes.approve()
    runs = screen.card("python hello.py")
    await runs.edit(words.command, "echo before; python hello.py; echo after")
    await screen.sees("before", "after")

    panel = await screen.open_panel(words.plan)
    await expect(panel.get_by_text(words.plan_done)).to_be_visible()
    panel = await screen.open_panel(words.files)
    await expect(panel.get_by_role("button", name="hello.py").first).to_be_visible()
    panel = await screen.open_panel(words.terminal)
    await expect(panel).to_contain_text("echo before; python hello.py; echo after")
