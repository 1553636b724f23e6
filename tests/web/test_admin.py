"""Administration: accounts, sandboxes, the system check; and who must not see it."""

import httpx
import pytest
from playwright.async_api import Locator, expect
from tests.api.harness import PASSWORD, Server, User, read_events, run
from tests.web.browser import Look, Screen
from tests.web.conftest import NewPerson, NewScreen
from tests.web.test_settings import card
from tests.web.words import CHINESE

NEW = "another horse battery"


@pytest.fixture(scope="module")
async def boss(server: Server) -> User:
    await server.runtime.identity.create_user("boss", PASSWORD, is_admin=True)
    return User("boss", httpx.AsyncClient(base_url=server.url))


@pytest.fixture
async def screen(new_screen: NewScreen, boss: User) -> Screen:
    """The administrator's, at the page of that name."""
    screen = await new_screen()
    await screen.log_in(boss, "admin")
    return screen


def account(screen: Screen, name: str) -> Locator:
    return card(screen, "Accounts").get_by_role("listitem").filter(has_text=name)


async def test_an_account_is_made_and_whoever_has_it_comes_in(screen: Screen, new_screen: NewScreen):
    await screen.button("New account").click()
    await screen.dialog.get_by_label("User name").fill("boss")
    await screen.dialog.get_by_label("New password").fill(PASSWORD)
    screen.watch.expect("409 POST /api/admin/users")
    await screen.dialog.get_by_role("button", name="Create the account").click()
    await expect(screen.dialog.locator(".v-alert")).to_contain_text("This user name is taken.")
    await screen.assert_accessible()
    await screen.dialog.get_by_label("User name").fill("dora")
    await screen.dialog.get_by_role("button", name="Create the account").click()
    await expect(account(screen, "dora")).to_be_visible()
    dora = await new_screen()
    await dora.log_in(User("dora", httpx.AsyncClient()))
    await expect(dora.page.get_by_role("link", name="Settings")).to_be_visible()
    await expect(dora.page.get_by_role("link", name="Administration")).to_have_count(0)


async def test_a_disabled_account_is_out_at_once_and_comes_back(screen: Screen, new_screen: NewScreen, ada: User):
    theirs = await new_screen()
    await theirs.log_in(ada)
    await screen.page.get_by_role("textbox", name="Search by name").fill(ada.name)
    await expect(card(screen, "Accounts").get_by_role("listitem")).to_have_count(1)
    await account(screen, ada.name).get_by_role("button", name="Disable").click()
    await expect(screen.dialog).to_contain_text(f"Disable {ada.name}?")
    await screen.assert_accessible()
    await screen.dialog.get_by_role("button", name="Disable").click()
    await expect(account(screen, ada.name)).to_contain_text("disabled")

    theirs.watch.expect("401 GET /api/*")
    await expect(theirs.text("You have been logged out.")).to_be_visible()
    theirs.watch.expect("401 POST /api/auth/login")
    await theirs.give_password(ada.name)
    await expect(theirs.page.locator(".v-alert").last).to_contain_text("Wrong user name or password")
    await account(screen, ada.name).get_by_role("button", name="Let in again").click()
    await expect(account(screen, ada.name).get_by_role("button", name="Disable")).to_be_visible()
    await theirs.button("Log in").click()
    await theirs.page.wait_for_url("**/app/")


async def test_a_password_is_set_for_somebody(screen: Screen, ada: User):
    await screen.page.get_by_role("textbox", name="Search by name").fill(ada.name)
    await account(screen, ada.name).get_by_role("button", name="Set a password").click()
    await screen.dialog.get_by_label("New password").fill(NEW)
    await screen.dialog.get_by_role("button", name="Set a password").click()
    await expect(screen.dialog).to_have_count(0)
    for password, status in ((PASSWORD, 401), (NEW, 200)):
        answer = await ada.client.post("/api/auth/login", json={"username": ada.name, "password": password})
        assert answer.status_code == status


async def test_nobody_can_lock_themselves_out(screen: Screen):
    await expect(account(screen, "boss")).to_contain_text("you")
    await expect(account(screen, "boss").get_by_role("button")).to_have_count(0)


async def test_a_sandbox_is_stopped_and_a_busy_one_only_when_that_is_confirmed(
    screen: Screen, server: Server, ada: User
):
    thread_id = await ada.new_session()
    await run(ada, thread_id, "echo warm")
    await screen.page.reload()
    sandboxes = card(screen, "Sandboxes")
    sandbox = sandboxes.get_by_role("listitem").filter(has_text=thread_id)
    await sandbox.get_by_role("button", name="Stop").click()
    await expect(screen.dialog).to_contain_text("Its files stay")
    await screen.assert_accessible()
    await screen.dialog.get_by_role("button", name="Stop", exact=True).click()
    await expect(sandbox).to_have_count(0)
    assert "again" in await run(ada, thread_id, "echo again")  # it starts anew

    await ada.play(thread_id, ("execute", {"command": "echo started; sleep 600"}))
    async with ada.client.stream("POST", f"/api/resume/{thread_id}", json={"action": "continue"}) as reply:
        async for event in read_events(reply):
            assert event.type != "done", event
            if event.type == "tool_output":
                break
    await screen.page.reload()
    await sandbox.get_by_role("button", name="Stop").click()
    screen.watch.expect("409 POST /api/admin/sandboxes/*/stop")
    await screen.dialog.get_by_role("button", name="Stop", exact=True).click()
    await expect(screen.dialog).to_contain_text("A command is running in it.")
    await screen.dialog.get_by_role("button", name="Stop it all the same").click()
    await expect(sandbox).to_have_count(0)


async def test_the_system_check_says_what_it_found(screen: Screen):
    check = card(screen, "System check")
    await expect(check.get_by_role("listitem").first).to_be_visible()
    await check.get_by_role("button", name="Check again").click()
    await expect(check.get_by_role("listitem").first).to_be_visible()
    await screen.assert_accessible()


async def test_administration_on_a_phone(new_screen: NewScreen, boss: User):
    screen = await new_screen(Look(CHINESE, 390, "dark"))
    await screen.log_in(boss, "admin")
    await expect(card(screen, "账号").get_by_role("listitem").first).to_be_visible()
    await expect(card(screen, "系统检查").get_by_role("listitem").first).to_be_visible()
    await screen.assert_fits()
    await screen.assert_accessible()


async def test_for_everybody_else_there_is_no_such_page(new_screen: NewScreen, new_person: NewPerson):
    screen = await new_screen()
    await screen.log_in(await new_person())
    await expect(screen.page.get_by_role("link", name="Settings")).to_be_visible()
    await expect(screen.page.get_by_role("link", name="Administration")).to_have_count(0)
    await screen.open("admin")
    await expect(screen.text("There is nothing at this address.")).to_be_visible()
    await screen.assert_accessible()
