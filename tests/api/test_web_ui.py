"""The web UI that was built is served whole, safely and cheaply; without one the server says how to build it."""

import gzip
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from tests.api.harness import Server, serving

from moorage_api.app import create_app

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SCRIPT = b"console.log('moorage')\n" * 100
FILES = {
    "index.html": b'<!doctype html><meta property="csp-nonce" nonce="__CSP_NONCE__"><link nonce="__CSP_NONCE__">',
    "favicon.svg": b"<svg/>",
    "assets/index-Ab12.js": SCRIPT,
    "assets/index-Ab12.js.gz": gzip.compress(SCRIPT),
    "assets/index-Ab12.js.br": b"as if it were brotli",
    "assets/index-Ab12.css": b"body{}",
    ".vite/manifest.json": b"{}",
    "notes.sh": b"not for the web",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (folder.parent / "secret.txt").write_text("not for the web")
    return folder


@pytest.fixture(scope="module")
async def web(server: Server, built: Path) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a server that has a web UI; it decodes nothing and follows nothing."""
    async with (
        serving(create_app(server.runtime, web_folder=built)) as url,
        httpx.AsyncClient(base_url=url, headers={"accept-encoding": "identity"}) as client,
    ):
        yield client


@pytest.fixture(scope="module")
async def bare(server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a server whose web UI was never built."""
    app = create_app(server.runtime, web_folder=tmp_path_factory.mktemp("empty") / "web")
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def raw(client: httpx.AsyncClient, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """The answer and its body as it was sent."""
    async with client.stream("GET", path, headers={name.replace("_", "-"): headers[name] for name in headers}) as reply:
        return reply, b"".join([chunk async for chunk in reply.aiter_raw()])


def assert_problem(reply: httpx.Response) -> None:
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/problem+json"


async def test_a_browser_is_sent_to_the_web_ui(web: httpx.AsyncClient) -> None:
    reply = await web.get("/", headers=BROWSER)
    assert (reply.status_code, reply.headers["location"], reply.headers["vary"]) == (307, "/app/", "Accept")
    assert (await web.get("/app")).headers["location"] == "/app/"


async def test_a_program_is_told_what_the_server_offers(web: httpx.AsyncClient) -> None:
    reply = await web.get("/", headers={"accept": "application/json"})
    assert reply.headers["vary"] == "Accept"
    assert reply.json()["name"] == "moorage"
    assert "/api/sessions" in reply.json()["endpoints"]


@pytest.mark.parametrize("path", ["/app/", "/app/setup?token=x", "/app/sessions/al.ice-1/files", "/app/index.html"])
async def test_every_address_of_a_screen_is_the_page(web: httpx.AsyncClient, path: str) -> None:
    reply = await web.get(path)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.text.startswith("<!doctype html>")


async def test_the_page_allows_own_scripts_only_and_one_nonce_for_styles_which_is_never_the_same(
    web: httpx.AsyncClient,
) -> None:
    nonces: set[str] = set()
    for _ in range(3):
        reply = await web.get("/app/")
        policy = dict(part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; "))
        found = re.fullmatch("'self' 'nonce-([A-Za-z0-9_-]{20,})'", policy["style-src"])
        assert found
        assert reply.text.count(f'nonce="{found[1]}"') == 2
        nonces.add(found[1])
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert len(nonces) == 3


async def test_the_page_is_asked_for_anew_and_tells_nobody_where_it_was_read(web: httpx.AsyncClient) -> None:
    headers = (await web.get("/app/setup?token=x")).headers
    assert headers["cache-control"] == "no-cache"
    assert "etag" not in headers
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]


@pytest.mark.parametrize(
    ("accepted", "encoding", "body"),
    [
        ("gzip, deflate, br, zstd", "br", FILES["assets/index-Ab12.js.br"]),
        ("br;q=0, gzip;q=0.5", "gzip", FILES["assets/index-Ab12.js.gz"]),
        ("GZIP", "gzip", FILES["assets/index-Ab12.js.gz"]),
        ("deflate", None, SCRIPT),
        ("", None, SCRIPT),
        ("gzip;q=0.0", None, SCRIPT),
    ],
)
async def test_an_asset_is_sent_as_it_was_compressed_to_whoever_takes_that(
    web: httpx.AsyncClient, accepted: str, encoding: str | None, body: bytes
) -> None:
    reply, sent = await raw(web, "/app/assets/index-Ab12.js", accept_encoding=accepted)
    assert (reply.headers.get("content-encoding"), sent) == (encoding, body)
    assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
    assert reply.headers["vary"] == "Accept-Encoding"
    assert reply.headers["content-length"] == str(len(body))


async def test_an_asset_is_kept_for_ever(web: httpx.AsyncClient) -> None:
    reply = await web.get("/app/assets/index-Ab12.css")
    assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert reply.headers["content-type"] == "text/css; charset=utf-8"


async def test_what_has_no_hash_in_its_name_is_asked_for_anew(web: httpx.AsyncClient) -> None:
    reply = await web.get("/app/favicon.svg")
    assert (reply.headers["cache-control"], reply.headers["content-type"]) == ("no-cache", "image/svg+xml")
    assert (await web.get("/favicon.ico")).headers["location"] == "/app/favicon.svg"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_what_a_browser_has_is_not_sent_again(web: httpx.AsyncClient, form: str) -> None:
    path = "/app/assets/index-Ab12.js"
    tag = (await web.get(path)).headers["etag"]
    reply = await web.get(path, headers={"if-none-match": form.format(tag)})
    assert (reply.status_code, reply.content) == (304, b"")
    assert (reply.headers["etag"], reply.headers["vary"]) == (tag, "Accept-Encoding")
    assert "immutable" in reply.headers["cache-control"]


async def test_each_encoding_has_a_tag_of_its_own(web: httpx.AsyncClient) -> None:
    path = "/app/assets/index-Ab12.js"
    tags = {(await raw(web, path, accept_encoding=name))[0].headers["etag"] for name in ("br", "gzip", "identity")}
    assert len(tags) == 3


@pytest.mark.parametrize("path", ["/", "/app", "/app/", "/app/assets/index-Ab12.js", "/favicon.ico"])
async def test_head_says_the_same_without_a_body(web: httpx.AsyncClient, path: str) -> None:
    get, head = await web.get(path, headers=BROWSER), await web.head(path, headers=BROWSER)
    assert (head.status_code, head.content) == (get.status_code, b"")
    for name in ("content-length", "content-type", "cache-control", "etag", "location"):
        assert head.headers.get(name) == get.headers.get(name)


@pytest.mark.parametrize(
    "path",
    ["assets/gone-1234.js", "assets/", "assets/%2e%2e/%2e%2e/secret.txt", "assets/%00"],
)
async def test_an_asset_that_is_not_there_is_a_problem_and_never_the_page(web: httpx.AsyncClient, path: str) -> None:
    reply = await web.send(web.build_request("GET", httpx.URL(web.base_url, raw_path=f"/app/{path}".encode())))
    assert_problem(reply)


@pytest.mark.parametrize(
    "path", ["%2e%2e/secret.txt", "..%2fsecret.txt", ".vite/manifest.json", "notes.sh", "/etc/passwd"]
)
async def test_nothing_but_the_public_files_of_the_build_is_read(web: httpx.AsyncClient, path: str) -> None:
    reply = await web.send(web.build_request("GET", httpx.URL(web.base_url, raw_path=f"/app/{path}".encode())))
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")


async def test_nothing_is_written_there(web: httpx.AsyncClient) -> None:
    assert (await web.post("/app/")).status_code == 405


async def test_without_a_web_ui_a_browser_is_told_how_to_build_one(bare: httpx.AsyncClient) -> None:
    front, screen = await bare.get("/", headers=BROWSER), await bare.get("/app/setup?token=x", headers=BROWSER)
    assert (front.status_code, screen.status_code) == (200, 404)
    assert "make web" in front.text
    assert front.text == screen.text
    assert front.headers["vary"] == screen.headers["vary"] == "Accept"


async def test_without_a_web_ui_programs_get_what_they_always_get(bare: httpx.AsyncClient) -> None:
    assert (await bare.get("/")).json()["name"] == "moorage"
    for path in ("/app/", "/app/assets/index-Ab12.js", "/favicon.ico"):
        assert_problem(await bare.get(path))
