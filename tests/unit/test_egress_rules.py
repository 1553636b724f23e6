"""What a sandbox with an allow-list may reach, and how a proxy is asked for it."""

import pytest

from moorage.sandboxes.egress_rules import AllowedTargets, Target
from moorage.sandboxes.proxy_request import MAX_HEAD, BadRequest, parse_head, split_head

ALLOWED = AllowedTargets.of(
    ["pypi.org:443", "*.pythonhosted.org:443", "Example.com.:80", "9.9.9.9:53", "[2620:fe::fe]:53"]
)


@pytest.mark.parametrize(
    "text",
    [
        "pypi.org:443",
        "PyPI.org.:443",
        "files.pythonhosted.org:443",
        "a.b.pythonhosted.org:443",
        "example.com:80",
        "9.9.9.9:53",
        "[2620:FE:0::fe]:53",
    ],
)
def test_a_host_on_the_list_is_reached_however_it_is_written(text: str) -> None:
    assert ALLOWED.permits(Target.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "pypi.org:80",
        "www.pypi.org:443",
        "pypi.org.evil.net:443",
        "evilpypi.org:443",
        "pythonhosted.org:443",
        "evilpythonhosted.org:443",
        "org:443",
        "9.9.9.8:53",
        "localhost:443",
        "169.254.169.254:80",
        "[::ffff:9.9.9.9]:53",
    ],
)
def test_what_is_not_on_the_list_is_not_reached(text: str) -> None:
    assert not ALLOWED.permits(Target.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "0x7f.1:80",
        "2130706433:80",
        "0x7f000001:80",
        "127.1:80",
        "0177.0.0.1:80",
        "pypi.org.0x1:443",
        "1.2.3.4.5:80",
        "pypi.org..:443",
        ".pypi.org:443",
        "pypi..org:443",
        "pypi.org",
        "pypi.org:",
        "pypi.org:0",
        "pypi.org:65536",
        "pypi.org:+443",
        "pypi.org:４４３",
        "pypi.org:443:443",
        "pypi.org@evil.net:443",
        "pypi.org#@evil.net:443",
        "pypi.org%00.evil.net:443",
        "pypi.org\r\n:443",
        "пример.рф:443",
        "ｐypi.org:443",
        "pypi。org:443",
        "[fe80::1%eth0]:80",
        "[127.0.0.1]:80",
        "::1:80",
        "-pypi.org:443",
        "*.pypi.org:443",
        f"{'a' * 64}.org:443",
        f"{'a.' * 130}org:443",
        ":443",
    ],
)
def test_what_could_be_read_in_two_ways_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match=r"not|no|must"):
        Target.parse(text)


@pytest.mark.parametrize("entry", ["*:443", "*.:443", "*.*.org:443", "pypi.org", "https://a.b:443", "10.0.0.0/8:1"])
def test_a_list_that_cannot_be_meant_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"not|no|must"):
        AllowedTargets.of([entry])


def test_a_tunnel_is_asked_for_by_host_and_port() -> None:
    request = parse_head(b"CONNECT pypi.org:443 HTTP/1.1\r\nHost: elsewhere\r\nProxy-Connection: keep-alive\r\n\r\n")

    assert (request.tunnel, request.target, request.forward) == (True, Target("pypi.org", 443), b"")


def test_a_plain_request_is_passed_on_as_its_target_expects_it() -> None:
    request = parse_head(
        b"POST http://Example.com:8080/a?b=c HTTP/1.1\r\nHost: intranet\r\nAccept: */*\r\n"
        b"X-Hop: 1\r\nConnection: x-hop\r\nProxy-Authorization: Basic eA==\r\nContent-Length: 3\r\n\r\n"
    )

    assert request.target == Target("example.com", 8080)
    assert request.body == 3
    assert request.forward == (
        b"POST /a?b=c HTTP/1.1\r\nHost: example.com:8080\r\nConnection: close\r\nAccept: */*\r\n"
        b"Content-Length: 3\r\n\r\n"
    )


@pytest.mark.parametrize("header", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_what_says_how_long_the_body_is_goes_no_further_than_the_target_but_as_far(header: bytes) -> None:
    """Else the body would be a request of its own to whoever reads it."""
    name = header.partition(b":")[0]
    request = parse_head(b"POST http://a.b/ HTTP/1.1\r\nConnection: " + name + b"\r\n" + header + b"\r\n\r\n")

    assert header in request.forward


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"http://a.b", b"/"), (b"http://a.b/", b"/"), (b"http://a.b?x", b"/?x"), (b"HTTP://A.b/%0d", b"/%0d")],
)
def test_the_port_and_the_path_may_be_left_out(target: bytes, path: bytes) -> None:
    request = parse_head(b"GET " + target + b" HTTP/1.1\r\n\r\n")

    assert request.target == Target("a.b", 80)
    assert request.forward.startswith(b"GET " + path + b" HTTP/1.1\r\nHost: a.b\r\n")
    assert request.body == 0


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: pypi.org\r\n\r\n",
        b"GET https://pypi.org/ HTTP/1.1\r\n\r\n",
        b"GET ftp://pypi.org/ HTTP/1.1\r\n\r\n",
        b"GET http://user:secret@pypi.org/ HTTP/1.1\r\n\r\n",
        b"GET http://pypi.org\\@evil.net/ HTTP/1.1\r\n\r\n",
        b"GET http://pypi.org/a b HTTP/1.1\r\n\r\n",
        b"GET http://0x7f.1/ HTTP/1.1\r\n\r\n",
        b"GET http://2130706433/ HTTP/1.1\r\n\r\n",
        b"GET http://p\xc3\xbcpi.org/ HTTP/1.1\r\n\r\n",
        b"CONNECT p\xc3\xbcpi.org:443 HTTP/1.1\r\n\r\n",
        b"CONNECT pypi.org HTTP/1.1\r\n\r\n",
        b"CONNECT http://pypi.org:443 HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n\r\n",
        b"GET http://pypi.org/ HTTP/1.1\nX: y\r\n\r\n",
        b"GET http://pypi.org/ HTTP/1.1\r\nX: y\r\n z\r\n\r\n",
        b"GET http://pypi.org/ HTTP/1.1\r\nX\0: y\r\n\r\n",
        b"GET http://pypi.org/ HTTP/1.1\r\nX: y\rz\r\n\r\n",
        b"GET http://pypi.org/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET http://pypi.org/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET http://pypi.org/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET http://pypi.org/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ],
)
def test_what_is_no_plain_request_of_a_proxy_is_refused(head: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_head(head)


def test_a_head_is_read_to_its_end_and_no_further() -> None:
    assert split_head(b"GET http://a.b/ HTTP/1.1\r\n") is None
    assert split_head(b"CONNECT a.b:1 HTTP/1.1\r\n\r\n\x16\x03") == (b"CONNECT a.b:1 HTTP/1.1\r\n\r\n", b"\x16\x03")


def test_a_head_without_an_end_is_refused() -> None:
    with pytest.raises(BadRequest, match="longer than"):
        split_head(b"X" * MAX_HEAD)
