"""Which hosts and ports programs in a sandbox may reach: the operator's list, and how a host is written."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Self

LARGEST_PORT = 65535
_LONGEST_HOST = 253
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# What a resolver takes for an IPv4 address: 127.1, 0x7f.1, 0177.0.0.1, 2130706433.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_TARGET = re.compile(r"(\[[0-9A-Fa-f:.]{1,45}\]|[A-Za-z0-9._-]{1,254}):([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a program wants to go. `host` is in the one form that there is of it."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `host:port` or `[v6]:port`; raises ValueError."""
        found = _TARGET.fullmatch(text)
        if found is None:
            raise ValueError("not host:port")
        port = int(found[2])
        if not 0 < port <= LARGEST_PORT:
            raise ValueError("no such port")
        return cls(normal_host(found[1]), port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def normal_host(text: str) -> str:
    """The host in lower case, without brackets and last dot; raises ValueError for what is neither name nor address.

    Names are ASCII: those of other letters are written `xn--...`. An IPv4 address is written as four numbers only.
    """
    if text.startswith("["):
        try:
            return str(IPv6Address(text.removeprefix("[").removesuffix("]")))
        except AddressValueError:
            raise ValueError("no IPv6 address") from None
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > _LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("no host name")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            raise ValueError("an address must be written as four numbers") from None
    return host


@dataclass(frozen=True, slots=True)
class AllowedTargets:
    """The operator's list. Whether an address may be connected to is another question, asked after resolving."""

    targets: frozenset[Target]
    below: frozenset[Target]

    @classmethod
    def of(cls, entries: Iterable[str]) -> Self:
        """From `host:port`s; a host that begins with `*.` stands for all names below it. Raises ValueError."""
        targets: set[Target] = set()
        below: set[Target] = set()
        for entry in entries:
            try:
                chosen = below if entry.startswith("*.") else targets
                chosen.add(Target.parse(entry.removeprefix("*.")))
            except ValueError as error:
                raise ValueError(f"{entry!r}: {error}") from None
        return cls(frozenset(targets), frozenset(below))

    def permits(self, target: Target) -> bool:
        if target in self.targets:
            return True
        labels = target.host.split(".")
        return any(Target(".".join(labels[count:]), target.port) in self.below for count in range(1, len(labels)))
