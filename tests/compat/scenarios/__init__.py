"""What the probe asks, in groups. A scenario is an async generator of facts: a question, and the server's answer."""

from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType

from tests.compat.scenarios import (
    busy,
    cancelling,
    decisions,
    operations,
    pausing,
    protocol,
    reconnecting,
    streams,
    threads,
)
from tests.compat.wire import Wire

type Fact = tuple[str, str]
type Scenario = Callable[[Wire], AsyncIterator[Fact]]

GROUPS: Mapping[str, tuple[Scenario, ...]] = MappingProxyType(
    {
        "A busy thread": busy.SCENARIOS,
        "Pauses": pausing.SCENARIOS,
        "Decisions": decisions.SCENARIOS,
        "Streams": streams.SCENARIOS,
        "Reconnecting": reconnecting.SCENARIOS,
        "Cancelling": cancelling.SCENARIOS,
        "The thread": threads.SCENARIOS,
        "Operations": operations.SCENARIOS,
        "The v3 protocol": protocol.SCENARIOS,
    }
)
