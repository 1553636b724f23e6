"""The first start: whoever holds the link that the server printed makes the administrator's account."""

import pytest
from playwright.async_api import expect
from tests.api.harness import PASSWORD, Server
from tests.web.browser import Look, Screen
from tests.web.conftest import NewScreen
from tests.web.words import CHINESE


@pytest.fixture
async def link(server: Server) -> str:
    token = await server.runtime.identity.create_setup_link_if_first_start()
    assert token is not None
    return f"setup?token={token}"


async def fill(screen: Screen, name: str, password: str, again: str) -> None:
    await screen.page.get_by_label("User name").fill(name)
    await screen.page.get_by_label("Password", exact=True).fill(password)
    await screen.page.get_by_label("Password again").fill(again)
    await screen.button("Create the administrator").click()


async def test_without_its_token_the_page_says_where_to_get_it(new_screen: NewScreen):
    screen = await new_screen(Look(CHINESE, 390, "dark"))
    await screen.open("setup")
    await expect(screen.text("此页面需要服务器启动时打印的链接。")).to_be_visible()
    await screen.assert_fits()
    await screen.assert_accessible()


async def test_a_link_that_the_server_never_gave_is_refused(new_screen: NewScreen):
    screen = await new_screen()
    await screen.open("setup?token=guessed")
    screen.watch.expect("403 POST /api/auth/setup")
    await fill(screen, "mallory", PASSWORD, PASSWORD)
    await expect(screen.page.locator(".v-alert")).to_contain_text("This link is not valid any more.")


async def test_the_first_one_becomes_the_administrator_and_the_link_works_once(new_screen: NewScreen, link: str):
    screen = await new_screen()
    await screen.open(link)
    await screen.assert_accessible()
    await fill(screen, "boss", PASSWORD, "something else")
    await expect(screen.text("The two passwords are not the same.")).to_be_visible()
    assert "/setup" in screen.page.url
    screen.watch.expect("422 POST /api/auth/setup")
    await fill(screen, "boss", "short", "short")
    await expect(screen.page.locator(".v-alert").first).to_contain_text("8")
    await fill(screen, "boss", PASSWORD, PASSWORD)
    await screen.page.wait_for_url("**/app/")
    await screen.page.get_by_role("link", name="Administration").click()
    await expect(screen.page.get_by_role("heading", name="Administration")).to_be_visible()

    late = await new_screen()
    await late.open(link)
    late.watch.expect("403 POST /api/auth/setup")
    await fill(late, "late", PASSWORD, PASSWORD)
    await expect(late.page.locator(".v-alert")).to_contain_text("This link is not valid any more.")
