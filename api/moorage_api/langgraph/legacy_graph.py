"""What LangGraph itself said of a run, as the frames of modes `values`, `updates`, `tasks`, `checkpoints`, `debug`."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from moorage_api.langgraph.legacy_frames import FrameWriter, frame_name
from moorage_api.langgraph.legacy_places import Namespace, Places, ShownRun
from moorage_api.langgraph.values import StateFold

_NEEDS_STATE = frozenset({"values", "tasks", "checkpoints", "debug", "events"})
_UNKNOWN = datetime.fromtimestamp(0, UTC)


class GraphFrames:
    """Reads `graph` events. `told` are the kinds that were there for the root."""

    def __init__(
        self,
        run: ShownRun,
        modes: Collection[str],
        *,
        subgraphs: bool,
        frames: FrameWriter,
        places: Places,
        fold: StateFold,
    ) -> None:
        self._run = run
        self._modes = frozenset(modes)
        self._subgraphs = subgraphs
        self._frames = frames
        self._places = places
        self._fold = fold
        self._steps: dict[Namespace, int] = {}
        self._time = _UNKNOWN
        self.told: set[str] = set()

    async def read(self, kind: str, ns: Namespace, data: dict[str, Any], at: datetime | None) -> None:
        self._time = at or self._time
        if not ns:
            self.told.add(kind)
        if kind == "tasks" and "triggers" in data:
            self._places.task_started(ns, data["name"], data["id"])
        if ns and not self._subgraphs:
            return
        match kind:
            case "values":
                await self._values(ns, data)
            case "updates":
                self._show("updates", ns, data)
            case "tasks":
                self._task(ns, data)
            case "checkpoints":
                await self._checkpoint(ns, data)
            case _:
                return

    async def _values(self, ns: Namespace, change: Mapping[str, Any]) -> None:
        if self._modes.isdisjoint(_NEEDS_STATE):
            return
        values = await self._fold.apply(ns, change)
        self._show("values", ns, values)

    def _task(self, ns: Namespace, data: dict[str, Any]) -> None:
        starts = "triggers" in data
        if self._modes.isdisjoint(("tasks", "debug")):
            return
        if starts:
            given = data["input"] if "input" in data else self._fold.values(ns)
            about = {"triggers": data["triggers"], "metadata": self._places.base()}
            data = {"id": data["id"], "name": data["name"], "input": given, **about}
        self._show("tasks", ns, data)
        self._debug("task" if starts else "task_result", ns, data, step=self._steps.get(ns, -1) + 1)

    async def _checkpoint(self, ns: Namespace, data: dict[str, Any]) -> None:
        place, parent = self._named(data["config"]), self._named(data["parent_config"])
        if not ns:
            self._fold.stands_at(place["checkpoint_id"])
        step: int = data["metadata"].get("step", 0)
        self._steps[ns] = step
        if self._modes.isdisjoint(("checkpoints", "debug")):
            return
        payload = {
            "config": {"configurable": place},
            "parent_config": {"configurable": parent} if parent else None,
            "values": self._fold.values(ns)
            or ({} if ns or not parent else await self._fold.at(place["checkpoint_id"])),
            "metadata": data["metadata"],
            "next": data["next"],
            "tasks": [{**task, "state": None} for task in data["tasks"]],
        }
        self._show("checkpoints", ns, payload)
        self._debug("checkpoint", ns, {**payload, "checkpoint": place, "parent_checkpoint": parent or None}, step=step)

    def _named(self, config: Mapping[str, Any] | None) -> dict[str, Any]:
        """A checkpoint's place with the thread's id as its client knows it; nothing for none."""
        return {**config["configurable"], "thread_id": self._run.thread_id} if config else {}

    def _show(self, mode: str, ns: Namespace, data: Any) -> None:
        if mode in self._modes:
            self._frames.add_json(frame_name(mode, ns), data)

    def _debug(self, kind: str, ns: Namespace, payload: Mapping[str, Any], *, step: int) -> None:
        told = {"step": step, "timestamp": self._time.isoformat(), "type": kind, "payload": payload}
        self._show("debug", ns, told)
