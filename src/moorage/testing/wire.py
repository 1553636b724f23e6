"""OpenAI's chat completions on the wire: bodies, stream events and errors. Pure; what varies is passed in.

The shapes are those of https://platform.openai.com/docs/api-reference/chat; `reasoning_content` is DeepSeek's.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moorage.testing.reply import Failure, Reply, ToolCall

# Words with the space after them; Chinese, which has no spaces, in steps of two characters.
_PIECE = re.compile(r"[\u3000-\u9fff\uff00-\uffef]{1,2}\s*|[^\s\u3000-\u9fff\uff00-\uffef]+\s*|\s+")
_ARGUMENT_CHARACTERS = 12
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Head:
    """What stands on every chunk of one answer. `created` is in Unix seconds."""

    id: str
    created: int
    model: str


def pieces(text: str) -> list[str]:
    """The text in deltas of about a token; joined they are the text again."""
    return _PIECE.findall(text)


def estimate_tokens(characters: int) -> int:
    """About as many tokens as a real tokenizer would count."""
    return -(-characters // _CHARACTERS_PER_TOKEN)


def usage(reply: Reply, prompt_tokens: int) -> dict[str, Any]:
    reasoning = len(pieces(reply.reasoning))
    arguments = sum(estimate_tokens(len(call.name) + len(call.arguments)) for call in reply.calls)
    completion = reasoning + len(pieces(reply.text)) + arguments
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def completion_body(reply: Reply, head: Head, prompt_tokens: int) -> dict[str, Any]:
    """The whole answer, for a request without `stream`."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.calls:
        message["tool_calls"] = [_call_object(call, call.arguments) for call in reply.calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(reply)}
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [choice],
        "usage": usage(reply, prompt_tokens),
    }


def delta_events(reply: Reply, head: Head) -> Iterator[bytes]:
    """The answer's deltas as server-sent events, without the end."""
    for delta in _deltas(reply):
        yield _event(_chunk(head, [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]))


def closing_events(reply: Reply, head: Head, prompt_tokens: int, *, with_usage: bool) -> Iterator[bytes]:
    """The end of a stream: why it finished, the usage if it was asked for, and `[DONE]`."""
    yield _event(_chunk(head, [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": _finish_reason(reply)}]))
    if with_usage:
        yield _event(_chunk(head, []) | {"usage": usage(reply, prompt_tokens)})
    yield b"data: [DONE]\n\n"


def error_body(failure: Failure) -> dict[str, Any]:
    return {"error": {"message": failure.message, "type": failure.kind, "param": failure.param, "code": failure.code}}


def _deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": "" if reply.text else None}
    for piece in pieces(reply.reasoning):
        yield {"reasoning_content": piece}
    for piece in pieces(reply.text):
        yield {"content": piece}
    for index, call in enumerate(reply.calls):
        yield {"tool_calls": [{"index": index, **_call_object(call, "")}]}
        for start in range(0, len(call.arguments), _ARGUMENT_CHARACTERS):
            part = call.arguments[start : start + _ARGUMENT_CHARACTERS]
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}


def _call_object(call: ToolCall, arguments: str) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _finish_reason(reply: Reply) -> str:
    return "tool_calls" if reply.calls else "stop"


def _chunk(head: Head, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": "chat.completion.chunk",
        "created": head.created,
        "model": head.model,
        "choices": choices,
    }


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
