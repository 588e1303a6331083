"""Which IP addresses everybody may be sent to: of endpoints and mail hosts that somebody else has named. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final, TypeAlias

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052 2.1


def innermost(address: IpAddress) -> IpAddress:
    """The IPv4 address within, if any: mapped (RFC 4291), 6to4 (RFC 3056), Teredo (RFC 4380), NAT64 (RFC 6052)."""
    if address.version == 4:
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address


def is_public(address: IpAddress) -> bool:
    """Neither loopback, private, link-local, multicast nor reserved; what it carries of IPv4 is what counts."""
    inner = innermost(address)
    return inner.is_global and not inner.is_multicast
