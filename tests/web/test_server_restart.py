"""A server that dies while people look at it, and comes back."""

import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, expect
from tests.api.harness import PASSWORD, User, make_settings, remove_sandboxes
from tests.faults.server import Server
from tests.web.browser import WIDE, Screen, open_device, script
from tests.web.watch import Watch

COUNTED = " ".join(f"step{number}" for number in range(1, 31))


@pytest.fixture
async def mortal(database_url: str, public_tmp_path: Path) -> AsyncGenerator[Server]:
    """A server that is a process of its own."""
    settings = make_settings(public_tmp_path / uuid.uuid4().hex, database_url, run_lease_seconds=5)
    settings.data_dir.parent.mkdir(mode=0o711)
    named = ("data_dir", "workspace_root", "shared_dir", "llm_model", "sandbox_uid_range", "run_lease_seconds")
    environment = {name.upper(): str(getattr(settings, name)) for name in named}
    server = Server("server", ("serve",), settings.data_dir.parent, {"DATABASE_URL": database_url, **environment})
    try:
        await server.start()
        yield server
    finally:
        server.terminate()
        await server.until_ended()
        server.reap()
    await remove_sandboxes(settings)


async def test_a_server_that_is_killed_and_started_again_costs_neither_words_nor_messages(
    browser: Browser, mortal: Server, watch: Watch
):
    account = {"username": "ada", "password": PASSWORD}
    async with httpx.AsyncClient(base_url=mortal.url) as client:
        assert (await client.post("/api/auth/register", json=account)).status_code == 201
        device = await open_device(browser, mortal.url, WIDE)
        screen = Screen(await device.new_page(), WIDE, watch)
        await screen.log_in(User("ada", client))
        await screen.new_session()
        await screen.say(script(then=COUNTED, pause=0.1))
        await screen.sees("step3")

        watch.allow("net::*", "503 *")
        mortal.kill()
        await expect(screen.text("Nothing is lost.")).to_be_visible()
        await screen.say(script(then="Heard."))
        await screen.composer.fill("half a message")
        await mortal.start()

        await screen.sees("step30", "Heard.")
        await expect(screen.text("Nothing is lost.")).to_have_count(0)
        await expect(screen.composer).to_have_value("half a message")
        await expect(screen.timeline.get_by_text("Heard.", exact=True)).to_have_count(1)
        await expect(screen.timeline.get_by_text(COUNTED, exact=True)).to_have_count(1)
        await device.close()
    assert not watch.unexpected()
