"""What clients of the LangGraph wire send about assistants."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moorage.assistants import AssistantContext, AssistantFilter
from moorage.errors import InvalidInput
from moorage_api.json_types import Integer
from moorage_api.langgraph.assistant_shapes import Selected

type Json = dict[str, Any]
type GraphId = Annotated[str, Field(min_length=1, max_length=100)]
type Name = Annotated[str, Field(min_length=1, max_length=200)]
type Description = Annotated[str, Field(max_length=2000)]
type Limit = Annotated[Integer, Field(ge=1, le=1000)]
type Offset = Annotated[Integer, Field(ge=0, le=1_000_000)]


class AssistantConfig(BaseModel):
    """LangGraph's config. `configurable` is the older name of `context`."""

    model_config = ConfigDict(extra="forbid")
    configurable: AssistantContext | None = None
    tags: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=50)] | None = None
    recursion_limit: Annotated[Integer, Field(ge=1, le=100_000)] | None = None


class AssistantBody(BaseModel):
    """`context` says how the assistant differs from its graph."""

    model_config = ConfigDict(extra="forbid")
    config: AssistantConfig | None = None
    context: AssistantContext | None = None
    metadata: Json | None = None
    description: Description | None = None

    def contents(self) -> tuple[Json | None, Json | None]:
        """The context and the rest of the config, as they are stored; None for what was not given."""
        config = _given(self.config) if self.config else None
        configurable = config.pop("configurable", None) if config is not None else None
        context = _given(self.context) if self.context else None
        if context is not None and configurable is not None and context != configurable:
            raise InvalidInput("Give either context or config.configurable, not both", code="two_contexts")
        return configurable if context is None else context, config


class NewAssistantBody(AssistantBody):
    """`assistant_id` may be a uuid of the client's making."""

    graph_id: GraphId
    assistant_id: Annotated[str, Field(max_length=100)] | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None
    name: Name | None = None


class AssistantPatch(AssistantBody):
    """What is left out, or null, stays; `metadata` is added to what there is."""

    graph_id: GraphId | None = None
    name: Name | None = None


class FilterBody(BaseModel):
    """`name` is a part of the assistant's, in any case; `metadata` must be contained in the assistant's."""

    model_config = ConfigDict(extra="forbid")
    graph_id: GraphId | None = None
    name: Annotated[str, Field(max_length=200)] | None = None
    metadata: Json | None = None

    def wanted(self) -> AssistantFilter:
        return AssistantFilter(self.graph_id, self.name, self.metadata)


class SearchBody(FilterBody):
    """Which assistants, how many of them, and in which order; `select` names the fields to show."""

    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"] | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: Annotated[list[Selected], Field(max_length=20)] | None = None


class VersionsBody(BaseModel):
    """Versions whose `metadata` contains this."""

    model_config = ConfigDict(extra="forbid")
    metadata: Json | None = None
    limit: Limit = 10
    offset: Offset = 0


class LatestBody(BaseModel):
    """The version that is to count."""

    model_config = ConfigDict(extra="forbid")
    version: Annotated[Integer, Field(ge=1, le=1_000_000)]


def _given(body: BaseModel) -> Json:
    return body.model_dump(mode="json", exclude_unset=True)
