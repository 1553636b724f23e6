"""The agent's steps and questions in words, for clients that can show nothing else."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from moorage_api.openai.request import MESSAGE_LIMIT

_UNSEEN = ("Cc", "Cf", "Cn", "Co", "Zl", "Zp")
_SHORT = 300
_SHOWN_ARGUMENTS = min(4000, MESSAGE_LIMIT)


def step_begins(tool: str, arguments: Mapping[str, Any]) -> str:
    return f"\n[{tool}] {_cut(_compact(arguments), _SHORT)}\n"


def step_ends(tool: str, result: Mapping[str, Any]) -> str:
    words = str(result["status"]).replace("_", " ")
    if result.get("exit_code") is not None:
        words += f", exit code {result['exit_code']}"
    return f"[{tool}] {words}\n"


def approval_needed(interrupts: Sequence[Mapping[str, Any]], *, base_url: str, thread_id: str) -> str:
    """What waits, and where and how to answer it."""
    asked = "\n\n".join(_question(item, base_url) for item in interrupts)
    return (
        f"**Approval needed.** I stopped, because a human decides what happens next:\n\n{asked}\n\n"
        f"Answer in the browser: {base_url}/app/threads/{thread_id}\n\n"
        "Or over the API: POST the decision to the approval's address with `/decision` behind it, for example"
        ' `{"type":"approve","digest":"..."}`, `{"type":"reject","message":"why"}`, or'
        ' `{"type":"edit","edited_action":{"name":"...","args":{...}}}`. I go on as soon as that is done; then ask me'
        " here what came of it."
    )


def still_waiting(interrupts: Sequence[Mapping[str, Any]], *, base_url: str, thread_id: str) -> str:
    """Why a message is refused while something waits."""
    waiting = ", ".join(f"{item['tool_name']} ({base_url}/api/approvals/{item['id']})" for item in interrupts)
    return (
        f"This thread waits for an approval: {waiting}. Answer it at {base_url}/app/threads/{thread_id}, or POST a"
        " decision to the approval's address with /decision behind it. To reject it and go on with this message, send"
        ' it again with "multitask_strategy": "reject_and_continue"'
    )


def _question(item: Mapping[str, Any], base_url: str) -> str:
    arguments = _cut(_seen(json.dumps(item["tool_input"], ensure_ascii=False, indent=2)), _SHOWN_ARGUMENTS)
    fence = "```"
    while fence in arguments:  # what the model wrote must not end the block that shows it
        fence += "`"
    return (
        f"`{item['tool_name']}` with\n\n{fence}json\n{arguments}\n{fence}\n\n{_warnings(item)}"
        f"{base_url}/api/approvals/{item['id']} (digest `{item['digest']}`)"
    )


def _warnings(item: Mapping[str, Any]) -> str:
    """What the arguments hold that a reader cannot see."""
    return "".join(
        f"Careful: `{found['field']}` holds {found['count']} hidden characters ({', '.join(found['characters'])}).\n\n"
        for found in item.get("facts", {}).get("warnings", [])
    )


def _compact(arguments: Mapping[str, Any]) -> str:
    return _seen(json.dumps(arguments, ensure_ascii=False))


def _seen(text: str) -> str:
    r"""JSON with what nobody sees, or what changes the order of what one sees, as `\uXXXX`: it means the same."""
    return "".join(json.dumps(c)[1:-1] if c != "\n" and unicodedata.category(c) in _UNSEEN else c for c in text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"
