"""Who may be here: log-ins that end, in this tab or elsewhere, and sessions of others."""

from playwright.async_api import expect
from tests.api.harness import User
from tests.web.browser import Screen, execute, script
from tests.web.conftest import NewPerson, NewScreen

LOGGED_OUT = "You have been logged out. Log in to go on where you were."


async def test_a_log_in_that_ended_comes_back_to_the_same_page_with_what_was_typed(screen: Screen, ada: User):
    thread_id = await screen.new_session()
    await screen.say(script(execute("echo waits")))
    await screen.card("echo waits").is_armed()
    await screen.composer.fill("half a message")
    screen.watch.expect("401 *")
    assert (await ada.client.post("/api/auth/logout-all")).status_code == 204
    await expect(screen.text(LOGGED_OUT)).to_be_visible()
    await screen.give_password(ada.name)
    await screen.page.wait_for_url(f"**/app/sessions/{thread_id}")
    await expect(screen.composer).to_have_value("half a message")
    await screen.card("echo waits").approve()
    await screen.sees("That was all.")


async def test_a_log_out_in_one_tab_is_one_in_the_other(screen: Screen, ada: User):
    other = await screen.another_tab()
    await other.open("settings")
    await expect(other.page.get_by_role("heading", name="Settings")).to_be_visible()
    screen.watch.expect("401 *")
    await screen.button(f"Account of {ada.name}").click()
    await screen.button("Log out").click()
    await screen.page.wait_for_url("**/app/login")
    await expect(other.text(LOGGED_OUT)).to_be_visible()


async def test_a_wrong_password_is_told(new_screen: NewScreen, ada: User):
    screen = await new_screen()
    screen.watch.expect("401 POST /api/auth/login", "401 POST /api/auth/refresh")
    await screen.open()
    await screen.page.get_by_label("User name").fill(ada.name)
    await screen.page.get_by_label("Password").fill("not the password")
    await screen.button("Log in").click()
    await expect(screen.text("Wrong user name or password.")).to_be_visible()


async def test_a_link_to_anothers_session_is_refused_politely(screen: Screen, new_person: NewPerson):
    eve = await new_person()
    await eve.play(thread_id := await eve.new_session(title="Eve’s secret"), ("execute", {"command": "echo secret"}))
    screen.watch.expect(f"403 GET /api/sessions/{thread_id}*")
    await screen.open(f"sessions/{thread_id}")
    await expect(screen.page.get_by_role("main").get_by_role("alert")).to_be_visible()
    await expect(screen.page.get_by_text("secret")).to_have_count(0)
    await expect(screen.composer).to_have_count(0)
    await screen.page.get_by_role("link", name="To the sessions").click()
    await expect(screen.page.get_by_role("main").get_by_role("button", name="New session")).to_be_visible()


async def test_a_closed_session_can_be_read_and_says_why_it_takes_no_more(screen: Screen, ada: User):
    thread_id = await screen.new_session()
    await screen.say(script(then="All is said."))
    await screen.sees("All is said.")
    assert (await ada.client.post(f"/api/sessions/{thread_id}/close")).status_code == 200
    await screen.page.reload()
    await screen.sees("All is said.")
    await expect(screen.text("This session is closed: it can be read, and takes no more messages.")).to_be_visible()
    await expect(screen.composer).to_have_count(0)


async def test_an_address_where_nothing_is_leads_back(screen: Screen):
    await screen.open("nothing/here")
    await expect(screen.text("There is nothing at this address.")).to_be_visible()
    await screen.page.get_by_role("link", name="To the sessions").click()
    await screen.page.wait_for_url("**/app/")
