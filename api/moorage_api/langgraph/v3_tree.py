"""The tree of a run: its agent, and the sub-agents that it started, each with what became of it."""

from typing import Any

from moorage.events import EventType
from moorage.runs.ports import EventLog
from moorage.runs.run import Run
from moorage.threads import Thread
from moorage_api.langgraph.v3 import Projection
from moorage_api.langgraph.v3_frames import Frame, Namespace
from moorage_api.langgraph.values import StateFold, Values

_PAGE_EVENTS = 1000

type Node = dict[str, Any]


async def tree_of(log: EventLog, thread: Thread, run: Run) -> Node:
    """What the lifecycle events of a run add up to; `started` before it has told anything."""
    nodes: dict[Namespace, Node] = {(): _node((), "started", run.assistant_id)}
    projection, after = Projection(thread.wire_id, StateFold(_nothing)), run.first_seq - 1
    while page := await log.read(thread.thread_id, after=after, limit=_PAGE_EVENTS):
        for event in page:
            if event.run_id != run.run_id:
                continue
            for frame in await projection.read(event):
                if frame.method == "lifecycle":
                    _tell(nodes, frame)
            if event.type is EventType.RUN_END:
                return nodes[()]
        after = page[-1].seq
    return nodes[()]


async def _nothing(_checkpoint_id: str) -> Values:
    return {}


def _tell(nodes: dict[Namespace, Node], frame: Frame) -> None:
    place, data = frame.namespace, frame.data
    if place not in nodes:
        nodes[place] = _node(place, data["event"], data["graph_name"])
        above = next(nodes[place[:end]] for end in range(len(place) - 1, -1, -1) if place[:end] in nodes)
        above.setdefault("children", []).append(nodes[place])
    nodes[place] |= {"status": data["event"], "graph_name": data["graph_name"]}


def _node(place: Namespace, status: str, name: str) -> Node:
    return {"namespace": list(place), "status": status, "graph_name": name}
