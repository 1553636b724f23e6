"""Every page as it is looked at and walked through: widths, themes, languages, without a mouse."""

import pytest
from playwright.async_api import expect
from tests.api.harness import PASSWORD, User
from tests.web.browser import Look, Screen, execute, script
from tests.web.conftest import NewScreen
from tests.web.words import CHINESE, ENGLISH

LOOKS = [
    Look(ENGLISH, 1360, "light"),
    Look(CHINESE, 1360, "dark"),
    Look(CHINESE, 390, "light"),
    Look(ENGLISH, 390, "dark"),
]
PAGES = ["", "approvals", "shared", "settings"]


@pytest.mark.parametrize("look", LOOKS, ids=str)
async def test_every_page_fits_and_can_be_used_by_all(new_screen: NewScreen, ada: User, look: Look):
    thread_id = await ada.new_session(
        title="A session with a rather long title, as agents give them to it / 很长的标题"
    )
    await ada.play(thread_id, ("execute", {"command": "echo " + "long " * 40}))
    screen = await new_screen(look)
    await screen.log_in(ada)
    for page in [*PAGES, f"sessions/{thread_id}", "no/such/page"]:
        await screen.open(page)
        await expect(screen.page.get_by_role("heading", level=1)).to_be_attached()
        await expect(screen.page.locator(".v-skeleton-loader")).to_have_count(0)
        await screen.assert_fits()
        await screen.assert_accessible()


@pytest.mark.parametrize("look", [Look(CHINESE, 390, "dark"), Look(ENGLISH, 1360, "light")], ids=str)
async def test_the_log_in_fits_and_can_be_used_by_all(new_screen: NewScreen, look: Look):
    screen = await new_screen(look)
    screen.watch.expect("401 POST /api/auth/refresh")
    await screen.open()
    await expect(screen.button(look.words.log_in)).to_be_visible()
    await screen.assert_fits()
    await screen.assert_accessible()


async def test_whoever_types_fast_keeps_the_password_out_of_the_name(new_screen: NewScreen):
    screen = await new_screen()
    screen.watch.expect("401 POST /api/auth/refresh")
    await screen.page.add_init_script(TYPE_AT_ONCE)
    await screen.open()
    await expect(screen.page.get_by_label("Password")).to_have_value("secret")
    await expect(screen.page.get_by_label("Password")).to_be_focused()
    await screen.page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))")
    await expect(screen.page.get_by_label("Password")).to_be_focused()


# The moment the form is there: faster than any hand.
TYPE_AT_ONCE = """new MutationObserver((_, observer) => {
    const field = document.querySelector('input[name=password]')
    if (!field) return
    observer.disconnect()
    setTimeout(() => {
        field.focus()
        field.value = 'secret'
        field.dispatchEvent(new Event('input'))
    })
}).observe(document, { childList: true, subtree: true })"""


async def test_an_unknown_address_leads_back(screen: Screen):
    await screen.open("no/such/page")
    await expect(screen.text("There is nothing at this address.")).to_be_visible()
    await screen.page.get_by_role("link", name="To the sessions").click()
    await screen.page.wait_for_url("**/app/")


async def test_all_of_it_goes_without_a_mouse(new_screen: NewScreen, ada: User):
    screen = await new_screen()
    screen.watch.expect("401 POST /api/auth/refresh")
    await screen.open()
    keys = screen.page.keyboard
    await expect(screen.page.get_by_label("User name")).to_be_focused()
    await keys.type(ada.name)
    await keys.press("Tab")
    await keys.type(PASSWORD)
    await keys.press("Enter")
    await screen.page.wait_for_url("**/app/")

    await expect(screen.page.get_by_role("link", name="Moorage")).to_be_visible()
    await tab_to(screen, "New session")
    await keys.press("Enter")
    await screen.page.wait_for_url("**/app/sessions/*")
    await expect(screen.composer).to_be_visible()
    await tab_to(screen, "Message")
    await keys.type(script(execute("echo $((70 + 7))")))
    await keys.press("Enter")
    card = screen.card("70 + 7")
    await card.is_armed()
    await tab_to(screen, "Approve", backwards=True)
    await keys.press("a")
    await card.became("Approved")
    await screen.sees("That was all.")
    await expect(screen.composer).to_be_focused()


FOCUSED = """() => {
    const at = document.activeElement
    return at.getAttribute('aria-label') ?? at.labels?.[0]?.textContent ?? at.textContent ?? ''
}"""


async def tab_to(screen: Screen, name: str, *, backwards: bool = False) -> None:
    """Press Tab until what has the focus has this name; it must not take more than 60 of them."""
    for _ in range(60):
        if (await screen.page.evaluate(FOCUSED)).strip().startswith(name):
            return
        await screen.page.keyboard.press("Shift+Tab" if backwards else "Tab")
    raise AssertionError(f"No way to {name!r} by keyboard")
