"""From where a credential may log in, and what counts as one client's address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from smtp_proxy.errors import InvalidValue
from smtp_proxy.model.tenant import Network

# Far more than anyone keeps track of; each login looks at all of them.
_NETWORKS_MAX = 100


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """CIDR each, or one address; sorted, without doubles.

    Raises:
        InvalidValue: says what is wrong with which, and what would do.
    """
    found = {_network(text) for text in texts}
    if len(found) > _NETWORKS_MAX:
        raise InvalidValue(f"a credential can have at most {_NETWORKS_MAX} networks, these are {len(found)}")
    return tuple(sorted(found, key=lambda network: (network.version, int(network.network_address), network.prefixlen)))


def admits(allowed: Sequence[Network], address: str) -> bool:
    """May a client at this address log in? Without networks, everybody may; what is no address may not."""
    if not allowed:
        return True
    client = _address(address)
    return client is not None and any(client in network for network in allowed)


def client_of(address: str, ipv6_prefix_bits: int) -> str:
    """What counts as one client: an IPv4 address, or the IPv6 network around an address (RFC 6177)."""
    client = _address(address)
    if client is None or client.version == 4:
        return str(client or address)
    return str(ipaddress.ip_network((client, ipv6_prefix_bits), strict=False))


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InvalidValue(
            f"{text!r} is no network: write 198.51.100.0/24, 2001:db8::/48 or a single address"
        ) from None
    if "/" in text and str(ipaddress.ip_interface(text).ip) != str(network.network_address):
        raise InvalidValue(f"{text!r} has bits set beyond its prefix: write {network}, or a single address")
    if network.version == 6 and network.network_address.ipv4_mapped is not None:
        raise InvalidValue(f"{text!r} is IPv4 within IPv6: clients are known by IPv4 then, so write that")
    return network


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if address.version == 6 else address
