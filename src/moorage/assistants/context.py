"""What users write into an assistant's `context`, checked, and the configuration that comes of it."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from moorage.assistants.configuration import (
    AGENT_TOOLS,
    SUBAGENT_TOOLS,
    Configuration,
    SubAgent,
    ToolApproval,
)
from moorage.assistants.graphs import get_graph
from moorage.errors import InvalidPayload

_MODEL_NAME = r"^[a-z0-9_]{1,50}:[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$"
_SUBAGENT_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
_PROFILE_NAME = r"^[a-z0-9-]{1,32}$"
_MOST_SUBAGENTS = 8


def _plain_model(value: str) -> str:
    if ".." in value:
        raise ValueError("must be provider:name")
    return value


def _known[Names: Collection[str]](value: Names, tools: frozenset[str]) -> Names:
    if not tools.issuperset(value):
        raise ValueError(f"unknown tool; there are: {', '.join(sorted(tools))}")
    return value


_OfAgent = AfterValidator(partial(_known, tools=AGENT_TOOLS))
_OfSubAgent = AfterValidator(partial(_known, tools=SUBAGENT_TOOLS))

type ModelName = Annotated[
    str, Field(pattern=_MODEL_NAME, examples=["openai:gpt-5-mini"]), AfterValidator(_plain_model)
]
type Instruction = Annotated[str, Field(max_length=32_000)]
type ToolNames = Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=32)]
type Approvals = Annotated[dict[str, ToolApproval], Field(max_length=32)]
type SandboxProfile = Annotated[str, Field(pattern=_PROFILE_NAME)]


class InvalidContext(InvalidPayload):
    code = "invalid_context"


class SubAgentContext(BaseModel):
    """Somebody the assistant can hand work to. Without `model` and `tools` it has the assistant's."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=_SUBAGENT_NAME)]
    description: Annotated[str, Field(min_length=1, max_length=2000)]
    instruction: Instruction = ""
    model: ModelName | None = None
    tools: Annotated[ToolNames, _OfSubAgent] | None = None

    def subagent(self) -> SubAgent:
        return SubAgent(self.name, self.description, self.instruction, self.model, _set_of(self.tools))


class AssistantContext(BaseModel):
    """How an assistant differs from its graph. What is left out is as the graph has it.

    `tools` are those the agent may use; `approvals` say of a tool `ask`, `deny`, or, where the server's operator
    permits it, `allow`.
    """

    model_config = ConfigDict(extra="forbid")
    model: ModelName | None = None
    instruction: Instruction | None = None
    tools: Annotated[ToolNames, _OfAgent] | None = None
    approvals: Annotated[Approvals, _OfAgent] | None = None
    subagents: Annotated[list[SubAgentContext], Field(max_length=_MOST_SUBAGENTS)] | None = None
    sandbox_profile: SandboxProfile | None = None

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [item.name for item in self.subagents or ()]
        if len(set(names)) < len(names):
            raise ValueError("subagents must have different names")
        return self

    def over(self, base: Configuration) -> Configuration:
        """`base` with what is given here."""
        return Configuration(
            model=self.model or base.model,
            instruction=base.instruction if self.instruction is None else self.instruction,
            tools=base.tools if self.tools is None else frozenset(self.tools),
            approvals=base.approvals if self.approvals is None else frozenset(self.approvals.items()),
            subagents=base.subagents if self.subagents is None else tuple(x.subagent() for x in self.subagents),
            sandbox_profile=self.sandbox_profile or base.sandbox_profile,
        )


def parse_context(context: Mapping[str, Any]) -> AssistantContext:
    """The context, checked; raises InvalidContext, which names what is wrong."""
    try:
        return AssistantContext.model_validate(context)
    except ValidationError as error:
        items = error.errors(include_input=False, include_url=False, include_context=False)
        told = [f"{'.'.join(map(str, item['loc'])) or 'context'}: {item['msg']}" for item in items]
        errors = [{**item, "loc": ["context", *item["loc"]]} for item in items]
        raise InvalidContext("; ".join(told)[:1000], errors=errors) from None


def configuration_of(graph_id: str, context: Mapping[str, Any]) -> Configuration:
    """The graph's configuration with what `context` changes; raises UnknownGraph or InvalidContext."""
    base = get_graph(graph_id).configuration
    return parse_context(context).over(base) if context else base


def _set_of(tools: list[str] | None) -> frozenset[str] | None:
    return None if tools is None else frozenset(tools)
