"""The probe: asks a server that speaks the LangGraph wire what it does in the cases that servers differ in.

    python -m tests.compat.probe http://127.0.0.1:2124 --save official.json
    python -m tests.compat.probe http://127.0.0.1:8000 --token "$TOKEN" --save moorage.json
    python -m tests.compat.probe --compare official.json moorage.json

Prints a Markdown table of facts, one a row. It runs unchanged against `langgraph dev` (the agents in `peer/`) and
against `LLM_MODEL=scripted:calls moorage serve`: both models play the same scripts.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
from tests.compat.reasons import reason
from tests.compat.scenarios import GROUPS, Scenario
from tests.compat.wire import Wire

type Facts = dict[str, dict[str, str]]

_SCENARIO_SECONDS = 90


async def probe(url: str, token: str | None, only: str | None) -> Facts:
    """The server's answers, by group and question."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        wire = Wire(http, token)
        chosen = {name: scenarios for name, scenarios in GROUPS.items() if only is None or only in name}
        return {name: await _group(wire, scenarios) for name, scenarios in chosen.items()}


async def _group(wire: Wire, scenarios: tuple[Scenario, ...]) -> dict[str, str]:
    answers: dict[str, str] = {}
    for scenario in scenarios:
        await _play(wire, scenario, answers)
    return answers


async def _play(wire: Wire, scenario: Scenario, answers: dict[str, str]) -> None:
    """A scenario that a server breaks off has answered up to there; the rest says why there is no more."""
    topic = ""
    try:
        async with asyncio.timeout(_SCENARIO_SECONDS):
            async for question, answer in scenario(wire):
                topic = question if not question.startswith("...") else topic
                name = question if question == topic else f"{topic} {question}"
                if name in answers:
                    raise AssertionError(f"two facts are named {name}")
                answers[name] = answer
    except httpx.ConnectError:
        raise  # there is no server: that is not a fact about one
    except Exception as error:  # noqa: BLE001 - whatever a server answers is a fact about it
        answers[f"({scenario.__name__.replace('_', ' ')}: all of it)"] = f"broke off: {error!r}"[:200]


def _table(facts: Facts) -> Iterator[str]:
    yield "| fact | answer |\n|---|---|"
    for group, answers in facts.items():
        yield f"| **{group}** | |"
        yield from (f"| {_label(question)} | {_cell(answer)} |" for question, answer in answers.items())


def _comparison(names: tuple[str, str], left: Facts, right: Facts) -> Iterator[str]:
    yield f"| fact | {names[0]} | {names[1]} | why |\n|---|---|---|---|"
    for group in left:
        ours, theirs = left[group], right.get(group, {})
        yield f"| **{group}** | | | |"
        for question in dict.fromkeys([*ours, *theirs]):
            one, two = ours.get(question, "not asked"), theirs.get(question, "not asked")
            rest = "the same | " if one == two else f"{_cell(two)} | {reason(group, question)}"
            yield f"| {_label(question)} | {_cell(one)} | {rest} |"


def _label(question: str) -> str:
    """A follow-up without the question it follows, which stands above it."""
    _, dots, rest = question.partition(" ... ")
    return f"… {rest}" if dots else question


def _cell(answer: str) -> str:
    return answer.replace("|", "\\|").replace("\n", " ") or "nothing"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("url", nargs="?", help="the server's address")
    options.add_argument("--token", help="an access token, for a server that wants one")
    options.add_argument("--only", help="only the groups with this in their name")
    options.add_argument("--save", type=Path, help="also write the answers here, as JSON")
    options.add_argument("--compare", nargs=2, type=Path, metavar="FILE", help="two saved files, side by side")
    given = options.parse_args()
    if given.compare:
        left, right = (json.loads(path.read_text()) for path in given.compare)
        names = (given.compare[0].stem, given.compare[1].stem)
        sys.stdout.writelines(f"{line}\n" for line in _comparison(names, left, right))
        return
    if not given.url:
        options.error("a URL, or --compare")
    facts = asyncio.run(probe(given.url, given.token, given.only))
    sys.stdout.writelines(f"{line}\n" for line in _table(facts))
    if given.save:
        given.save.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
