"""Which addresses are out in the internet: what others may have the server connect to."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

# What carries an IPv4 address inside, and where: what it leads to is what counts (RFC 4291, 2765, 6052, 3056).
_NAT64 = IPv6Network("64:ff9b::/96")
_CARRIERS: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("::/96"), 0),
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("::ffff:0:0:0/96"), 0),
    (_NAT64, 0),
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


def is_public(address: Address) -> bool:
    """Whether this is an address out in the internet, also when an IPv6 address carries it inside."""
    if isinstance(address, IPv6Address):
        for network, shift in _CARRIERS:
            if address in network:
                return is_public(IPv4Address((int(address) >> shift) & 0xFFFFFFFF))
    if any(address.version == network.version and address in network for network in _NEVER):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def is_translated(address: Address) -> bool:
    """Whether a translator between the IP versions stands at this address, in whose network only its owner knows."""
    return isinstance(address, IPv6Address) and address in _NAT64


def parse_address(text: str) -> Address:
    """An address as a resolver writes it, without the zone that link-local ones have."""
    return ip_address(text.partition("%")[0])
