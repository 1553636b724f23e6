import asyncio
from pathlib import Path
from typing import Any

import pytest

from moorage.runtime.checks import Status
from moorage.runtime.server_checks import ServerChecks
from moorage.sandboxes.port import SandboxUnavailable, Shortcoming
from moorage.settings import Settings, load_settings

NO_DATABASE = "postgresql://moorage:hunter22@127.0.0.1:1/moorage"


class Provider:
    """Answers `check` with what it is given, once it may."""

    name = "docker"
    isolation_note: str | None = None

    def __init__(self, *lacks: Shortcoming, error: SandboxUnavailable | None = None) -> None:
        self.lacks, self.error, self.times = list(lacks), error, 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def check(self) -> list[Shortcoming]:
        self.times += 1
        await self.may_answer.wait()
        if self.error:
            raise self.error
        return self.lacks


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folders: dict[str, Any] = {"data_dir": tmp_path, "workspace_root": tmp_path, "llm_model": "scripted:hello"}
    return load_settings({}, env_file=None, overrides=folders)


def checks(settings: Settings, provider: Provider, **more: Any) -> ServerChecks:
    return ServerChecks(settings, provider, database_url=NO_DATABASE, **more)  # pyright: ignore[reportArgumentType]


async def statuses(found: ServerChecks) -> dict[str, Status]:
    return {item.name: item.status for item in (await found.run()).findings}


async def test_each_check_tells_its_own_and_hinders_no_other(settings: Settings) -> None:
    provider = Provider(error=SandboxUnavailable("No engine answers."))
    found = {item.name: item for item in (await checks(settings, provider).run()).findings}
    assert (found["sandbox"].status, found["sandbox"].detail) == (Status.FAIL, "No engine answers.")
    assert found["database"].status is Status.FAIL
    assert "hunter22" not in str(found)
    assert found["model"].status is Status.OK


async def test_what_sandboxes_lack_is_a_warning(settings: Settings) -> None:
    found = await checks(settings, Provider(Shortcoming("storage", "not bounded"))).run()
    [sandbox] = [item for item in found.findings if item.name == "sandbox"]
    assert sandbox.status is Status.WARN
    assert sandbox.detail.endswith("storage: not bounded")


async def test_many_who_ask_at_once_get_one_check(settings: Settings) -> None:
    provider = Provider()
    found = checks(settings, provider)
    told = await asyncio.gather(*(found.run() for _ in range(20)))
    assert provider.times == 1
    assert len({id(one) for one in told}) == 1


async def test_what_was_found_lately_is_told_again_and_then_looked_at_anew(settings: Settings) -> None:
    provider, now = Provider(), 100.0
    found = checks(settings, provider, clock=lambda: now)
    await found.run()
    now += 9.9
    await found.run()
    assert provider.times == 1
    now += 0.1
    await found.run()
    assert provider.times == 2


async def test_a_check_that_does_not_end_fails_alone(settings: Settings) -> None:
    provider = Provider()
    provider.may_answer.clear()
    told = await statuses(checks(settings, provider, seconds=0.5))
    assert told["sandbox"] is Status.FAIL
    assert told["model"] is Status.OK
