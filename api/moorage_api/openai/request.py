"""What a chat completion request may hold: what counts, what is accepted without effect, and what is refused by name.

Source: OpenAI's API reference, `POST /v1/chat/completions`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from moorage.errors import InvalidInput
from moorage.ids import new_message_id
from moorage.runs.run import BusyPolicy
from moorage_api.json_types import Flag

MESSAGE_LIMIT = 100_000
_MOST_MESSAGES = 1000


def _refuse(value: Any) -> None:
    """What would change the answer in a way that an agent cannot honour, unless it is as good as not there."""
    if value not in (None, False, [], {}, ""):
        raise PydanticCustomError("unsupported_parameter", "is not supported: the agent has its own tools and model")


def _one(value: Any) -> Any:
    if value is not None and (type(value) is not int or value != 1):
        raise PydanticCustomError("unsupported_parameter", "only one choice is supported")
    return value


def _plain(value: Any) -> Any:
    if value is not None and not (isinstance(value, dict) and value.get("type") == "text"):  # pyright: ignore[reportUnknownMemberType]
        raise PydanticCustomError("unsupported_parameter", "only plain text is supported")
    return None


def _auto(value: Any) -> Any:
    if value not in (None, "auto"):
        raise PydanticCustomError("unsupported_parameter", "is not supported: the agent chooses among its own tools")
    return None


def _text_only(value: Any) -> Any:
    if value not in (None, ["text"]):
        raise PydanticCustomError("unsupported_parameter", "only text is supported")
    return None


type Refused = Annotated[None, BeforeValidator(_refuse), WithJsonSchema({"type": "null"})]
type Ignored = Annotated[Any, WithJsonSchema({})]


class TextPart(BaseModel):
    model_config = ConfigDict(extra="ignore")
    type: Literal["text"]
    text: Annotated[str, Field(max_length=MESSAGE_LIMIT)]


type Content = Annotated[str, Field(max_length=MESSAGE_LIMIT)] | Annotated[list[TextPart], Field(max_length=1000)]


class ChatMessage(BaseModel):
    """One message. What clients echo of earlier answers beside the text (`refusal`, `annotations`, ...) is ignored."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: Content | None = None
    tool_calls: Refused = None
    function_call: Refused = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")
    include_usage: Flag = False


class ChatRequest(BaseModel):
    """`model` is an assistant's id or name. Other parameters than these are refused.

    Accepted without effect, as the assistant decides: temperature, top_p, max_tokens and the like. The header
    `X-Ignored-Parameters` of the answer names those that were sent. `multitask_strategy` is ours: what to do in a
    thread that is busy or waits for an approval.
    """

    model_config = ConfigDict(extra="forbid")
    model: Annotated[str, Field(min_length=1, max_length=200)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=_MOST_MESSAGES)]
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int | None, BeforeValidator(_one), WithJsonSchema({"enum": [1, None]})] = None
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]] | None, Field(max_length=16)] = None
    multitask_strategy: BusyPolicy = BusyPolicy.ENQUEUE

    temperature: Ignored = None
    top_p: Ignored = None
    max_tokens: Ignored = None
    max_completion_tokens: Ignored = None
    presence_penalty: Ignored = None
    frequency_penalty: Ignored = None
    seed: Ignored = None
    reasoning_effort: Ignored = None
    verbosity: Ignored = None
    parallel_tool_calls: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None
    user: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None

    tools: Refused = None
    functions: Refused = None
    tool_choice: Annotated[None, BeforeValidator(_auto), WithJsonSchema({"enum": ["auto", None]})] = None
    function_call: Annotated[None, BeforeValidator(_auto), WithJsonSchema({"enum": ["auto", None]})] = None
    response_format: Annotated[
        None,
        BeforeValidator(_plain),
        WithJsonSchema({"type": ["object", "null"], "properties": {"type": {"const": "text"}}, "required": ["type"]}),
    ] = None
    modalities: Annotated[None, BeforeValidator(_text_only), WithJsonSchema({"enum": [["text"], None]})] = None
    stop: Refused = None
    logprobs: Refused = None
    top_logprobs: Refused = None
    logit_bias: Refused = None
    audio: Refused = None
    prediction: Refused = None
    moderation: Refused = None
    web_search_options: Refused = None

    @property
    def ignored(self) -> list[str]:
        """What was sent and has no effect, in the order of the alphabet."""
        return sorted(name for name in self.model_fields_set & _IGNORED if getattr(self, name) is not None)

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


_IGNORED = frozenset(
    {
        "temperature", "top_p", "max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty", "seed",
        "reasoning_effort", "verbosity", "parallel_tool_calls", "service_tier", "store", "user", "safety_identifier",
        "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    }
)  # fmt: skip


class NothingSaid(InvalidInput):
    code = "no_user_message"

    def __init__(self) -> None:
        super().__init__("messages: the last one must be the user's, and not empty")


def newly_said(messages: Sequence[ChatMessage]) -> str:
    """What the user said after the last answer: all that is new in a thread that knows the rest."""
    said: list[str] = []
    for message in reversed(messages):
        if message.role == "assistant":
            break
        if message.role == "user" and message.text:
            said.insert(0, message.text)
    if not said or messages[-1].role == "assistant":
        raise NothingSaid
    text = "\n\n".join(said)
    if len(text) > MESSAGE_LIMIT:
        raise InvalidInput(f"messages: more than {MESSAGE_LIMIT} characters are new", code="message_too_long")
    return text


def whole_conversation(messages: Sequence[ChatMessage]) -> tuple[dict[str, Any], ...]:
    """All messages as LangChain's, for a thread that knows none of them. Instructions go first, as one message."""
    newly_said(messages)
    instructions = [item.text for item in messages if item.role in ("system", "developer") and item.text]
    spoken = [item for item in messages if item.role in ("user", "assistant") and item.text]
    system = [_message("system", "\n\n".join(instructions))] if instructions else []
    return (*system, *(_message("ai" if item.role == "assistant" else "human", item.text) for item in spoken))


def _message(kind: str, text: str) -> dict[str, Any]:
    return {"type": kind, "id": new_message_id(), "content": text}
