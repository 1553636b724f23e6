"""Pictures of the web UI's screens, for design/screens: python -m tests.web.screens [<part of a name> ...]

Plays scenes of the scripted models on a server of its own, with real sandboxes, and keeps a picture of each screen as
`<screen>-<language>-<theme>-<width>.png`.
"""

import asyncio
import io
import logging
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import httpx
import structlog
from PIL import Image
from playwright.async_api import Browser, expect
from tests.api.harness import PASSWORD, Server, User, make_settings, running
from tests.web.browser import Look, Screen, open_browser, open_device
from tests.web.watch import Watch
from tests.web.words import CHINESE, ENGLISH, Words

from moorage.adapters.embedded_postgres import open_embedded_postgres
from moorage.adapters.postgres.migrate import migrate

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "design/screens"
ROWS = 'python hello.py; for n in $(seq 1 400); do echo "row $n of 400 checked"; sleep 0.2; done'
REPORT = {
    ENGLISH: "# Sales of the spring\n"
    "\n| month | sum |\n|---|---:|\n| March | 1,204 |\n| April | 1,377 |\n| May | 1,512 |\n"
    "\nSales **grew each month**. What was returned is not counted yet:\n\n- 12 orders of April\n- 3 orders of May\n",
    CHINESE: "# 春季销售\n\n| 月份 | 合计 |\n|---|---:|\n| 三月 | 1,204 |\n| 四月 | 1,377 |\n| 五月 | 1,512 |\n"
    "\n销售额**逐月增长**。以下退货尚未计入：\n\n- 四月的 12 笔订单\n- 五月的 3 笔订单\n",
}
SAID = {
    ENGLISH: {
        "demo": "Show me what you can do: write a small program and run it.",
        "again": "Do it again.",
        "parallel": "Please check the machine and the folder.",
        "subagent": "Have somebody write the report and count its words.",
        "hidden-unicode": "Clean up what is left of the export.",
        "error-500": "Summarise the letters of this week.",
    },
    CHINESE: {
        "demo": "展示一下你的能力：写一个小程序并运行它。",
        "again": "再来一次。",
        "parallel": "请检查机器和文件夹。",
        "subagent": "请让别人写报告并统计字数。",
        "hidden-unicode": "请清理导出后留下的文件。",
        "error-500": "请总结本周的来信。",
    },
}


class Person:
    """Somebody with sessions, and a browser that speaks their language."""

    def __init__(self, user: User, words: Words) -> None:
        self.user, self.words, self.said = user, words, SAID[words]

    async def begin(self, script: str, *, approved: int = 0) -> str:
        """A session with this scripted model: what is said first, and then so many approvals."""
        name = {ENGLISH: "Helper", CHINESE: "助手"}[self.words]
        model = {"graph_id": "agent", "name": name, "context": {"model": f"scripted:{script}"}}
        made = await self.user.client.post("/assistants", json=model)
        thread_id = await self.user.new_session(assistant_id=made.json()["assistant_id"])
        await self.user.chat(thread_id, self.said[script])
        for _ in range(approved):
            await self.user.resume(thread_id, action="continue")
        return thread_id

    async def put(self, base: str, name: str, content: bytes) -> None:
        reply = await self.user.client.put(f"/api/{base}/content", params={"path": name}, content=content)
        assert reply.status_code == 201, reply.text


Scene = Callable[[Screen, Person], Awaitable[None]]


async def login(screen: Screen, _: Person) -> None:
    screen.watch.allow("401 POST /api/auth/refresh")
    await screen.open()
    await expect(screen.button(screen.words.log_in)).to_be_visible()


async def setup(screen: Screen, _: Person) -> None:
    await screen.open("setup?token=from-what-the-server-printed")
    await expect(screen.page.locator("form")).to_be_visible()


async def home(screen: Screen, person: Person) -> None:
    await screen.log_in(person.user)
    await expect(screen.page.get_by_role("main").get_by_role("button").first).to_be_visible()


async def chat(screen: Screen, person: Person) -> None:
    await screen.log_in(person.user, f"sessions/{await person.begin('demo')}")
    await screen.card("hello.py").is_armed()


async def edit(screen: Screen, person: Person) -> None:
    await screen.log_in(person.user, f"sessions/{await person.begin('demo', approved=1)}")
    card = screen.card("python hello.py")
    await card.is_armed()
    await card.button(screen.words.edit).click()
    await card.shown.get_by_role("textbox", name="command").fill("python -X dev hello.py")
    await card.button(screen.words.approve_edited).scroll_into_view_if_needed()


async def warning(screen: Screen, person: Person) -> None:
    await screen.log_in(person.user, f"sessions/{await person.begin('hidden-unicode')}")
    await screen.card("gnp").is_armed()


async def output(screen: Screen, person: Person) -> None:
    await screen.log_in(person.user, f"sessions/{await person.begin('demo', approved=1)}")
    card = screen.card("python hello.py")
    await card.is_armed()
    await card.edit("command", ROWS)
    await screen.sees("row 30 of 400 checked")
    if not screen.look.is_phone:
        await screen.open_panel(screen.words.terminal)


async def subagent(screen: Screen, person: Person) -> None:
    await screen.log_in(person.user, f"sessions/{await person.begin('subagent', approved=1)}")
    await screen.card("wc -w report.txt").is_armed()


async def done(screen: Screen, person: Person) -> None:
    await screen.log_in(person.user, f"sessions/{await person.begin('demo', approved=2)}")
    await screen.sees("LLM_MODEL")


async def error(screen: Screen, person: Person) -> None:
    await screen.log_in(person.user, f"sessions/{await person.begin('error-500')}")
    await expect(screen.page.locator("[role=alert]").first).to_be_visible()


async def files(screen: Screen, person: Person) -> None:
    thread_id = await person.begin("demo", approved=2)
    for name, content in {
        "data/march.csv": b"day,sum\n1,40\n2,37\n",
        "data/april.csv": b"day,sum\n1,51\n2,44\n",
        "report.md": REPORT[person.words].encode(),
    }.items():
        await person.put(f"files/{thread_id}", name, content)
    await screen.log_in(person.user, f"sessions/{thread_id}")
    panel = await screen.open_panel(screen.words.files)
    await panel.get_by_role("button", name="data").first.click()
    await panel.get_by_role("button", name="report.md").first.click()
    await expect(panel.get_by_role("table")).to_be_visible()


async def changes(screen: Screen, person: Person) -> None:
    await screen.log_in(person.user, f"sessions/{await person.begin('demo', approved=2)}")
    await screen.say(person.said["again"])
    card = screen.card("hello.py").shown.page.locator("[data-approval=pending]")
    await expect(card).to_have_count(1)
    await card.get_by_role("button", name=screen.words.edit, exact=True).click()
    await card.get_by_role("textbox", name="content").fill(
        'print("Hello from your own sandbox!")\nprint(sum(range(101)))\n'
    )
    await card.get_by_role("button", name=screen.words.approve_edited).click()
    await screen.card("python hello.py").is_armed()
    await screen.open_panel({ENGLISH: "Changes", CHINESE: "改动"}[screen.words])


async def inbox(screen: Screen, person: Person) -> None:
    await person.begin("parallel")
    await screen.log_in(person.user, "approvals")
    await expect(screen.page.locator("[data-approval=pending]").first).to_be_visible()


async def page_of(screen: Screen, person: Person, path: str) -> None:
    await screen.log_in(person.user, path)
    await expect(screen.page.get_by_role("heading", level=1)).to_be_attached()


async def empty_inbox(screen: Screen, person: Person) -> None:
    await page_of(screen, person, "approvals")


async def settings(screen: Screen, person: Person) -> None:
    await person.user.client.post("/api/auth/keys", json={"name": "backup", "scopes": ["read"], "expires_in_days": 90})
    await page_of(screen, person, "settings")


async def admin(screen: Screen, person: Person) -> None:
    await page_of(screen, person, "admin")


async def shared(screen: Screen, person: Person) -> None:
    await person.put("shared", "outputs/letter.txt", b"Dear all,\n")
    await person.put("shared", "report.md", REPORT[person.words].encode())
    await page_of(screen, person, "shared")


async def nowhere(screen: Screen, person: Person) -> None:
    await screen.log_in(person.user)
    await screen.open("no/such/page")
    await expect(screen.page.get_by_role("heading", level=1)).to_be_visible()


async def menu(screen: Screen, person: Person) -> None:
    await home(screen, person)
    await screen.button({ENGLISH: "Menu", CHINESE: "菜单"}[screen.words]).click()


NEWCOMERS = {"home", "empty-inbox"}
SCENES: dict[str, Scene] = {
    "login": login,
    "setup": setup,
    "home": home,
    "chat": chat,
    "edit": edit,
    "warning": warning,
    "output": output,
    "subagent": subagent,
    "done": done,
    "error": error,
    "files": files,
    "changes": changes,
    "inbox": inbox,
    "empty-inbox": empty_inbox,
    "settings": settings,
    "admin": admin,
    "shared": shared,
    "menu": menu,
    "nowhere": nowhere,
}
PICTURES = [
    "login-en-light-1360",
    "login-zh-dark-390",
    "setup-zh-light-1360",
    "home-en-light-1360",
    "home-zh-dark-390",
    "chat-en-light-1360",
    "chat-zh-dark-1360",
    "chat-zh-light-390",
    "edit-en-dark-1360",
    "edit-en-light-390",
    "warning-zh-light-1360",
    "output-en-light-1360",
    "subagent-en-dark-1360",
    "subagent-zh-light-390",
    "done-zh-light-1360",
    "error-en-light-1360",
    "error-zh-dark-390",
    "files-en-light-1360",
    "files-zh-dark-390",
    "changes-en-dark-1360",
    "inbox-en-light-1360",
    "inbox-zh-dark-390",
    "empty-inbox-en-light-390",
    "settings-en-light-1360",
    "settings-zh-dark-390",
    "admin-zh-light-1360",
    "admin-en-dark-390",
    "shared-zh-light-1360",
    "menu-zh-light-390",
    "nowhere-en-dark-390",
]


def parse(name: str) -> tuple[str, Look]:
    screen, language, theme, width = name.rsplit("-", 3)
    words = {"en": ENGLISH, "zh": CHINESE}[language]
    wide: Literal[1360, 390] = 390 if width == "390" else 1360
    return screen, Look(words, wide, "dark" if theme == "dark" else "light")


def keep(picture: bytes, path: Path) -> None:
    """In 256 colours: half of the bytes. The rare ones count as much as the others: they are those of warnings."""
    found = Image.open(io.BytesIO(picture)).convert("RGB")
    found.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


class Studio:
    """The server, the browser, and who sits in front of it."""

    def __init__(self, server: Server, browser: Browser) -> None:
        self._server, self._browser = server, browser
        self._people: dict[str, Person] = {}

    async def person(self, name: str, words: Words) -> Person:
        if name not in self._people:
            await self._server.runtime.identity.create_user(name, PASSWORD, is_admin=not name.startswith("new"))
            client = httpx.AsyncClient(base_url=self._server.url, timeout=60)
            reply = await client.post("/api/auth/login", json={"username": name, "password": PASSWORD})
            client.headers["authorization"] = f"Bearer {reply.json()['access_token']}"
            self._people[name] = Person(User(name, client), words)
        return self._people[name]

    async def take(self, name: str) -> None:
        scene, look = parse(name)
        chinese = look.words is CHINESE
        someone = f"new-{'lin' if chinese else 'ada'}" if scene in NEWCOMERS else ("lin" if chinese else "ada")
        watch = Watch()
        device = await open_device(self._browser, self._server.url, look)
        try:
            screen = Screen(await device.new_page(), look, watch)
            await SCENES[scene](screen, await self.person(someone, look.words))
            await expect(screen.page.locator(".v-skeleton-loader")).to_have_count(0)
            picture = await screen.page.screenshot(animations="disabled", caret="hide")
            await asyncio.to_thread(keep, picture, FOLDER / f"{name}.png")
            sys.stdout.write(f"{name} {watch.unexpected() or ''}\n")
        finally:
            await device.close()

    async def close(self) -> None:
        for person in self._people.values():
            await person.user.client.aclose()


@asynccontextmanager
async def open_studio(chromium: str, folder: Path) -> AsyncGenerator[Studio]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_embedded_postgres(folder / "postgres"))
        await asyncio.to_thread(migrate, database)
        server = await stack.enter_async_context(running(make_settings(folder, database, llm_model="scripted:demo")))
        studio = Studio(server, await stack.enter_async_context(open_browser(chromium)))
        stack.push_async_callback(studio.close)
        yield studio


async def take_pictures(chromium: str, folder: Path, wanted: list[str]) -> None:
    async with open_studio(chromium, folder) as studio:
        for name in PICTURES:
            if not wanted or any(part in name for part in wanted):
                await studio.take(name)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    chromium = subprocess.run([ROOT / "scripts/chromium"], check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="moorage-screens-") as folder:
        Path(folder).chmod(0o711)  # Postgres does not run as root, and must get in
        asyncio.run(take_pictures(chromium, Path(folder), sys.argv[1:]))


if __name__ == "__main__":
    main()
