"""What a program says to a forward proxy, read strictly (RFC 9110, 9112; CONNECT and absolute-form http only)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import httptools

from moorage.sandboxes.egress_rules import Target

MAX_HEAD = 8 * 1024
_END = b"\r\n\r\n"
_URL = re.compile(rb"http://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[!-~]*|\?[!-~]*)?", re.IGNORECASE)
_HTTP_PORT = 80
# Between program and proxy only (RFC 9110, 7.6.1), or said anew.
_DROPPED = frozenset(
    b"connection host keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer upgrade".split()
)
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))  # without it a body would be the next request


class BadRequest(ValueError):
    """Not a request that a proxy takes; the text says why, without anything of the request."""


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """`forward` is what the target is told first: nothing for a tunnel, else the request's head.

    `body` says how many bytes follow it: None for as many as come.
    """

    target: Target
    tunnel: bool
    forward: bytes
    body: int | None


def split_head(received: bytes) -> tuple[bytes, bytes] | None:
    """The request's head and what follows it; None while its end is missing. Raises BadRequest when it is too long."""
    end = received.find(_END, 0, MAX_HEAD)
    if end >= 0:
        return received[: end + len(_END)], received[end + len(_END) :]
    if len(received) >= MAX_HEAD:
        raise BadRequest(f"the head is longer than {MAX_HEAD} bytes")
    return None


def parse_head(head: bytes) -> ProxyRequest:
    """Raises BadRequest."""
    if b"\0" in head or b"\n" in head.replace(b"\r\n", b"") or re.search(rb"\r\n[ \t]", head):
        raise BadRequest("a head of lines that end in CR LF is needed")
    read = _Head()
    parser = httptools.HttpRequestParser(read)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # CONNECT, or an Upgrade, which goes no further than here
    except httptools.HttpParserError:
        raise BadRequest("not a request of HTTP/1.1") from None
    if not read.complete:
        raise BadRequest("not a request of HTTP/1.1")
    try:
        if parser.get_method() == b"CONNECT":
            return ProxyRequest(Target.parse(read.url.decode("ascii")), tunnel=True, forward=b"", body=None)
        return _absolute(parser.get_method(), read)
    except UnicodeDecodeError:
        raise BadRequest("the target must be ASCII") from None
    except ValueError as error:
        raise BadRequest(str(error)) from None


class _Head:
    """httptools' protocol."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


def _absolute(method: bytes, read: _Head) -> ProxyRequest:
    found = _URL.fullmatch(read.url)
    if found is None:
        raise BadRequest("the target must be host:port for CONNECT, or else http://host[:port]/path")
    host, port, path = found[1].decode(), found[2], found[3] or b"/"
    target = Target.parse(f"{host}:{port[1:].decode() if port else _HTTP_PORT}")
    headers = [(name, value) for name, value in read.headers if name.lower() not in _left_out(read.headers)]
    named = target.host if ":" not in target.host else f"[{target.host}]"
    # One request a connection: what would follow could be meant for somebody else.
    said = [(b"Host", (named if target.port == _HTTP_PORT else str(target)).encode()), (b"Connection", b"close")]
    lines = [b"%s %s HTTP/1.1" % (method, path if path.startswith(b"/") else b"/" + path)]
    lines += [b"%s: %s" % header for header in (*said, *headers)]
    return ProxyRequest(target, tunnel=False, forward=b"\r\n".join(lines) + _END, body=_body(read.headers))


def _left_out(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """What concerns this connection only, by its name or because the program says so."""
    named = [value for name, value in headers if name.lower() == b"connection"]
    return _DROPPED.union(option.strip().lower() for value in named for option in value.split(b",")) - _FRAMING


def _body(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    codings = [value.strip().lower() for name, value in headers if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1 or codings not in ([], [b"chunked"]):
        raise BadRequest("how long the body is must be said once")
    if codings:
        return None
    if lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
        raise BadRequest("no such length of a body")
    return int(lengths[0]) if lengths else 0
