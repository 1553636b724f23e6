"""The scripted model over real HTTP, through the provider code that real models go through."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable

import httpx
import openai
import pytest
from deepagents import create_deep_agent
from deepagents.backends import StateBackend
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from moorage.testing import SCRIPTS, serve_scripted_model

type Connect = Callable[..., ChatOpenAI]


@tool
def execute(command: str) -> str:
    """Run a command."""
    return f"ran {command}"


@tool
def write_file(file_path: str, content: str) -> str:
    """Write a file."""
    return f"Updated file {file_path}"


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with serve_scripted_model() as url:
        yield url


@pytest.fixture
async def connect(url: str) -> AsyncIterator[Connect]:
    async with openai.DefaultAsyncHttpxClient() as client:

        def build(script: str, *, max_retries: int = 0) -> ChatOpenAI:
            return ChatOpenAI(
                model=script,
                base_url=url,
                api_key="unused",
                use_responses_api=False,
                stream_usage=True,
                max_retries=max_retries,
                http_async_client=client,
            )

        yield build


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url) as client:
        yield client


async def test_text_streams_word_by_word(connect: Connect) -> None:
    chunks = [chunk async for chunk in connect("hello").astream("ahoy there")]
    assert len([chunk for chunk in chunks if chunk.text]) > 10
    assert 'You said: "ahoy there"' in "".join(chunk.text for chunk in chunks)


async def test_text_comes_whole_without_a_stream(connect: Connect) -> None:
    message = await connect("hello").ainvoke("ahoy")
    assert 'You said: "ahoy"' in message.text
    assert message.response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize("streaming", [True, False])
async def test_usage_counts_the_tokens(connect: Connect, streaming: bool) -> None:
    model = connect("long").model_copy(update={"streaming": streaming})
    message = await model.ainvoke("n=120")
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == 120
    assert message.usage_metadata["input_tokens"] > 0


async def test_streamed_tool_call_deltas_assemble_to_the_call(connect: Connect) -> None:
    model = connect("write-and-run").bind_tools([execute, write_file])
    chunks = [chunk async for chunk in model.astream("go")]
    assert sum(len(chunk.tool_call_chunks) for chunk in chunks if isinstance(chunk, AIMessageChunk)) > 5
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert isinstance(whole, AIMessageChunk)
    (call,) = whole.tool_calls
    assert (call["name"], call["args"]["file_path"]) == ("write_file", "/workspace/hello.py")
    assert whole.response_metadata["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("streaming", [True, False])
async def test_parallel_calls_arrive_apart_with_ids_of_their_own(connect: Connect, streaming: bool) -> None:
    model = connect("parallel").model_copy(update={"streaming": streaming}).bind_tools([execute])
    message = await model.ainvoke("go")
    assert [call["name"] for call in message.tool_calls] == ["execute", "execute", "ls"]
    assert len({call["id"] for call in message.tool_calls}) == 3


@pytest.mark.parametrize("streaming", [True, False])
async def test_malformed_arguments_land_in_invalid_tool_calls(connect: Connect, streaming: bool) -> None:
    model = connect("malformed-args").model_copy(update={"streaming": streaming}).bind_tools([execute])
    message = await model.ainvoke("go")
    assert message.tool_calls == []
    assert [call["name"] for call in message.invalid_tool_calls] == ["execute"]


async def test_429_then_fine_is_passed_by_the_clients_own_retry(connect: Connect) -> None:
    message = await connect("flaky-429", max_retries=1).ainvoke("retried by the client")
    assert "retried by the client" in message.text


async def test_429_then_fine_is_passed_by_a_retry_around_the_client(connect: Connect) -> None:
    model = connect("flaky-429")
    with pytest.raises(openai.RateLimitError) as failure:
        await model.ainvoke("retried from outside")
    assert failure.value.response.headers["retry-after"] == "1"
    assert "retried from outside" in (await model.ainvoke("retried from outside")).text


async def test_500_then_fine_is_passed_by_a_retry(connect: Connect) -> None:
    model = connect("flaky-500")
    with pytest.raises(openai.InternalServerError):
        await model.ainvoke("go")
    assert (await model.ainvoke("go")).text


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("always-429", openai.RateLimitError),
        ("error-500", openai.InternalServerError),
        ("error-401", openai.AuthenticationError),
        ("no-such-script", openai.NotFoundError),
    ],
)
async def test_failing_scripts_raise_the_clients_own_errors(
    connect: Connect, script: str, error: type[openai.APIStatusError]
) -> None:
    for _ in range(2):
        with pytest.raises(error):
            await connect(script).ainvoke("go")


async def test_a_cut_stream_raises_after_its_first_words(connect: Connect) -> None:
    received: list[str] = []

    async def read() -> None:
        async for chunk in connect("cut").astream("go"):
            received.append(chunk.text)

    with pytest.raises(openai.APIConnectionError):
        await read()
    assert "".join(received).startswith("These few")


async def test_a_stalled_stream_gives_its_first_words_and_then_nothing(http: httpx.AsyncClient) -> None:
    body = {"model": "stalled", "stream": True, "messages": [{"role": "user", "content": "go"}]}
    async with http.stream("POST", "/chat/completions", json=body, timeout=0.3) as response:
        with pytest.raises(httpx.ReadTimeout):
            [line async for line in response.aiter_lines()]


async def test_a_start_that_stalls_sends_not_even_a_status(http: httpx.AsyncClient) -> None:
    body = {"model": "stalled-start", "stream": True, "messages": [{"role": "user", "content": "go"}]}
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/chat/completions", json=body, timeout=0.3)


async def test_reasoning_comes_before_the_text_as_deepseek_sends_it(http: httpx.AsyncClient) -> None:
    body = {"model": "reasoning", "stream": True, "messages": [{"role": "user", "content": "go"}]}
    text = (await http.post("/chat/completions", json=body)).text
    assert 0 < text.index('"reasoning_content"') < text.index('"content": "The "')
    assert text.endswith("data: [DONE]\n\n")


async def test_usage_is_left_out_of_a_stream_that_did_not_ask_for_it(http: httpx.AsyncClient) -> None:
    body = {"model": "hello", "stream": True, "messages": [{"role": "user", "content": "go"}]}
    assert '"usage"' not in (await http.post("/chat/completions", json=body)).text


async def test_models_lists_every_script(http: httpx.AsyncClient) -> None:
    assert {item["id"] for item in (await http.get("/models")).json()["data"]} == set(SCRIPTS)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "hello"}', b'{"model": "hello", "messages": [{}]}'])
async def test_a_body_that_is_no_request_is_a_400_in_openais_shape(http: httpx.AsyncClient, body: bytes) -> None:
    response = await http.post("/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_an_unknown_path_is_a_404_in_openais_shape(http: httpx.AsyncClient) -> None:
    response = await http.get("/embeddings")
    assert (response.status_code, response.json()["error"]["type"]) == (404, "invalid_request_error")


async def test_closing_ends_an_answer_that_stalls() -> None:
    body = {"model": "stalled", "stream": True, "messages": [{"role": "user", "content": "go"}]}
    async with (
        httpx.AsyncClient(timeout=30) as client,
        asyncio.TaskGroup() as readers,
        serve_scripted_model() as url,
    ):
        started = asyncio.Event()

        async def read() -> None:
            async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
                async for _ in response.aiter_bytes():
                    started.set()

        readers.create_task(read())
        await started.wait()


async def test_serving_leaves_signal_handlers_and_loggers_as_they_are() -> None:
    def settings() -> tuple[object, ...]:
        loggers = [logging.getLogger(name) for name in ("", "uvicorn", "uvicorn.error", "uvicorn.access")]
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return handlers, [(list(one.handlers), one.level, one.propagate) for one in loggers]

    before = settings()
    async with serve_scripted_model():
        assert settings() == before
    assert settings() == before


async def test_a_deep_agent_plays_the_subagent_script_to_its_end(connect: Connect) -> None:
    agent = create_deep_agent(connect("subagent"), [execute], backend=StateBackend(), checkpointer=InMemorySaver())
    state = await agent.ainvoke({"messages": [HumanMessage("go")]}, {"configurable": {"thread_id": "t"}})
    assert state["files"]["/workspace/report.txt"]["content"].startswith("four words")
    assert "ran wc -w report.txt" in state["messages"][-1].text
