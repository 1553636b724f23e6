"""deepagents' view of the sandboxes, used as the agent uses it: from inside a graph."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypedDict

import pytest
from deepagents.backends.protocol import ExecuteResponse
from langgraph.graph import END, START, StateGraph
from tests.contract.sandboxes.harness import Harbour, open_harbour

from moorage.agent.backend import ThreadSandbox, tool_output_sink
from moorage.ids import ThreadId


class Empty(TypedDict):
    pass


@pytest.fixture(scope="module")
async def harbour(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Harbour]:
    async with open_harbour("bubblewrap", tmp_path_factory.mktemp("backend")) as harbour:
        yield harbour


@pytest.fixture
async def backend(harbour: Harbour) -> ThreadSandbox:
    return ThreadSandbox(harbour.sandboxes, default_time_limit=20, max_time_limit=30)


async def in_run_of[T](thread_id: ThreadId, action: Callable[[], Awaitable[T]]) -> T:
    """What `action` answers when a graph's node calls it in a run of the thread."""
    answers: list[T] = []

    async def node(_: Empty) -> Empty:
        answers.append(await action())
        return {}

    graph = StateGraph(Empty).add_node("node", node).add_edge(START, "node").add_edge("node", END).compile()
    await graph.ainvoke({}, {"configurable": {"thread_id": thread_id}})
    return answers[0]


def shown_output(backend: ThreadSandbox, command: str) -> Callable[[], Awaitable[ExecuteResponse]]:
    async def execute() -> ExecuteResponse:
        return (await backend.aexecute_with_offload(command, "/unused", max_inline_bytes=0)).response

    return execute


async def test_each_call_goes_to_the_sandbox_of_its_run(harbour: Harbour, backend: ThreadSandbox) -> None:
    mine, other = harbour.new_thread(), harbour.new_thread()
    await in_run_of(mine, lambda: backend.awrite("/workspace/note", "mine"))
    assert (await in_run_of(mine, lambda: backend.aexecute("cat note"))).output == "mine"
    assert (await in_run_of(other, lambda: backend.aexecute("cat note"))).exit_code == 1


async def test_only_the_execute_tool_is_shown_live(harbour: Harbour, backend: ThreadSandbox) -> None:
    seen: list[tuple[str, str]] = []
    tool_output_sink.set(lambda stream, text: seen.append((stream, text)))
    thread_id = harbour.new_thread()
    await in_run_of(thread_id, lambda: backend.aread("/etc/passwd"))
    assert seen == []
    await in_run_of(thread_id, shown_output(backend, "echo hello"))
    assert seen == [("stdout", "hello\n")]


async def test_a_timeout_says_so_and_answers_124(harbour: Harbour, backend: ThreadSandbox) -> None:
    response = await in_run_of(harbour.new_thread(), lambda: backend.aexecute("echo on; sleep 60", timeout=1))
    assert response.exit_code == 124
    assert response.output == "on\nCommand timed out after 1 s; its processes were killed."


async def test_too_much_output_is_said(harbour: Harbour, backend: ThreadSandbox) -> None:
    response = await in_run_of(harbour.new_thread(), shown_output(backend, "yes"))
    assert response.truncated
    assert response.output.endswith("Command killed: it wrote more than 16 MiB of output.")


async def test_a_file_or_a_folder_can_be_deleted(harbour: Harbour, backend: ThreadSandbox) -> None:
    thread_id = harbour.new_thread()
    await in_run_of(thread_id, lambda: backend.awrite("/workspace/a b/-c", "x"))
    assert (await in_run_of(thread_id, lambda: backend.adelete("/workspace/a b"))).error is None
    assert (await in_run_of(thread_id, lambda: backend.adelete("/workspace/a b"))).error is not None


async def test_a_file_over_25_mebibytes_is_refused(harbour: Harbour, backend: ThreadSandbox) -> None:
    content = b"x" * (25 * 1024 * 1024 + 1)
    answers = await in_run_of(harbour.new_thread(), lambda: backend.aupload_files([("/workspace/big", content)]))
    assert answers[0].error == "file_too_large"


async def test_the_synchronous_methods_work_from_another_thread(harbour: Harbour, backend: ThreadSandbox) -> None:
    response = await in_run_of(harbour.new_thread(), lambda: asyncio.to_thread(backend.execute, "echo sync"))
    assert response.output == "sync\n"


async def test_the_synchronous_methods_refuse_to_block_the_loop(backend: ThreadSandbox) -> None:
    with pytest.raises(RuntimeError):
        backend.execute("true")
