"""Where a webhook may lead, and how its receiver knows who sent it."""

import hashlib
import hmac
from ipaddress import ip_address

import pytest

from moorage.addresses import is_public
from moorage.webhooks import AllowList, WebhookRefused, check_webhook, signature


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hook?token=a%20b",
        "http://example.org:8443",
        "HTTP://Example.org/",
        "http://[2001:db8::1]:80/x",
    ],
)
def test_an_absolute_http_address_is_taken_as_it_is(url: str) -> None:
    assert check_webhook(url) == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("/hook", "within this server"),
        ("//example.org/hook", "within this server"),
        ("hook", "absolute"),
        ("http:/example.org", "absolute"),
        ("ftp://example.org/", "absolute"),
        ("javascript:alert(1)", "absolute"),
        ("http:///hook", "host"),
        ("http://example.org:0/", "port"),
        ("http://example.org:65536/", "port"),
        ("http://[fe80::1%25eth0]/", "host"),
        ("https://me:secret@example.org/", "password"),
        ("https://example.org/#here", "fragment"),
        ("https://example.org/a b", "ASCII"),
        ("https://example.org\\@127.0.0.1/", "ASCII"),
        ("https://exämple.org/", "ASCII"),
        ("https://example.org/\n", "ASCII"),
        ("https://example.org/" + "a" * 2000, "longer"),
    ],
)
def test_what_is_no_webhooks_address_is_refused_by_name(url: str, why: str) -> None:
    with pytest.raises(WebhookRefused) as refused:
        check_webhook(url)
    assert why in refused.value.detail
    assert refused.value.errors[0]["loc"] == ["body", "webhook"]


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.1.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",  # noqa: S104
        "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "168.63.129.16",
        "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "fec0::1",
        "::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808",
        "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)  # fmt: skip
def test_an_address_of_somebodys_own_network_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


def test_the_operator_may_allow_hosts_and_networks() -> None:
    allowed = AllowList.of(["hooks.internal", "10.1.0.0/16", "fd00::5"])
    assert allowed.permits("Hooks.Internal.", ip_address("127.0.0.1"))
    assert allowed.permits("elsewhere", ip_address("10.1.2.3"))
    assert allowed.permits("elsewhere", ip_address("fd00::5"))
    assert not allowed.permits("elsewhere", ip_address("10.2.0.1"))
    assert not allowed.permits("not.hooks.internal", ip_address("127.0.0.1"))
    assert allowed.permits("example.org", ip_address("8.8.8.8"))


@pytest.mark.parametrize("entry", ["http://hooks.internal", "hooks.internal:80", "a b", "10.0.0.1/8"])
def test_an_allow_list_with_something_else_in_it_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="must be host names"):
        AllowList.of([entry])


def test_a_signature_binds_the_body_to_a_time() -> None:
    signed = signature(b"secret", b'{"a":1}', 1_700_000_000)
    expected = hmac.new(b"secret", b'1700000000.{"a":1}', hashlib.sha256).hexdigest()
    assert signed == f"t=1700000000,v1={expected}"
