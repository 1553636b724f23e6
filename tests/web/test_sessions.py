"""The list of sessions: found, renamed, pinned, put away, exported, deleted, and first what needs an answer."""

import pytest
from playwright.async_api import Locator, expect
from tests.api.harness import User
from tests.web.browser import Look, Screen
from tests.web.conftest import NewPerson, NewScreen


def sessions(screen: Screen) -> Locator:
    return screen.page.get_by_role("navigation", name="Sessions")


def group(screen: Screen, title: str) -> Locator:
    """The sessions below this heading."""
    heading = screen.page.get_by_role("heading", name=title, exact=True)
    return sessions(screen).locator("section").filter(has=heading).get_by_role("link")


async def listed(ada: User, **params: object) -> list[str]:
    reply = await ada.client.get("/api/sessions", params=params)
    return [one["title"] for one in reply.json()["items"]]


@pytest.fixture
async def three(ada: User) -> list[str]:
    """Sessions of Ada's with a title each; the last is the newest."""
    made: list[str] = []
    for title, said in (("Budget", "numbers of spring"), ("Garden", "tulips and roses"), ("Letters", "dear uncle")):
        made.append(await ada.new_session(title=title))
        await ada.play(made[-1], then=f"I think of {said}.")
    return made


@pytest.fixture
async def screen(new_screen: NewScreen, ada: User, three: list[str]) -> Screen:
    screen = await new_screen()
    await screen.log_in(ada)
    await expect(group(screen, "Recent")).to_have_count(3)
    return screen


async def test_the_latest_comes_first(screen: Screen):
    await expect(group(screen, "Recent")).to_contain_text(["Letters", "Garden", "Budget"])


async def test_sessions_are_found_by_title_and_by_what_was_said(screen: Screen, three: list[str]):
    search = screen.page.get_by_role("searchbox", name="Search sessions and messages")
    await search.fill("budg")
    await expect(group(screen, "Found")).to_contain_text(["Budget"])
    await search.fill("tulips")
    found = group(screen, "In messages")
    await expect(found.first).to_contain_text("Garden")
    await expect(found.first).to_contain_text("tulips")
    await found.first.click()
    await screen.page.wait_for_url(f"**/sessions/{three[1]}")
    await screen.sees("I think of tulips and roses.")
    await search.fill("nothing of that kind")
    await expect(sessions(screen).get_by_text("Nothing found.")).to_be_visible()
    await screen.assert_accessible()
    await search.fill("")
    await expect(group(screen, "Recent")).to_have_count(3)


async def test_a_session_is_renamed(screen: Screen, ada: User):
    await screen.choose("What to do with “Garden”", "Rename")
    await expect(screen.dialog.get_by_label("Name")).to_be_focused()
    await screen.assert_accessible()
    await screen.dialog.get_by_label("Name").fill("Flowers")
    await screen.dialog.get_by_label("Name").press("Enter")
    await expect(group(screen, "Recent").filter(has_text="Flowers")).to_have_count(1)
    assert set(await listed(ada)) == {"Budget", "Flowers", "Letters"}


async def test_a_pinned_session_is_above_the_others(screen: Screen):
    await screen.choose("What to do with “Budget”", "Pin")
    await expect(group(screen, "Pinned")).to_contain_text(["Budget"])
    await expect(group(screen, "Recent")).to_contain_text(["Letters", "Garden"])
    await screen.choose("What to do with “Budget”", "Unpin")
    await expect(group(screen, "Recent")).to_have_count(3)


async def test_a_session_goes_into_the_archive_and_back(screen: Screen, ada: User):
    await screen.choose("What to do with “Garden”", "Archive")
    await expect(group(screen, "Recent")).to_have_count(2)
    assert await listed(ada, archived=True) == ["Garden"]
    await screen.button("Show the archive").click()
    await expect(group(screen, "Archive")).to_contain_text(["Garden"])
    await screen.choose("What to do with “Garden”", "Take out of the archive")
    await expect(screen.text("The archive is empty.")).to_be_visible()
    await screen.button("Back to the sessions").click()
    await expect(group(screen, "Recent")).to_have_count(3)


async def test_an_export_holds_what_was_said(screen: Screen):
    await screen.button("What to do with “Letters”").click()
    text = await screen.keep(screen.page.get_by_text("Export as Markdown"))
    assert b"I think of dear uncle." in text
    assert b"Letters" in text


async def test_a_session_is_deleted_only_when_that_is_confirmed(screen: Screen, ada: User, three: list[str]):
    await screen.open_session(three[1])
    await screen.choose("What to do with “Garden”", "Delete")
    await expect(screen.dialog).to_contain_text("This cannot be undone.")
    await screen.assert_accessible()
    await screen.dialog.get_by_role("button", name="Cancel").click()
    assert len(await listed(ada)) == 3
    await screen.choose("What to do with “Garden”", "Delete")
    # Its stream ends, and the page may ask for what is left of it before it is left itself.
    screen.watch.allow(f"404 GET /api/sessions/{three[1]}*")
    await screen.dialog.get_by_role("button", name="Delete").click()
    await screen.page.wait_for_url("**/app/")
    await expect(group(screen, "Recent")).to_contain_text(["Letters", "Budget"])
    assert (await ada.client.get(f"/api/sessions/{three[1]}")).status_code == 404


async def test_what_waits_for_an_answer_is_above_all_and_counted(screen: Screen, ada: User, three: list[str]):
    await screen.choose("What to do with “Letters”", "Pin")
    await ada.play(three[0], ("execute", {"command": "echo asked"}))
    await screen.page.reload()
    await expect(group(screen, "Needs you")).to_contain_text(["Budget"])
    headings = sessions(screen).get_by_role("heading")
    await expect(headings).to_have_text(["Needs you", "Pinned", "Recent"])
    await expect(screen.page.get_by_role("link", name="Approvals").get_by_text("1 waits for you")).to_be_attached()


async def test_on_a_phone_the_list_is_a_drawer(new_screen: NewScreen, ada: User, three: list[str]):
    screen = await new_screen(Look(width=390))
    await screen.log_in(ada)
    await screen.button("Menu").click()
    await group(screen, "Recent").filter(has_text="Garden").click()
    await screen.page.wait_for_url(f"**/sessions/{three[1]}")
    await expect(screen.button("New session")).not_to_be_in_viewport()
    await screen.sees("I think of tulips and roses.")
    await screen.assert_fits()


async def test_a_link_to_somebody_elses_session_leads_nowhere(screen: Screen, new_person: NewPerson):
    bert = await new_person()
    theirs = await bert.new_session(title="Private matters")
    await bert.play(theirs, then="Nobody else may read this.")
    screen.watch.expect("403 GET /api/sessions/*")
    await screen.open(f"sessions/{theirs}")
    await expect(screen.page.get_by_role("main").locator(".v-alert")).to_contain_text("This session is not yours.")
    await expect(screen.text("Private matters")).to_have_count(0)
    await expect(screen.composer).to_have_count(0)
    await screen.assert_accessible()
    await screen.page.get_by_role("link", name="To the sessions").click()
    await screen.page.wait_for_url("**/app/")
