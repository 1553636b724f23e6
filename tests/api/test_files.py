"""Files of a session over HTTP: both ways, in part, as they must not be, and while everything else goes on."""

import asyncio
import io
import os
import uuid
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.harness import PASSWORD, NewUser, Server, User, make_settings, only, pending, running

from moorage_api import sse

MIB = 1024 * 1024
CANARY = "canary-of-the-host"


@pytest.fixture(scope="module")
async def server(database_url: str, public_tmp_path: Path) -> AsyncGenerator[Server]:
    """Workspaces here are small, and beside them is what nobody may ever read."""
    folder = public_tmp_path / uuid.uuid4().hex
    settings = make_settings(folder, database_url, sandbox_disk_mb=64, quota_open_streams=20)
    settings.workspace_root.mkdir(parents=True)
    for place in (folder, settings.workspace_root):
        (place / "canary").write_text(CANARY)
    async with running(settings) as found:
        yield found


class Files:
    """A session's files."""

    def __init__(self, user: User, thread: str) -> None:
        self.user, self.thread = user, thread
        self._base = f"/api/files/{thread}"

    async def ask(self, method: str, what: str = "", path: str | None = None, **request: Any) -> httpx.Response:
        params = {**request.pop("params", {}), **({"path": path} if path is not None else {})}
        return await self.user.client.request(method, self._base + what, params=params, **request)

    async def put(self, path: str, content: bytes, **request: Any) -> httpx.Response:
        return await self.ask("PUT", "/content", path, content=content, **request)

    async def upload(self, name: str, content: bytes, path: str = "", **params: Any) -> httpx.Response:
        return await self.ask("POST", "/upload", path, files={"file": (name, content)}, params=params)

    async def read(self, path: str, **headers: str) -> httpx.Response:
        return await self.ask("GET", "/content", path, headers=headers)

    async def names(self, path: str = "") -> list[str]:
        reply = await self.ask("GET", "", path)
        assert reply.status_code == 200, reply.text
        return [item["name"] for item in reply.json()["items"]]


@pytest.fixture(scope="module")
async def ann(server: Server) -> AsyncGenerator[User]:
    """Logged in once: that takes longer than most of these tests."""
    account = {"username": "ann", "password": PASSWORD}
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        await client.post("/api/auth/register", json=account)
        token = (await client.post("/api/auth/login", json=account)).json()["access_token"]
        client.headers["authorization"] = f"Bearer {token}"
        yield User("ann", client)


@pytest.fixture
async def files(ann: User) -> Files:
    return Files(ann, await ann.new_session())


@pytest.fixture(scope="module")
async def digits(ann: User) -> Files:
    """A session with a file `a` of ten digits, which no test changes."""
    found = Files(ann, await ann.new_session())
    assert (await found.put("a", b"0123456789")).status_code == 201
    return found


def told(reply: httpx.Response) -> tuple[int, str]:
    assert reply.headers["content-type"] == "application/problem+json", reply.text
    return reply.status_code, reply.json()["code"]


# Both ways -------------------------------------------------------------------------------------------------------


async def test_a_file_comes_and_goes(files: Files) -> None:
    reply = await files.put("notes/plan.txt", b"one two three", headers={"content-type": "application/json"})
    assert reply.status_code == 201
    entry = reply.json()
    assert (entry["path"], entry["name"], entry["type"], entry["size"]) == ("notes/plan.txt", "plan.txt", "file", 13)
    assert (await files.put("notes/plan.txt", b"again")).status_code == 200
    assert (await files.ask("GET", "/stat", "notes/plan.txt")).json()["size"] == 5
    listed = (await files.ask("GET", "", "notes")).json()
    assert [item["path"] for item in listed["items"]] == ["notes/plan.txt"]
    assert listed["next_cursor"] is None
    assert (await files.read("notes/plan.txt")).content == b"again"
    assert (await files.ask("DELETE", "/content", "notes")).status_code == 204
    assert await files.names() == []


async def test_a_session_that_never_used_a_sandbox_has_no_files_and_starts_none(server: Server, files: Files) -> None:
    assert await files.names() == []
    assert (await files.ask("GET", "/usage")).json()["used_bytes"] == 0
    assert told(await files.read("a")) == (404, "file_not_found")
    assert told(await files.ask("DELETE", "/content", "a")) == (404, "file_not_found")
    assert not (server.workspaces / "ann" / files.thread).exists()


async def test_a_form_is_written_under_the_name_that_it_gives(files: Files) -> None:
    reply = await files.upload("re port.txt", b"x" * 3 * MIB, path="in")
    assert (reply.status_code, reply.json()["path"], reply.json()["size"]) == (201, "in/re port.txt", 3 * MIB)
    assert (await files.upload("C:\\Users\\me\\报告.txt", b"2")).json()["path"] == "报告.txt"
    assert told(await files.upload("报告.txt", b"3", overwrite="false")) == (409, "file_exists")
    assert (await files.upload("../../up.txt", b"4")).json()["path"] == "up.txt"
    assert told(await files.upload("..", b"5")) == (422, "invalid_path")
    assert (await files.read("报告.txt")).content == b"2"
    assert (await files.upload("empty", b"")).json()["size"] == 0


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1_000_003])
async def test_a_form_arrives_byte_for_byte_whatever_is_in_it(files: Files, size: int) -> None:
    content = (b"\r\n--boundary\r\n" + os.urandom(1000))[:size] + b"\r\n--" * (max(0, size - 1020) // 4)
    await files.upload("a", content)
    assert (await files.read("a")).content == content


def form(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    written = b"".join(
        b"--b\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + body + b"\r\n"
        for head, body in parts
    )
    return written + end


FILE = 'name="file"; filename="a"'


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form((FILE, b"x"), end=b""), "multipart/form-data; boundary=b"),
        (form((FILE, b"x"), (FILE, b"y")), "multipart/form-data; boundary=b"),
        (form((FILE, b"x"), ('name="more"', b"y")), "multipart/form-data; boundary=b"),
        (form(('name="more"', b"y"), (FILE, b"x")), "multipart/form-data; boundary=b"),
        (form(('name="file"', b"x")), "multipart/form-data; boundary=b"),
        (form(('name="other"; filename="a"', b"x")), "multipart/form-data; boundary=b"),
        (form((f"{FILE}\r\nX: " + "y" * 10_000, b"x")), "multipart/form-data; boundary=b"),
        (form((FILE, b"x")), "multipart/form-data; boundary=other"),
        (form((FILE, b"x")), "multipart/form-data"),
        (form((FILE, b"x")), "multipart/form-data; boundary=" + "b" * 100),
        (b"", "multipart/form-data; boundary=b"),
        (b"file=x", "application/x-www-form-urlencoded"),
        (b'{"file":"x"}', "application/json"),
    ],
)
async def test_of_a_form_that_is_not_the_one_asked_for_nothing_is_left(files: Files, body: bytes, kind: str) -> None:
    reply = await files.ask("POST", "/upload", content=body, headers={"content-type": kind})
    assert told(reply) == (422, "bad_form")
    assert await files.names() == []


# In part ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "content", "told_range"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=-200", b"0123456789", "bytes 0-9/10"),
        ("bytes=5-500", b"56789", "bytes 5-9/10"),
    ],
)
async def test_a_part_of_a_file(digits: Files, wanted: str, content: bytes, told_range: str) -> None:
    reply = await digits.read("a", range=wanted)
    assert (reply.status_code, reply.content, reply.headers["content-range"]) == (206, content, told_range)
    assert reply.headers["content-length"] == str(len(content))


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=999999999999999-", "bytes=-0"])
async def test_a_part_that_the_file_does_not_have(digits: Files, wanted: str) -> None:
    reply = await digits.read("a", range=wanted)
    assert (told(reply), reply.headers["content-range"]) == ((416, "no_such_part"), "bytes */10")


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=3-1",
        "bytes=0-1,3-4",
        "lines=1-2",
        "bytes=0-0" + ",0-0" * 100,
    ],
)
async def test_what_is_no_range_of_one_part_is_ignored(digits: Files, wanted: str) -> None:
    reply = await digits.read("a", range=wanted)
    assert (reply.status_code, reply.content) == (200, b"0123456789")


@pytest.mark.parametrize("wanted", ["bytes=2-4", "bytes=20-"])
async def test_a_weak_tag_is_no_proof_that_a_part_is_of_the_same_file(digits: Files, wanted: str) -> None:
    """Who has the start of a file may only add to it what is surely of the same bytes (RFC 9110, 13.1.5)."""
    tag = (await digits.read("a")).headers["etag"]
    assert tag.startswith('W/"')
    for told in (tag, tag.removeprefix("W/"), '"another"', "Wed, 21 Oct 2026 07:28:00 GMT"):
        reply = await digits.read("a", **{"range": wanted, "if-range": told})
        assert (reply.status_code, reply.content) == (200, b"0123456789")
        assert "content-range" not in reply.headers


async def test_a_download_is_nothing_that_a_browser_would_show(files: Files) -> None:
    await files.put('a"\u00e9;.html', b"<script>alert(1)</script>")
    for method in ("GET", "HEAD"):
        reply = await files.ask(method, "/content", 'a"\u00e9;.html')
        assert reply.headers["content-type"] == "application/octet-stream"
        assert reply.headers["content-disposition"] == (
            "attachment; filename=\"a___.html\"; filename*=UTF-8''a%22%C3%A9%3B.html"
        )
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-security-policy"].startswith("sandbox")
        assert reply.headers["cache-control"] == "private, no-store"
        assert reply.headers["content-length"] == "25"
        assert len(reply.content) == (25 if method == "GET" else 0)


async def test_a_part_of_a_file_is_not_written_as_if_it_were_the_file(files: Files) -> None:
    await files.put("a", b"0123456789")
    reply = await files.put("a", b"ab", headers={"content-range": "bytes 0-1/10"})
    assert told(reply) == (400, "partial_upload")
    assert (await files.read("a")).content == b"0123456789"


# What must not be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "../canary", "..%2fcanary", "%2e%2e%2fcanary", "%2e%2e/canary", "..%5ccanary",
        "..%c0%afcanary", "%c0%ae%c0%ae/canary", "a/../../canary", "./canary", "/etc/passwd",
        "//etc/passwd", "%2fetc%2fpasswd", "C:%5cWindows", "c:/x", "~/x", "~root", "a%00", "%00", "a%0a", "a%7f",
        "a%e2%80%ae", "a%ef%bb%bf", "a//b", "a/", "%5cx2e%5cx2e/canary", "%5cx2f", "a/%2e", "%ff", "%ed%a0%80",
        "....//canary", "a" * 256, "a/" * 40 + "a", "a%5cx41", "file:///etc/passwd",
    ],
)  # fmt: skip
async def test_no_path_leads_out_of_the_workspace(digits: Files, query: str) -> None:
    for method, what in LOOKING_AND_WRITING:
        reply = await by_query(digits, method, what, query)
        assert told(reply) == (422, "invalid_path")
        assert CANARY not in reply.text
    path = httpx.URL(f"http://x/?path={query}").params["path"]
    for what, body in (
        ("/move", {"from": "a", "to": path}),
        ("/move", {"from": path, "to": "b"}),
        ("/mkdir", {"path": path}),
    ):
        status, code = told(await digits.ask("POST", what, json=body))
        assert (status, code) in ((422, "invalid_path"), (422, "invalid_json"))  # JSON with a NUL is refused as JSON


@pytest.mark.parametrize("query", ["..%252fcanary", "..%ef%bc%8fcanary", "..;/canary", ".../canary", "a%26path=canary"])
async def test_what_only_looks_like_a_way_out_is_a_name(digits: Files, query: str) -> None:
    reply = await by_query(digits, "GET", "/content", query)
    assert told(reply)[1] in ("file_not_found", "not_a_directory")


LOOKING_AND_WRITING = [
    ("GET", "/content"), ("GET", "/stat"), ("GET", ""), ("GET", "/zip"), ("GET", "/preview"), ("PUT", "/content"),
    ("DELETE", "/content"),
]  # fmt: skip


async def by_query(files: Files, method: str, what: str, query: str) -> httpx.Response:
    """With a path that is encoded already."""
    client = files.user.client
    url = httpx.URL(f"{str(client.base_url).rstrip('/')}/api/files/{files.thread}{what}?path={query}")
    return await client.request(method, url, content=b"x" if method == "PUT" else None)


async def test_links_that_programs_made_lead_nowhere(server: Server, files: Files) -> None:
    await files.put("real/a", b"mine")
    folder = server.workspaces / "ann" / files.thread
    (folder / "root").symlink_to("/")
    (folder / "up").symlink_to("../..")
    (folder / "canary").symlink_to(server.workspaces / "canary")
    (folder / "proc").symlink_to("/proc/1/root")
    (folder / "real" / "loop").symlink_to("loop")
    items = {item["name"]: item["type"] for item in (await files.ask("GET")).json()["items"]}
    assert items == {"canary": "link", "proc": "link", "real": "dir", "root": "link", "up": "link"}
    for path in ("canary", "root", "real/loop", "proc"):
        assert told(await files.read(path)) == (422, "invalid_path")
        assert told(await files.put(path, b"x")) == (422, "invalid_path")
    for path in ("root/etc/passwd", "up/canary", "proc/etc/passwd", "real/loop/a"):
        assert told(await files.read(path)) == (409, "not_a_directory")
        assert told(await files.put(path, b"x")) == (409, "not_a_directory")
        assert told(await files.ask("DELETE", "/content", path)) == (409, "not_a_directory")
    data = (await files.ask("GET", "/zip", "")).content
    assert sorted(zipfile.ZipFile(io.BytesIO(data)).namelist()) == ["_missing.txt", "real/a"]
    for path in ("root", "up", "canary", "proc", "real"):
        assert (await files.ask("DELETE", "/content", path)).status_code == 204
    assert (server.workspaces / "canary").read_text() == CANARY


async def test_pipes_are_not_opened(server: Server, files: Files) -> None:
    await files.put("a", b"mine")
    os.mkfifo(server.workspaces / "ann" / files.thread / "pipe")
    assert (await files.ask("GET", "/stat", "pipe")).json()["type"] == "other"
    assert told(await files.read("pipe")) == (422, "invalid_path")
    assert told(await files.put("pipe", b"x")) == (422, "invalid_path")
    assert (await files.ask("DELETE", "/content", "pipe")).status_code == 204


async def test_names_that_are_no_text_are_escaped_and_usable(server: Server, files: Files) -> None:
    await files.put("a", b"mine")
    (server.workspaces / "ann" / files.thread / os.fsdecode(b"\xff\n\\x")).write_text("odd")
    assert await files.names() == ["a", "\\xff\\x0a\\x5cx"]
    assert (await files.read("\\xff\\x0a\\x5cx")).content == b"odd"
    body = {"from": "\\xff\\x0a\\x5cx", "to": "plain"}
    assert (await files.ask("POST", "/move", json=body)).json()["path"] == "plain"


async def test_of_a_sparse_terabyte_a_part_can_be_had(server: Server, files: Files) -> None:
    await files.put("a", b"mine")
    path = server.workspaces / "ann" / files.thread / "big"
    with path.open("wb") as file:
        file.truncate(2**40)
    reply = await files.read("big", range="bytes=-5")
    assert (reply.status_code, reply.content) == (206, bytes(5))
    assert reply.headers["content-range"] == f"bytes {2**40 - 5}-{2**40 - 1}/{2**40}"
    assert (await files.ask("GET", "/preview", "big")).json()["text"] is None


async def pieces(size: int, head: bytes = b"") -> AsyncIterator[bytes]:
    yield head
    for start in range(0, size, MIB):
        yield b"x" * min(MIB, size - start)


async def test_what_is_too_large_is_refused_while_it_comes(files: Files) -> None:
    reply = await files.ask("PUT", "/content", "new/a", content=pieces(25 * MIB + 1))
    assert told(reply) == (413, "file_too_large")
    headers = {"content-type": "multipart/form-data; boundary=b"}
    content = pieces(25 * MIB + 1, form((FILE, b""), end=b"")[:-2])
    reply = await files.ask("POST", "/upload", "new", content=content, headers=headers)
    assert told(reply) == (413, "file_too_large")
    assert await files.names() == []


@pytest.mark.parametrize("request_line", ["PUT /api/files/{}/content?path=a", "POST /api/files/{}/upload"])
async def test_what_says_that_it_is_too_large_need_not_come(server: Server, files: Files, request_line: str) -> None:
    reader, writer = await send(server, files, request_line, length=26 * MIB)
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def send(
    server: Server, files: Files, request_line: str, *, length: int, **more: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request without its body."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    headers = {
        "host": "x",
        "authorization": files.user.client.headers["authorization"],
        "content-length": str(length),
        "content-type": "multipart/form-data; boundary=b",
        **more,
    }
    lines = [f"{request_line.format(files.thread)} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    return reader, writer


async def test_twenty_five_mebibytes_are_not_too_large(files: Files) -> None:
    content = os.urandom(MIB) * 25
    assert (await files.put("a", content)).status_code == 201
    assert (await files.upload("b", content)).status_code == 201
    assert (await files.read("b")).content == content


async def test_a_full_workspace_is_said_to_be_full(files: Files) -> None:
    content = b"x" * 25 * MIB
    assert (await files.put("a", content)).status_code == 201
    assert (await files.put("b", content)).status_code == 201
    assert told(await files.put("c", content)) == (507, "no_space")
    assert await files.names() == ["a", "b"]
    usage = (await files.ask("GET", "/usage")).json()
    assert usage["limit_bytes"] == 64 * MIB
    assert 50 * MIB <= usage["used_bytes"] <= 51 * MIB
    assert (await files.ask("DELETE", "/content", "a")).status_code == 204
    assert (await files.put("c", content)).status_code == 201


async def test_who_goes_away_in_the_middle_leaves_nothing(server: Server, files: Files) -> None:
    await files.put("a", b"mine")
    for request_line in ("PUT /api/files/{}/content?path=new/b", "POST /api/files/{}/upload?path=new"):
        _, writer = await send(server, files, request_line, length=1_000_000)
        writer.write(form((FILE, b"x" * 300_000), end=b""))
        await writer.drain()
        await until(lambda: (server.workspaces / "ann" / files.thread / "new").exists())
        writer.close()
        await until(lambda: not (server.workspaces / "ann" / files.thread / "new").exists())
    assert await files.names() == ["a"]


async def test_who_uploads_to_a_session_that_is_deleted_meanwhile_does_not_bring_it_back(
    server: Server, files: Files
) -> None:
    await files.put("a", b"mine")
    request_line, body = "POST /api/files/{}/upload", form((FILE, b"x" * 1000))
    reader, writer = await send(server, files, request_line, length=len(body), expect="100-continue")
    assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")  # from now on it is the caller's, for all it knows
    await reader.readline()
    assert (await files.user.client.delete(f"/api/sessions/{files.thread}")).status_code == 204
    writer.write(body)
    answer = await reader.readline()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert not (server.workspaces / "ann" / files.thread).exists()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 -- of the disk
            await asyncio.sleep(0.01)


async def test_a_file_that_is_cut_while_it_is_sent_is_seen_to_be_not_whole(server: Server, files: Files) -> None:
    await files.put("a", b"x" * 20 * MIB)
    url, path = f"/api/files/{files.thread}/content", server.workspaces / "ann" / files.thread / "a"
    async with files.user.client.stream("GET", url, params={"path": "a"}) as reply:
        pieces = reply.aiter_raw()
        await anext(pieces)
        os.truncate(path, 10)
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in pieces:
                pass


async def test_who_may_not_read_any_more_gets_no_more_of_a_file_and_writes_none(
    server: Server, new_user: NewUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 0)
    carl = await new_user("carl")
    files = Files(carl, await carl.new_session())
    await files.put("a", os.urandom(MIB) * 20)
    reader, coming = await send(server, files, "PUT /api/files/{}/content?path=new/b", length=MIB)
    coming.write(b"x" * 1000)
    await until(lambda: (server.workspaces / "carl" / files.thread / "new").exists())
    url = f"/api/files/{files.thread}"
    async with (
        carl.client.stream("GET", f"{url}/content", params={"path": "a"}) as whole,
        carl.client.stream("GET", f"{url}/zip") as archive,
    ):
        assert (await carl.client.post("/api/auth/logout-all")).status_code == 204
        coming.write(b"x" * (MIB - 1000))
        for reply in (whole, archive):
            with pytest.raises(httpx.RemoteProtocolError):
                async for _ in reply.aiter_raw():
                    pass
    answer = await reader.readline()
    coming.close()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert not (server.workspaces / "carl" / files.thread / "new").exists()


async def test_who_goes_away_from_a_download_uses_nothing_any_more(files: Files) -> None:
    """More often than anyone may have streams open."""
    await files.put("a", os.urandom(MIB) * 20)
    for what in ("/content", "/zip") * 15:
        params = {"path": "a"} if what == "/content" else None
        async with files.user.client.stream("GET", f"/api/files/{files.thread}{what}", params=params) as reply:
            assert reply.status_code == 200, await reply.aread()
            await anext(reply.aiter_raw())


# The rest --------------------------------------------------------------------------------------------------------


async def test_folders_are_made_moved_and_listed_in_pages(files: Files) -> None:
    for name in "abcde":
        assert (await files.ask("POST", "/mkdir", json={"path": f"x/{name}"})).status_code == 201
    assert told(await files.ask("POST", "/mkdir", json={"path": "x/a"})) == (409, "file_exists")
    assert told(await files.ask("POST", "/mkdir", json={"path": ""})) == (409, "file_exists")
    found, cursor = list[str](), None
    while True:
        params = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = (await files.ask("GET", "", "x", params=params)).json()
        found += [item["name"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert found == list("abcde")
    assert told(await files.ask("POST", "/move", json={"from": "x", "to": "x/a/y"})) == (422, "invalid_path")
    assert told(await files.ask("POST", "/move", json={"from": "x/a", "to": "x/b"})) == (409, "file_exists")
    assert (await files.ask("POST", "/move", json={"from": "x/a", "to": "x/b", "overwrite": True})).status_code == 200
    assert (await files.ask("POST", "/move", json={"from": "x", "to": "y"})).json()["type"] == "dir"
    assert await files.names("y") == ["b", "c", "d", "e"]
    assert told(await files.ask("DELETE", "/content", "nothing")) == (404, "file_not_found")


async def test_previews(files: Files) -> None:
    await files.put("a.md", b"# Title\n" + b"x" * 100_000)
    found = (await files.ask("GET", "/preview", "a.md")).json()
    assert (found["mime"], found["size"], found["truncated"], len(found["text"])) == (
        "text/markdown",
        100_008,
        True,
        65536,
    )
    await files.put("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\x90\0\0\1\x2c" + bytes(20))
    assert (await files.ask("GET", "/preview", "a.png")).json()["image"] == {"width": 400, "height": 300}
    assert (await files.ask("POST", "/mkdir", json={"path": "d"})).status_code == 201
    assert (await files.ask("GET", "/preview", "d")).json()["type"] == "dir"


async def test_a_folder_as_an_archive(files: Files) -> None:
    await files.put("in/a.txt", b"one")
    await files.put("in/b/c.txt", b"two" * 100_000)
    reply = await files.ask("GET", "/zip", "in")
    assert reply.headers["content-type"] == "application/zip"
    assert 'filename="in.zip"' in reply.headers["content-disposition"]
    found = zipfile.ZipFile(io.BytesIO(reply.content))
    assert {name: found.read(name) for name in found.namelist()} == {"a.txt": b"one", "b/c.txt": b"two" * 100_000}
    assert told(await files.ask("GET", "/zip", "in/a.txt")) == (409, "not_a_directory")


async def test_files_can_be_used_while_a_command_runs_in_the_same_sandbox(server: Server, files: Files) -> None:
    """The command waits for a file that comes by HTTP, and HTTP reads what it writes."""
    command = "echo started >started; until [ -e go ]; do sleep 0.05; done; cat go"
    events = await files.user.play(files.thread, ("execute", {"command": command}))
    assert pending(events)
    running_on = asyncio.create_task(files.user.resume(files.thread, action="continue"))
    await until(lambda: (server.workspaces / "ann" / files.thread / "started").exists())
    assert (await files.read("started")).content == b"started\n"
    assert (await files.put("go", b"the word")).status_code == 201
    events = await running_on
    assert only(events, "tool_result")["result"].startswith("the word\n")
    assert only(events, "run_end")["status"] == "success"


async def test_the_files_of_a_session_are_its_owners(files: Files, new_user: NewUser) -> None:
    await files.put("a", b"mine")
    bob = await new_user("bob")
    reply = await Files(bob, files.thread).read("a")
    assert told(reply) == (403, "thread_access_denied")


async def test_a_place_of_a_user_is_no_session(ann: User) -> None:
    bare = "00000000-0000-0000-0000-000000000000"
    assert told(await Files(ann, f"ann-{bare}").ask("GET")) == (404, "thread_not_found")
    for thread in (bare, f"ann-{bare}"):
        reply = await ann.client.post("/threads", json={"thread_id": thread, "if_exists": "do_nothing"})
        assert told(reply) == (403, "thread_access_denied")
        run = {"assistant_id": "agent", "if_not_exists": "create"}
        assert (await ann.client.post(f"/threads/{thread}/runs", json=run)).status_code in (403, 404)


# Closing ---------------------------------------------------------------------------------------------------------


async def test_closing_keeps_documents_in_the_shared_folder(files: Files) -> None:
    await files.put("out/report.pdf", b"%PDF-1")
    await files.put("figures.XLSX", b"xlsx")
    await files.put("notes.txt", b"no document")
    closed = (await files.user.client.post(f"/api/sessions/{files.thread}/close")).json()
    assert closed["status"] == "closed"
    assert closed["not_kept"] == []
    kept = {item["path"]: item["size"] for item in closed["kept"]}
    assert sorted(kept.values()) == [4, 6]
    assert all(path.startswith(("outputs/report_2", "outputs/figures_2")) for path in kept)
    for path, size in kept.items():
        reply = await files.user.client.get("/api/shared/content", params={"path": path})
        assert len(reply.content) == size
    again = (await files.user.client.post(f"/api/sessions/{files.thread}/close")).json()
    assert again["kept"] == []
    assert (await files.read("out/report.pdf")).content == b"%PDF-1"


async def test_closing_a_session_without_files_starts_no_sandbox(server: Server, files: Files) -> None:
    closed = (await files.user.client.post(f"/api/sessions/{files.thread}/close")).json()
    assert (closed["status"], closed["kept"], closed["not_kept"]) == ("closed", [], [])
    assert not (server.workspaces / "ann" / files.thread).exists()


async def test_a_document_that_cannot_be_kept_is_named_and_the_session_is_closed(server: Server, files: Files) -> None:
    await files.put("report.pdf", b"%PDF-1")
    await files.put("secret.pdf", b"%PDF-1")
    path = server.workspaces / "ann" / files.thread / "secret.pdf"
    os.chown(path, 0, 0)
    path.chmod(0)
    closed = (await files.user.client.post(f"/api/sessions/{files.thread}/close")).json()
    assert closed["status"] == "closed"
    assert len(closed["kept"]) == 1
    assert closed["not_kept"] == [{"path": "secret.pdf", "code": "permission_denied"}]
