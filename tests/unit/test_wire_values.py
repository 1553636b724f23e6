"""The graph's state, folded from how it changed."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moorage_api.langgraph.values import StateFold


def said(message_id: str, text: str = "") -> dict[str, Any]:
    return {"id": message_id, "content": text, "type": "ai"}


class Checkpoints:
    """Checkpoints by id; knows which were asked for."""

    def __init__(self, **values: dict[str, Any]) -> None:
        self._values = values
        self.loaded: list[str] = []

    async def load(self, checkpoint_id: str) -> dict[str, Any]:
        self.loaded.append(checkpoint_id)
        return self._values[checkpoint_id]


async def test_a_run_in_a_new_thread_begins_with_nothing() -> None:
    checkpoints = Checkpoints()
    values = await StateFold(checkpoints.load).apply([], {"from": None, "messages": [said("a")], "set": {"files": {}}})
    assert values == {"messages": [said("a")], "files": {}}
    assert checkpoints.loaded == []


async def test_a_run_begins_with_the_values_of_its_checkpoint() -> None:
    checkpoints = Checkpoints(c1={"messages": [said("a")], "todos": [1]})
    values = await StateFold(checkpoints.load).apply([], {"from": "c1", "messages": [said("b")]})
    assert values == {"messages": [said("a"), said("b")], "todos": [1]}


async def test_a_checkpoint_at_which_the_fold_stands_is_not_loaded() -> None:
    checkpoints = Checkpoints()
    fold = StateFold(checkpoints.load)
    await fold.apply([], {"from": None, "messages": [said("a")]})
    fold.stands_at("c1")
    assert await fold.apply([], {"from": "c1", "messages": [said("b")]}) == {"messages": [said("a"), said("b")]}
    assert checkpoints.loaded == []


async def test_what_came_after_the_checkpoint_is_not_in_it() -> None:
    checkpoints = Checkpoints(c1={"messages": [said("a")]})
    fold = StateFold(checkpoints.load)
    await fold.apply([], {"from": None, "messages": [said("a")]})
    fold.stands_at("c1")
    await fold.apply([], {"messages": [said("c")]})  # a pause, with the result of a call that ran beside the one asked
    values = await fold.apply([], {"from": "c1", "messages": [said("b"), said("c")]})
    assert values == {"messages": [said("a"), said("b"), said("c")]}


async def test_messages_are_replaced_where_they_stand_and_dropped() -> None:
    fold = StateFold(Checkpoints().load)
    await fold.apply([], {"from": None, "messages": [said("a"), said("b"), said("c")]})
    values = await fold.apply([], {"messages": [said("b", "new"), said("d")], "gone": ["a"]})
    assert values["messages"] == [said("b", "new"), said("c"), said("d")]


async def test_a_reset_gives_the_whole_list() -> None:
    fold = StateFold(Checkpoints().load)
    await fold.apply([], {"from": None, "messages": [said("a"), said("b")]})
    assert (await fold.apply([], {"reset": True, "messages": [said("b")]}))["messages"] == [said("b")]
    assert (await fold.apply([], {"reset": True}))["messages"] == []


async def test_a_sub_graph_has_a_state_of_its_own() -> None:
    fold = StateFold(Checkpoints().load)
    await fold.apply([], {"from": None, "messages": [said("a")]})
    assert await fold.apply(["tools:1"], {"messages": [said("b")]}) == {"messages": [said("b")]}
    assert fold.values() == {"messages": [said("a")]}
    assert fold.values(["tools:2"]) is None


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), max_size=6))
async def test_what_was_recorded_of_each_step_folds_to_that_step(states: list[list[str]]) -> None:
    fold = StateFold(Checkpoints().load)
    before: list[str] = []
    for number, ids in enumerate(states):
        stayed = [item for item in before if item in ids]
        change: dict[str, Any] = {"from": None} if number == 0 else {}
        if ids[: len(stayed)] == stayed:
            change |= {
                "messages": [said(i) for i in ids if i not in before],
                "gone": [i for i in before if i not in ids],
            }
        else:
            change |= {"reset": True, "messages": [said(i) for i in ids]}
        assert (await fold.apply([], change))["messages"] == [said(i) for i in ids]
        before = ids
