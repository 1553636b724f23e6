"""Settings: how this browser shows things, the account, and API keys."""

import httpx
from playwright.async_api import Locator, expect
from tests.api.harness import PASSWORD, Server, User
from tests.web.browser import Look, Screen
from tests.web.conftest import NewScreen
from tests.web.words import CHINESE

NEW = "another horse battery"
LIGHT, DARK = "rgb(246, 248, 249)", "rgb(15, 21, 24)"


def card(screen: Screen, title: str) -> Locator:
    heading = screen.page.get_by_role("heading", name=title, exact=True)
    return screen.page.locator(".cards > .v-card").filter(has=heading)


async def pick(screen: Screen, field: str, option: str) -> None:
    await screen.page.locator(".v-select").filter(has_text=field).click()
    await screen.page.get_by_role("option", name=option, exact=True).click()


async def test_language_and_theme_are_kept_by_this_browser(screen: Screen):
    await screen.open("settings")
    page, chinese = screen.page.locator(".v-application"), screen.page.get_by_role("heading", name="设置", exact=True)
    await pick(screen, "Language", "中文")
    await expect(chinese).to_be_visible()
    await pick(screen, "主题", "深色")
    await expect(page).to_have_css("background-color", DARK)
    await screen.page.reload()
    await expect(chinese).to_be_visible()
    await expect(screen.page.locator("html")).to_have_attribute("lang", "zh-CN")
    await expect(page).to_have_css("background-color", DARK)
    await screen.assert_accessible()
    await pick(screen, "语言", "English")
    await pick(screen, "Theme", "Light")
    await expect(page).to_have_css("background-color", LIGHT)


async def test_language_and_theme_are_in_the_account_menu_too(screen: Screen, ada: User):
    await screen.button(f"Account of {ada.name}").click()
    await screen.page.get_by_label("中文").check()
    await screen.page.get_by_label("深色").check()
    await expect(screen.page.locator(".v-theme--dark").first).to_be_visible()
    await screen.assert_accessible()
    await screen.page.get_by_role("button", name="退出登录").click()
    await expect(screen.button(CHINESE.log_in)).to_be_visible()


async def test_an_api_key_is_shown_once_works_and_is_revoked(screen: Screen, server: Server):
    await screen.open("settings")
    keys = card(screen, "API keys")
    await expect(keys.get_by_text("No API keys yet.")).to_be_visible()
    await keys.get_by_role("button", name="New API key").click()
    await keys.get_by_label("What it is for").fill("backup")
    await screen.assert_accessible()
    await keys.get_by_role("button", name="Create the key").click()
    await expect(keys.get_by_text("Copy it now")).to_be_visible()
    key = await keys.locator("code.key").inner_text()

    async with httpx.AsyncClient(base_url=server.url, headers={"authorization": f"Bearer {key}"}) as program:
        assert (await program.get("/api/sessions")).status_code == 200
        assert (await program.post("/api/sessions")).status_code == 403  # it may only look
        await screen.page.reload()
        await expect(keys.get_by_text("backup")).to_be_visible()
        await expect(keys).not_to_contain_text(key)
        await expect(keys.get_by_text("never used")).to_have_count(0)

        await keys.get_by_role("button", name="Revoke").click()
        await expect(screen.dialog).to_contain_text("Revoke the key “backup”?")
        await screen.assert_accessible()
        await screen.dialog.get_by_role("button", name="Revoke").click()
        await expect(keys.get_by_text("No API keys yet.")).to_be_visible()
        assert (await program.get("/api/sessions")).status_code == 401


async def test_a_password_is_changed_and_other_devices_are_out(screen: Screen, new_screen: NewScreen, ada: User):
    elsewhere = await new_screen()
    await elsewhere.log_in(ada, "settings")
    await screen.open("settings")
    account = card(screen, "Account")
    await account.get_by_label("Current password").fill("wrong horse battery")
    await account.get_by_label("New password").fill(NEW)
    screen.watch.expect("401 POST /api/auth/password")
    await account.get_by_role("button", name="Change the password").click()
    await expect(account.locator(".v-alert")).to_contain_text("Wrong user name or password")
    await account.get_by_label("Current password").fill(PASSWORD)
    await account.get_by_role("button", name="Change the password").click()
    await expect(account.get_by_text("The password is changed.")).to_be_visible()
    await screen.assert_accessible()

    await screen.page.get_by_role("link", name="Approvals").click()  # this page goes on
    await expect(screen.page.get_by_role("heading", name="Approvals")).to_be_visible()
    elsewhere.watch.expect("401 GET /api/*")
    await expect(elsewhere.text("You have been logged out.")).to_be_visible()
    elsewhere.watch.expect("401 POST /api/auth/login")
    await elsewhere.give_password(ada.name)
    await expect(elsewhere.page.locator(".v-alert").last).to_contain_text("Wrong user name or password")
    await elsewhere.page.get_by_label("Password").fill(NEW)
    await elsewhere.button("Log in").click()
    await elsewhere.page.wait_for_url("**/app/settings")


async def test_a_weak_new_password_is_refused_in_words(screen: Screen):
    await screen.open("settings")
    account = card(screen, "Account")
    await account.get_by_label("Current password").fill(PASSWORD)
    await account.get_by_label("New password").fill("short")
    screen.watch.expect("422 POST /api/auth/password")
    await account.get_by_role("button", name="Change the password").click()
    await expect(account.locator(".v-alert")).to_contain_text("8")


async def test_logging_out_everywhere_ends_the_other_tabs_session_too(screen: Screen):
    other = await screen.another_tab()
    await other.open("settings")
    await expect(card(other, "Account")).to_be_visible()
    await screen.open("settings")
    await card(screen, "Account").get_by_role("button", name="Log out everywhere").click()
    await expect(screen.button("Log in")).to_be_visible()
    screen.watch.expect("401 *")
    await expect(other.button("Log in")).to_be_visible()


async def test_settings_on_a_phone(new_screen: NewScreen, ada: User):
    screen = await new_screen(Look(CHINESE, 390, "dark"))
    await screen.log_in(ada, "settings")
    await expect(card(screen, "服务器信息").get_by_text("scripted:calls")).to_be_visible()
    await screen.assert_fits()
    await screen.assert_accessible()
