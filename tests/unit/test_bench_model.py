from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool

from moorage.agent.bench_model import BenchModel


async def collect(text: str) -> list[AIMessageChunk]:
    return [chunk async for chunk in BenchModel().astream([HumanMessage(text)])]


async def test_it_streams_as_many_tokens_as_the_message_says() -> None:
    assert [chunk.content for chunk in await collect("n=3 d=0")] == ["tok ", "tok ", "tok "]


async def test_it_streams_two_hundred_tokens_when_the_message_says_nothing() -> None:
    assert len(await collect("hello")) == 200


async def test_no_tokens_are_one_empty_message() -> None:
    assert [chunk.content for chunk in await collect("n=0")] == [""]


async def test_the_last_chunk_carries_the_usage() -> None:
    *others, last = await collect("n=3")
    assert last.usage_metadata is not None
    assert last.usage_metadata["output_tokens"] == 3
    assert all(chunk.usage_metadata is None for chunk in others)


def test_it_answers_without_a_stream_too() -> None:
    assert BenchModel().invoke([HumanMessage("n=2")]).text == "tok tok "


async def test_only_the_last_human_message_counts() -> None:
    messages = [HumanMessage("n=9"), AIMessage("tok"), HumanMessage("n=1")]
    assert (await BenchModel().ainvoke(messages)).text == "tok "


async def test_it_makes_the_tool_turns_before_the_text() -> None:
    asked = HumanMessage("n=1 tools=1")
    first = await BenchModel().ainvoke([asked])
    assert [(call["name"], call["args"]) for call in first.tool_calls] == [("ls", {"path": "/workspace"})]
    then = await BenchModel().ainvoke([asked, first, ToolMessage("[]", tool_call_id=first.tool_calls[0]["id"])])
    assert (then.text, then.tool_calls) == ("tok ", [])


async def test_an_agent_streams_a_turn_with_tools_to_its_end() -> None:
    listed: list[str] = []

    @tool
    def ls(path: str) -> str:
        """List files."""
        listed.append(path)
        return "[]"

    agent = create_agent(BenchModel(), [ls])
    parts = [part async for part in agent.astream({"messages": [("user", "n=5 tools=2")]}, stream_mode="messages")]
    texts = [part[0].text for part in parts if isinstance(part[0], AIMessageChunk) and part[0].text]
    assert listed == ["/workspace", "/workspace"]
    assert texts == ["tok "] * 5
