"""People at their browsers: what they see and do in the web UI, in the domain's words."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import orjson
from playwright.async_api import Browser, BrowserContext, Locator, Page, async_playwright, expect
from tests.api.harness import PASSWORD, User
from tests.web.watch import Watch
from tests.web.words import ENGLISH, Words

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# So long a browser is waited for, in ms: for a machine that is busy with other tests, not for the UI.
PATIENCE = 30_000

expect.set_options(timeout=PATIENCE)


@dataclass(frozen=True)
class Look:
    """How somebody looks at the UI."""

    words: Words = ENGLISH
    width: Literal[1360, 390] = 1360
    theme: Literal["light", "dark"] = "light"

    @property
    def is_phone(self) -> bool:
        return self.width < 600

    def __str__(self) -> str:
        return f"{self.words.locale[:2]}-{self.width}-{self.theme}"


WIDE = Look()


@asynccontextmanager
async def open_browser(executable: str) -> AsyncGenerator[Browser]:
    """A Chromium that nobody sees, as its pages' tests need it."""
    async with async_playwright() as playwright:
        # As root it has no sandbox of its own; containers have little in /dev/shm.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = await playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


async def open_device(browser: Browser, url: str, look: Look) -> BrowserContext:
    """A browser of its own, with nothing in it, at this server."""
    device = await browser.new_context(
        base_url=url,
        viewport={"width": look.width, "height": 844 if look.is_phone else 900},
        has_touch=look.is_phone,
        is_mobile=look.is_phone,
        locale=look.words.locale,
        color_scheme=look.theme,
        reduced_motion="reduce",
    )
    device.set_default_timeout(PATIENCE)
    return device


def script(*calls: Any, then: str = "That was all.", pause: float = 0) -> str:
    """The message that has the scripted model make these calls, `(name, args)` each; those of a list in parallel.

    `pause` is in seconds, between the words of `then`.
    """
    return orjson.dumps({"calls": [_call(one) for one in calls], "then": then, "pause": pause}).decode()


def _call(one: Any) -> Any:
    return [_call(part) for part in one] if isinstance(one, list) else {"name": one[0], "args": one[1]}


def execute(command: str) -> tuple[str, dict[str, str]]:
    return "execute", {"command": command}


def write_file(path: str, content: str) -> tuple[str, dict[str, str]]:
    return "write_file", {"file_path": f"/workspace/{path}", "content": content}


class Card:
    """An approval card, waiting or decided."""

    def __init__(self, shown: Locator, words: Words) -> None:
        self.shown = shown
        self._words = words

    def button(self, name: str) -> Locator:
        return self.shown.get_by_role("button", name=name, exact=True)

    async def press(self, name: str) -> None:
        """Press one of its buttons, and not while it is deaf, which a decision on another card makes it at any time."""
        button, pressed = self.button(name), False
        while not pressed:
            await button.click(trial=True)
            pressed = await button.evaluate("button => button.ariaDisabled !== 'true' && (button.click(), true)")

    async def approve(self) -> None:
        await self.press(self._words.approve)

    async def edit(self, field: str, value: str) -> None:
        """Approve with this argument instead."""
        await self.press(self._words.edit)
        await self.shown.get_by_role("textbox", name=field).fill(value)
        await self.button(self._words.approve_edited).click()

    async def reject(self, reason: str) -> None:
        await self.press(self._words.reject)
        await self.shown.get_by_role("textbox").fill(reason)
        await self.button(self._words.reject).click()

    async def respond(self, answer: str) -> None:
        await self.press("Answer yourself")
        await self.shown.get_by_role("textbox").fill(answer)
        await self.button("Send the answer").click()

    async def is_armed(self) -> None:
        """Wait until it can be answered: it is deaf while it has just appeared."""
        await expect(self.button(self._words.approve)).not_to_have_attribute("aria-disabled", "true")

    async def became(self, state: str) -> None:
        await expect(self.shown).to_have_attribute("data-approval", "decided")
        await expect(self.shown).to_contain_text(state)


class Screen:
    """One tab of somebody's browser."""

    def __init__(self, page: Page, look: Look, watch: Watch) -> None:
        self.page = page
        self.look = look
        self.words = look.words
        self.watch = watch
        watch.follow(page)

    async def open(self, path: str = "") -> None:
        await self.page.goto(f"/app/{path}")

    async def another_tab(self) -> "Screen":
        return Screen(await self.page.context.new_page(), self.look, self.watch)

    async def log_in(self, user: User, path: str = "") -> None:
        """Open this page as somebody who is not logged in yet, log in, and be there."""
        self.watch.allow("401 POST /api/auth/refresh")
        await self.open(path)
        await self.give_password(user.name)
        await self.page.wait_for_url(f"**/app/{path}")

    async def give_password(self, name: str) -> None:
        await self.page.get_by_label(self.words.user_name).fill(name)
        await self.page.get_by_label(self.words.password).fill(PASSWORD)
        await self.button(self.words.log_in).click()

    async def open_session(self, thread_id: str) -> None:
        """Go there by its link, and wait until the conversation is there."""
        await self.open(f"sessions/{thread_id}")
        await expect(self.composer).to_be_visible()

    async def new_session(self) -> str:
        """Make one with the button for it, and answer its id."""
        if not self.page.url.endswith("/app/"):
            await self.open()
        await self.page.get_by_role("main").get_by_role("button", name=self.words.new_session).click()
        await self.page.wait_for_url("**/app/sessions/*")
        return self.thread_id

    @property
    def thread_id(self) -> str:
        found = re.search(r"/app/sessions/([^/?#]+)", self.page.url)
        assert found, self.page.url
        return found[1]

    @property
    def composer(self) -> Locator:
        return self.page.get_by_role("textbox", name=self.words.message, exact=True)

    @property
    def timeline(self) -> Locator:
        return self.page.locator("section.scroller")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def text(self, text: str) -> Locator:
        return self.page.get_by_text(text)

    async def say(self, message: str) -> None:
        await self.composer.fill(message)
        await self.composer.press("Enter")

    def card(self, text: str = "") -> Card:
        """The card with this text in it."""
        return Card(self.page.locator("[data-approval]").filter(has_text=text), self.words)

    async def sees(self, *texts: str) -> None:
        """In the conversation, however far down."""
        for text in texts:
            await expect(self.timeline.get_by_text(text).last).to_be_visible()

    async def open_panel(self, tab: str) -> Locator:
        """The side panel at this tab."""
        panel = self.page.get_by_role("complementary")
        if not await panel.get_by_role("tab", name=tab, exact=True).is_visible():
            await self.button(self.words.open_panel).click()
        await panel.get_by_role("tab", name=tab, exact=True).click()
        return panel

    async def choose(self, menu: str, item: str) -> None:
        """Open the menu of this name, and take this of it."""
        await self.button(menu).click()
        await self.page.locator(".v-overlay--active").get_by_text(item, exact=True).click()

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    async def keep(self, download: Locator) -> bytes:
        """What the browser keeps as a file when this is clicked."""
        async with self.page.expect_download() as coming:
            await download.click()
        return await asyncio.to_thread(Path(await (await coming.value).path()).read_bytes)

    async def assert_accessible(self) -> None:
        """No violation of WCAG 2.2 AA that can be found by a program, on the page as it is now."""
        await self.page.evaluate(_axe())
        found = await self.page.evaluate(
            "([tags, modal]) => axe.run(document.querySelector(modal) ?? document,"
            " { runOnly: { type: 'tag', values: tags } }).then((found) => found.violations)",
            [WCAG, ".v-dialog.v-overlay--active"],  # nobody uses what is behind one
        )
        told = [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in found for node in one["nodes"]]
        assert not told, "\n".join(told)

    async def assert_fits(self) -> None:
        """Nothing is wider than the window."""
        wider = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wider <= 0, f"{wider} px must be scrolled sideways"


@cache
def _axe() -> str:
    return AXE.read_text(encoding="utf-8")
