"""Webhooks: where the server may tell somebody else that a run has ended, and how they know that it was us."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

import httpx

from moorage.errors import InvalidPayload
from moorage.ids import UserId

LONGEST_URL = 2000
SIGNATURE_HEADER = "X-Moorage-Signature"
_LARGEST_PORT = 65535

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

# What carries an IPv4 address inside, and where: what it leads to is what counts (RFC 4291, 2765, 6052, 3056).
_CARRIERS: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("::/96"), 0),
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("::ffff:0:0:0/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)
# Global by the registry, or not known to it, and still nobody's public server.
_NEVER = tuple(
    ip_network(text)
    for text in (
        "100.64.0.0/10",  # carriers' NAT
        "168.63.129.16/32",  # a cloud's own services
        "192.0.0.0/24",
        "192.88.99.0/24",
        "64:ff9b:1::/48",  # NAT64 of somebody's own
        "100:0:0:1::/64",
        "2001::/23",  # Teredo and other protocols' own
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)


class WebhookRefused(InvalidPayload):
    code = "webhook_refused"

    def __init__(self, reason: str) -> None:
        errors = [{"loc": ["body", "webhook"], "msg": reason, "type": "webhook"}]
        super().__init__(f"webhook: {reason}", errors=errors)


def check_webhook(url: str) -> str:
    """`url` if it has the form of a webhook's address; raises WebhookRefused, which says why.

    Where it leads to is asked when it is called: names change what they mean.
    """
    if len(url) > LONGEST_URL:
        raise WebhookRefused(f"must not be longer than {LONGEST_URL} characters")
    if url.startswith("/"):
        raise WebhookRefused("addresses within this server are not supported: send an absolute http or https address")
    if not url.isascii() or not url.isprintable() or any(character in url for character in ' \\"<>^`{|}'):
        raise WebhookRefused("must be an address in plain ASCII, with anything else percent-encoded")
    try:
        parsed = httpx.URL(url)
        port = parsed.port
    except (httpx.InvalidURL, ValueError):
        raise WebhookRefused("is not a valid address") from None
    if parsed.scheme not in ("http", "https") or not url.lower().startswith(f"{parsed.scheme}://"):
        raise WebhookRefused("must be an absolute http or https address")
    if not parsed.host or "%" in parsed.host or not 0 < (80 if port is None else port) <= _LARGEST_PORT:
        raise WebhookRefused("must name a host, and no impossible port")
    if parsed.userinfo or "#" in url:
        raise WebhookRefused("must not carry a user, a password or a fragment")
    return url


def is_public(address: Address) -> bool:
    """Whether this is an address out in the internet, also when an IPv6 address carries it inside."""
    if isinstance(address, IPv6Address):
        for network, shift in _CARRIERS:
            if address in network:
                return is_public(IPv4Address((int(address) >> shift) & 0xFFFFFFFF))
    if any(address.version == network.version and address in network for network in _NEVER):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


@dataclass(frozen=True, slots=True)
class AllowList:
    """What the operator lets webhooks reach although it is not public: hosts by name, and networks."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, entries: Sequence[str]) -> Self:
        """From host names, addresses and CIDRs; raises ValueError for what is none of them."""
        hosts: set[str] = set()
        networks: list[Network] = []
        for entry in entries:
            try:
                networks.append(ip_network(entry.strip("[]")))
            except ValueError:
                if "/" in entry or ":" in entry or not entry.isascii() or " " in entry:
                    raise ValueError(f"must be host names, addresses or networks, not {entry!r}") from None
                hosts.add(entry.lower().rstrip("."))
        return cls(frozenset(hosts), tuple(networks))

    def permits(self, host: str, address: Address) -> bool:
        """Whether a webhook at `host` may connect to `address`, which is one of those that its name resolves to."""
        if host.lower().rstrip(".") in self.hosts or is_public(address):
            return True
        return any(address.version == network.version and address in network for network in self.networks)


def refuse_private(url: str, allow: AllowList) -> None:
    """Raise WebhookRefused for an address of this machine or network that is written as one.

    What a name leads to is looked at when it is called: it may be something else by then.
    """
    host = httpx.URL(url).host.lower().rstrip(".")
    try:
        refused = not allow.permits(host, parse_address(host))
    except ValueError:
        refused = (host == "localhost" or host.endswith(".localhost")) and host not in allow.hosts
    if refused:
        raise WebhookRefused("must lead to a public address; this server's operator permits others in WEBHOOK_ALLOW")


def parse_address(text: str) -> Address:
    """An address as a resolver writes it, without the zone that link-local ones have."""
    return ip_address(text.partition("%")[0])


def user_secret(installation: bytes, user_id: UserId) -> bytes:
    """What signs a user's webhooks. Each has their own: who can check theirs cannot sign another's."""
    return hmac.new(installation, b"moorage webhooks of " + user_id.encode(), hashlib.sha256).hexdigest().encode()


def signature(secret: bytes, body: bytes, at: int) -> str:
    """The value of `X-Moorage-Signature`: `t=<unix time>,v1=<hex HMAC-SHA256 of "<t>.<body>">`.

    The receiver computes the same, compares in constant time, and refuses what is older than some minutes.
    """
    digest = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
