"""Webhooks: where the server may tell somebody else that a run has ended, and how they know that it was us."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Self

import httpx

from moorage.addresses import Address, Network, is_public, parse_address
from moorage.errors import InvalidPayload
from moorage.ids import UserId

LONGEST_URL = 2000
SIGNATURE_HEADER = "X-Moorage-Signature"
_LARGEST_PORT = 65535


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


def user_secret(installation: bytes, user_id: UserId) -> bytes:
    """What signs a user's webhooks. Each has their own: who can check theirs cannot sign another's."""
    return hmac.new(installation, b"moorage webhooks of " + user_id.encode(), hashlib.sha256).hexdigest().encode()


def signature(secret: bytes, body: bytes, at: int) -> str:
    """The value of `X-Moorage-Signature`: `t=<unix time>,v1=<hex HMAC-SHA256 of "<t>.<body>">`.

    The receiver computes the same, compares in constant time, and refuses what is older than some minutes.
    """
    digest = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
