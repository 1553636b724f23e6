"""A server with the built web UI, a browser, and people in front of it."""

import re
import subprocess
import tempfile
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext
from tests.api.harness import PASSWORD, Server, User, make_settings, running
from tests.web.browser import WIDE, Look, Screen, open_browser, open_device
from tests.web.watch import Watch

from moorage_api import app

ROOT = Path(__file__).parents[2]
# What was to be seen when a test failed. Here, because of pytest's own folders only those of the last runs are kept.
PICTURES = Path(tempfile.gettempdir(), "moorage-screenshots")
_FAILED = pytest.StashKey[bool]()

NewScreen = Callable[..., Awaitable[Screen]]
NewPerson = Callable[[], Awaitable[User]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where a Chromium is."""
    found = subprocess.run([ROOT / "scripts/chromium", "--find"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, "There is no Chromium: scripts/chromium gets one"
    return found.stdout.strip()


@pytest.fixture(scope="session")
async def browser(chromium: str) -> AsyncGenerator[Browser]:
    async with open_browser(chromium) as browser:
        yield browser


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """What the server of a module has other than the tests' usual: modules make their own of it."""
    return {}


@pytest.fixture(scope="module")
async def server(database_url: str, public_tmp_path: Path, server_settings: dict[str, Any]) -> AsyncGenerator[Server]:
    assert (Path(app.__file__).parent / "web/index.html").exists(), "The web UI is not built: scripts/web-build"
    folder = public_tmp_path / uuid.uuid4().hex
    async with running(make_settings(folder, database_url, **server_settings)) as found:
        yield found


@pytest.fixture
async def new_person(server: Server) -> AsyncGenerator[NewPerson]:
    """Somebody new, who has an account, and logs in through the API for what tests do beside the browser."""
    clients: list[httpx.AsyncClient] = []

    async def make() -> User:
        client = httpx.AsyncClient(base_url=server.url, timeout=30)
        clients.append(client)
        account = {"username": f"ada{uuid.uuid4().hex[:8]}", "password": PASSWORD}
        assert (await client.post("/api/auth/register", json=account)).status_code == 201
        token = (await client.post("/api/auth/login", json=account)).json()["access_token"]
        client.headers["authorization"] = f"Bearer {token}"
        return User(account["username"], client)

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def ada(new_person: NewPerson) -> User:
    return await new_person()


@pytest.fixture
async def watch() -> Watch:
    return Watch()


@pytest.fixture
async def new_screen(
    browser: Browser, server: Server, watch: Watch, request: pytest.FixtureRequest
) -> AsyncGenerator[NewScreen]:
    """Open a browser of its own for each call. Whatever goes wrong in one and was not expected fails the test."""
    devices: list[BrowserContext] = []
    pictures = PICTURES / re.sub(r"\W+", "_", request.node.name)

    async def make(look: Look = WIDE, *, url: str = server.url) -> Screen:
        devices.append(await open_device(browser, url, look))
        return Screen(await devices[-1].new_page(), look, watch)

    yield make
    if request.node.stash[_FAILED] or watch.unexpected() or watch.missing():
        await _take_pictures(devices, pictures)
        told = "\n".join([f"screenshots: {pictures}", *watch.wrong])
        request.node.add_report_section("teardown", "browser", told)
    for device in devices:
        await device.close()
    assert not watch.unexpected(), f"{watch.unexpected()}, screenshots in {pictures}"
    if not request.node.stash[_FAILED]:
        assert not watch.missing(), f"{watch.missing()} did not happen, screenshots in {pictures}"


async def _take_pictures(devices: list[BrowserContext], folder: Path) -> None:
    pages = [page for device in devices for page in device.pages]
    for number, page in enumerate(pages, start=1):
        await page.screenshot(path=folder / f"page-{number}.png")


@pytest.fixture
async def screen(new_screen: NewScreen, ada: User) -> Screen:
    """Ada's, logged in, at home."""
    screen = await new_screen()
    await screen.log_in(ada)
    return screen
