"""Messages over HTTP: history, search, export."""

import json
import re
from typing import Any
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from tests.api.harness import NewUser, Server, User

from moorage.claims import Claim
from moorage.events import EventType, Message, Role, run_event
from moorage.ids import RunId, ThreadId, UserId, new_run_id


class Writer:
    """Puts messages into a session as a run of its own would."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def write(self, thread_id: str, *contents: str, **fields: Any) -> None:
        await self.store(
            thread_id, *(Message(f"m{n}", Role.ASSISTANT, text, **fields) for n, text in enumerate(contents))
        )

    async def store(self, thread_id: str, *messages: Message) -> None:
        owner = UserId(thread_id[:-37])
        claim = Claim(RunId(new_run_id()), ThreadId(thread_id), owner, 1)
        async with self._server.runtime.database.tenant_transaction(owner) as connection:
            await connection.execute(
                "INSERT INTO runs (run_id, thread_id, owner_id, kind, input, status, generation, lease_expires_at)"
                " VALUES (%s, %s, %s, 'message', '{}', 'running', 1, now() + interval '1 hour')",
                [claim.run_id, thread_id, owner],
            )
        for message in messages:
            event = run_event(EventType.MESSAGE_COMPLETE, {}, message=message)
            await self._server.runtime.event_log.append(claim, [event])
        async with self._server.runtime.database.tenant_transaction(owner) as connection:
            await connection.execute("UPDATE runs SET status = 'success' WHERE run_id = %s", [claim.run_id])


@pytest.fixture
def writer(server: Server) -> Writer:
    return Writer(server)


async def found(user: User, q: str, **params: Any) -> list[str]:
    reply = await user.client.get("/api/messages", params={"q": q, **params})
    assert reply.status_code == 200, reply.text
    return [item["message"]["content"] for item in reply.json()["items"]]


async def exported(user: User, thread: str, **params: Any) -> str:
    reply = await user.client.get(f"/api/sessions/{thread}/export", params=params)
    assert reply.status_code == 200, reply.text
    return reply.text


async def test_history_shows_how_long_a_message_took(alice: User, writer: Writer):
    thread = await alice.new_session()
    await writer.write(thread, "quick", duration_ms=1234)
    [item] = (await alice.client.get(f"/api/sessions/{thread}/messages")).json()["items"]
    assert (item["content"], item["duration_ms"]) == ("quick", 1234)


# Search ---------------------------------------------------------------------------------------------------------------


async def test_search_finds_words_in_all_of_ones_sessions_newest_first(new_user: NewUser, writer: Writer):
    user = await new_user("reader")
    one, other = await user.new_session(title="first"), await user.new_session(title="second")
    await writer.write(one, "the harbour at night", "nothing here")
    await writer.write(other, "a Harbour by day")
    reply = (await user.client.get("/api/messages", params={"q": "harbour"})).json()
    assert [(item["thread_id"], item["title"]) for item in reply["items"]] == [(other, "second"), (one, "first")]
    assert "Harbour by day" in reply["items"][0]["snippet"]
    assert await found(user, "harbour", thread_id=one) == ["the harbour at night"]
    assert await found(user, "harbour -night") == ["a Harbour by day"]
    assert await found(user, '"at night"') == ["the harbour at night"]


@pytest.mark.parametrize(
    ("content", "query", "finds"),
    [
        ("我们使用数据库存储消息", "数据库", True),
        ("我们使用数据库存储消息", "库数据", False),
        ("用Python写的程序", "python", True),
        ("用Python写的程序", "Python写", True),
        ("東京タワーへ行く", "タワー", True),
        ("서울에서 만나요", "서울", True),
        ("数据和仓库", "数据库", False),
    ],
)
async def test_search_finds_words_of_languages_without_spaces(
    new_user: NewUser, writer: Writer, content: str, query: str, finds: bool
):
    user = await new_user("polyglot")
    thread = await user.new_session()
    await writer.write(thread, content)
    assert await found(user, query, thread_id=thread) == ([content] if finds else [])


async def test_search_never_sees_what_belongs_to_others(new_user: NewUser, writer: Writer):
    al, al_ice = await new_user("al"), await new_user("al-ice")
    theirs = await al_ice.new_session()
    await writer.write(theirs, "a secret lighthouse")
    assert await found(al, "lighthouse") == []
    assert await found(al_ice, "lighthouse") == ["a secret lighthouse"]
    reply = await al.client.get("/api/messages", params={"q": "lighthouse", "thread_id": theirs})
    assert reply.status_code == 403


async def test_search_goes_on_where_the_cursor_points(new_user: NewUser, writer: Writer):
    user = await new_user("pager")
    thread = await user.new_session()
    await writer.write(thread, *(f"buoy number {number}" for number in range(7)))
    seen: list[str] = []
    cursor: str | None = None
    while cursor or not seen:
        params = {"q": "buoy", "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await user.client.get("/api/messages", params=params)).json()
        seen += [item["message"]["content"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == [f"buoy number {number}" for number in reversed(range(7))]


@pytest.mark.parametrize(
    "query",
    [
        "'", '"', "\\", "& | !", "a & b:*", "((((", "<->", "-", "- - -", "OR", "OR OR", "' OR 1=1 --", "%", "\x00",
        "a\x00b", "\u202e", "🎉", "x" * 400, "汉" * 400, '"' * 400, "-" * 400, "a-语", '"-语', "（全角）",
        "\ud7ff", "𠮷野家",
    ],
)  # fmt: skip
async def test_a_hostile_query_finds_something_or_nothing(alice: User, query: str):
    await found(alice, query)


@pytest.mark.parametrize(
    "params",
    [
        {}, {"q": ""}, {"q": "x" * 401}, {"q": "x", "limit": 0}, {"q": "x", "limit": 101}, {"q": "x", "cursor": "x"},
        {"q": "x", "cursor": "WyJhIiwiYiJd"}, {"q": "x", "cursor": "WyIyMDI2LTAxLTAxIiwiYiJd"},
        {"q": "x", "cursor": "WyIyMDI2LTAxLTAxIiwiYi9jIl0"},
    ],
)  # fmt: skip
async def test_what_cannot_be_a_search_is_refused(alice: User, params: dict[str, Any]):
    assert (await alice.client.get("/api/messages", params=params)).status_code == 422


# Export ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def conversation(alice: User, writer: Writer) -> str:
    thread = await alice.new_session(title='Plans: \u202ea/b\n"c" 计划')
    call = {"call_id": "c1", "tool_name": "execute", "tool_input": {"command": "ls"}}
    await writer.store(
        thread,
        Message("m1", Role.USER, "list the files"),
        Message("m2", Role.ASSISTANT, "Sure.", thinking="hm\nwell", tool_calls=[call], duration_ms=1500),
        Message("m3", Role.TOOL, "a ``` b\n", call_id="c1"),
    )
    return thread


async def test_an_export_to_markdown_reads_like_the_conversation(alice: User, conversation: str):
    text = await exported(alice, conversation)
    assert text.startswith("# Plans: ")
    for part in (
        "## User (", "\n> list the files\n", ", 1.5 s)",
        "<summary>Thinking</summary>\n\n```\nhm\nwell\n```", "Calls `execute`:",
        '```json\n{\n  "command": "ls"', "````\na ``` b\n````",
    ):  # fmt: skip
        assert part in text


HOSTILE = (
    "```\n# not a heading", "````js\n```\n", "~~~\nopen", "<!-- open", "<details>\n<script>", "- ```\n  x", "> ```",
    "\r## User (2026-01-01 00:00:00)\r\rdo it", "a\n===", "a\n\n---\n", "`" * 70, "    ```", "\u2028# x\x85# y\x0c# z",
    "</details>\n\n# out", "<![CDATA[", "<pre>", "[a]: http://x\n", "\t```\n\t", "1. ```\n\n   ```\n\n# x", "\\", "",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
async def test_nothing_that_was_said_changes_the_structure_of_an_export(alice: User, writer: Writer, text: str):
    """Three messages, each with its own heading, and nothing else at the top: no block is left open or ends early."""
    thread = await alice.new_session(title=text[:50] or "empty")
    call = {"call_id": "c1", "tool_name": text[:60], "tool_input": {text: text}}
    await writer.store(
        thread,
        Message("m1", Role.USER, text),
        Message("m2", Role.ASSISTANT, text, thinking=f"so {text}", tool_calls=[call]),
        Message("m3", Role.TOOL, text, call_id="c1"),
    )
    top = [token for token in MarkdownIt("commonmark").parse(await exported(alice, thread)) if token.level == 0]
    quote, question = ["blockquote_open", "blockquote_close"], ["paragraph_open", "paragraph_close"]
    heading = ["heading_open", "heading_close"]
    said = quote if text else []
    assert [token.type for token in top if token.type != "inline"] == [
        *heading, *question, *heading, *said, *heading, "html_block", "fence", "html_block", *said, *question, "fence",
        *heading, "fence",
    ]  # fmt: skip
    thinking, arguments, result = [token.content for token in top if token.type == "fence"]
    assert thinking.split() == f"so {text}".split()
    assert json.loads(arguments) == {text: text}
    assert result.split() == text.split()


async def test_an_export_to_json_holds_all_that_the_history_shows(alice: User, conversation: str):
    history = (await alice.client.get(f"/api/sessions/{conversation}/messages")).json()["items"]
    found = json.loads(await exported(alice, conversation, format="json"))
    assert found["thread"]["thread_id"] == conversation
    assert found["messages"] == history


async def test_an_export_of_many_messages_holds_each_once(alice: User, writer: Writer):
    thread = await alice.new_session()
    await writer.write(thread, *(f"message {number}" for number in range(130)))
    messages = json.loads(await exported(alice, thread, format="json"))["messages"]
    assert [message["content"] for message in messages] == [f"message {number}" for number in range(130)]


async def test_an_empty_session_can_be_exported(alice: User):
    thread = await alice.new_session()
    assert json.loads(await exported(alice, thread, format="json"))["messages"] == []
    assert (await exported(alice, thread)).startswith("# Session\n")


async def test_an_exports_file_name_is_harmless(alice: User, conversation: str):
    reply = await alice.client.get(f"/api/sessions/{conversation}/export")
    assert reply.headers["content-type"] == "text/markdown; charset=utf-8"
    assert reply.headers["content-disposition"] == (
        "attachment; filename=\"Plans-a-b-c.md\"; filename*=UTF-8''Plans-a-b-c-%E8%AE%A1%E5%88%92.md"
    )


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("../../etc/passwd", "etc-passwd"), ("CON", "session-CON"), ("nul.txt", "session-nul.txt"), ('"; x="', ";-x="),
        ("\u202egpj.exe", "gpj.exe"), ("...", "session"), ("a;b%41", "a;b%41"), ("x" * 200, "x" * 150),
        ("🎉" * 50, "🎉" * 37), ("-rf", "rf"),
    ],
)  # fmt: skip
async def test_whatever_the_title_the_file_has_a_name_that_harms_nobody(alice: User, title: str, name: str):
    thread = await alice.new_session(title=title)
    disposition = (await alice.client.get(f"/api/sessions/{thread}/export")).headers["content-disposition"]
    quoted = re.fullmatch(
        r"attachment; filename=\"[A-Za-z0-9._-]+\"; filename\*=UTF-8''([A-Za-z0-9._%~-]+)", disposition
    )
    assert quoted
    assert unquote(quoted[1]) == f"{name}.md"


async def test_an_unknown_format_is_refused(alice: User, conversation: str):
    reply = await alice.client.get(f"/api/sessions/{conversation}/export", params={"format": "exe"})
    assert reply.status_code == 422
