"""The web UI as it was built, below `/app/`, and `/`, which sends browsers there.

All files are read once, when the application is made, and answered from memory: no request waits for a disk, and there
is no path that could lead out of the folder. What was stored compressed beside a file is sent to whoever takes it;
nothing is compressed here.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from moorage.errors import NotFound

WEB_FOLDER = Path(__file__).with_name("web")
"""Where the build puts the UI: index.html, what else is public, and `assets/<name>-<hash>.<ext>`."""

NONCE = b"__CSP_NONCE__"
"""Stands in the built page for a nonce, which is another one in each answer (web/vite.config.ts says it, too)."""

_READ = ["GET", "HEAD"]
_PAGE = "index.html"
_ASSETS = "assets/"
_ICON = "favicon.svg"
_MEDIA_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_ENCODINGS: Mapping[str, str] = {"br": ".br", "gzip": ".gz"}  # best first; the ending of what the build stored
_REFUSED = re.compile(r";\s*q=0(\.0*)?\s*$")

# Scripts and style sheets are files of ours, and nothing else. The one exception is the sheet of colours that Vuetify
# makes when it starts, and anew when they change: a `<style>` that carries the nonce. `style` attributes need none: Vue
# sets them through the DOM's `style` property, which no policy governs; those in somebody's HTML stay without effect.
# `blob:` is for files that were fetched with a token: pictures and frames.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'{nonce}",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "frame-src 'self' blob:",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)
_PERMISSIONS = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), serial=(), usb=()"


@dataclass(frozen=True, slots=True)
class _File:
    """A file, and by the names of encodings what was stored compressed of it."""

    media_type: str
    digest: str
    plain: bytes
    encoded: Mapping[str, bytes]


class WebUi:
    """The files below `folder`; without an index.html there, nothing at all. Reads them all, some megabytes."""

    def __init__(self, folder: Path) -> None:
        self._files = MappingProxyType(dict(_read(folder)) if (folder / _PAGE).is_file() else {})

    @property
    def is_built(self) -> bool:
        return bool(self._files)

    def answer(self, path: str, request: Request) -> Response:
        """The file at `path`, relative to the folder; the page at every other path but those of assets.

        Which screen that is the page itself reads from its address. Raises NotFound.
        """
        if self.has(path) and path != _PAGE:
            return self._file(path, request)
        if not self.is_built or path.startswith(_ASSETS):
            raise NotFound("There is nothing at this address")
        return self._page()

    def has(self, path: str) -> bool:
        return path in self._files

    def _page(self) -> Response:
        """Has no ETag: a page that a browser kept would meet the policy of the next answer, with another nonce."""
        nonce = secrets.token_urlsafe(16)
        page = self._files[_PAGE]
        return Response(
            page.plain.replace(NONCE, nonce.encode()),
            media_type=page.media_type,
            headers={
                "Cache-Control": "no-cache",
                "Content-Security-Policy": _POLICY.format(nonce=f" 'nonce-{nonce}'"),
                "Permissions-Policy": _PERMISSIONS,
            },
        )

    def _file(self, path: str, request: Request) -> Response:
        file = self._files[path]
        encoding = _preferred(file.encoded, request)
        tag = f'"{file.digest}-{encoding}"' if encoding else f'"{file.digest}"'
        headers = {
            # A build that changes a file of these changes its name.
            "Cache-Control": "public, max-age=31536000, immutable" if path.startswith(_ASSETS) else "no-cache",
            "Content-Security-Policy": _POLICY.format(nonce=""),  # a worker's is that of its script
            "ETag": tag,
            "Vary": "Accept-Encoding",
        }
        if _has(tag, request):
            return Response(status_code=304, headers=headers)
        if encoding:
            headers["Content-Encoding"] = encoding
        body = file.encoded[encoding] if encoding else file.plain
        return Response(body, media_type=file.media_type, headers=headers)


def _read(folder: Path) -> Iterator[tuple[str, _File]]:
    """Of what the build's own tools keep there in hidden folders, nothing is served."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        media_type = _MEDIA_TYPES.get(path.suffix)
        if media_type and path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            plain = path.read_bytes()
            stored = {encoding: path.with_name(path.name + ending) for encoding, ending in _ENCODINGS.items()}
            encoded = {encoding: found.read_bytes() for encoding, found in stored.items() if found.is_file()}
            yield name, _File(media_type, hashlib.sha256(plain).hexdigest()[:32], plain, encoded)


def _preferred(encoded: Mapping[str, bytes], request: Request) -> str | None:
    """The best of these encodings among those that the client takes."""
    offered = ",".join(request.headers.getlist("accept-encoding")).lower().split(",")
    taken = {offer.partition(";")[0].strip() for offer in offered if not _REFUSED.search(offer)}
    return next((encoding for encoding in _ENCODINGS if encoding in encoded and encoding in taken), None)


def _has(tag: str, request: Request) -> bool:
    """Whether the client keeps what has this tag (RFC 9110, 13.1.2: compared weakly)."""
    kept = {part.strip().removeprefix("W/") for part in ",".join(request.headers.getlist("if-none-match")).split(",")}
    return tag in kept or "*" in kept


async def _web_ui(request: Request) -> WebUi:
    return request.app.state.web_ui


WebUiDep = Annotated[WebUi, Depends(_web_ui)]

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=_READ)
async def root(request: Request, web_ui: WebUiDep) -> Response:
    """For programs: name, version, endpoints. For browsers: the web UI, or how to get one."""
    if not _is_browser(request):
        endpoints = sorted(request.app.openapi()["paths"])
        answer: Response = JSONResponse({"name": "moorage", "version": version("moorage"), "endpoints": endpoints})
    elif web_ui.is_built:
        answer = RedirectResponse("/app/")
    else:
        answer = HTMLResponse(_NOT_BUILT)
    answer.headers["Vary"] = "Accept"
    return answer


@router.api_route("/app", methods=_READ)
async def without_slash() -> Response:
    return RedirectResponse("/app/")


@router.api_route("/app/{path:path}", methods=_READ)
async def app(path: str, request: Request, web_ui: WebUiDep) -> Response:
    """A file of the web UI, or its page, whose screens have addresses of their own."""
    if not web_ui.is_built and _is_browser(request):
        return HTMLResponse(_NOT_BUILT, status_code=404, headers={"Vary": "Accept"})
    return web_ui.answer(path, request)


@router.api_route("/favicon.ico", methods=_READ)
async def favicon(web_ui: WebUiDep) -> Response:
    """Browsers ask for it wherever no page names another one, as at /docs."""
    if not web_ui.has(_ICON):
        raise NotFound("There is nothing at this address")
    return RedirectResponse(f"/app/{_ICON}")


def _is_browser(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


_NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Moorage</title>
<h1>Moorage is running</h1>
<p>Its web UI is not built. In a checkout, <code>make web</code> builds it; then start the server again.</p>
<p>Until then talk to it with <code>moorage chat</code>, with curl as the README shows,
or look at the <a href="/docs">API documentation</a>.</p></html>
"""
