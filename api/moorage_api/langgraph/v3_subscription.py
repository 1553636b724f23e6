"""What a client of the v3 protocol asks to be told: the body of a stream, and the parameters of a subscription."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from moorage_api.json_types import Integer
from moorage_api.langgraph.v3_frames import CHANNELS, Filter
from moorage_api.sse import last_event_id

_MAX_SEQ = 2**53 - 1

_CHANNEL = f"^({'|'.join(CHANNELS)}|custom:.+)$"

type Part = Annotated[str, Field(max_length=200)]
type Channel = Annotated[str, Field(max_length=200, json_schema_extra={"pattern": _CHANNEL})]


@dataclass(slots=True)
class Subscription:
    """What one client wants to be told of one thread. `since` is the last frame that it has, None if it has none."""

    wanted: Filter
    since: int | None = None


class EventStreamBody(BaseModel):
    """What a client wants to be told. Without `namespaces` it is those of all; `since` is the last seq it has."""

    model_config = ConfigDict(extra="ignore")
    channels: Annotated[list[Channel], Field(max_length=100, json_schema_extra={"minItems": 1})] = []
    namespaces: Annotated[list[Annotated[list[Part], Field(max_length=50)]] | None, Field(max_length=500)] = None
    depth: Annotated[Integer | None, Field(ge=0, le=1000)] = None
    since: Annotated[Integer | None, Field(ge=0, le=_MAX_SEQ)] = None

    def subscription(self, last_id: str | None = None) -> Subscription:
        """Raises InvalidInput for channels that there are not."""
        since = self.since if self.since is not None or last_id is None else last_event_id(last_id, None)
        return Subscription(Filter.of(self.channels, self.namespaces, self.depth), since)
