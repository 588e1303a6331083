"""Addresses that nobody may make us speak to, in every dress."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.model.address import innermost, is_public

INSIDE = (
    "127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0",
    "224.0.0.1", "::1", "fe80::1", "fd00::1",
)  # fmt: skip


@pytest.mark.parametrize("text", INSIDE)
def test_inside(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@given(st.ip_addresses(v=4))
def test_an_address_in_ipv6_is_what_it_carries(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    dressed = [
        ipaddress.IPv6Address(0xFFFF << 32 | number),  # mapped
        ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1),  # 6to4
        ipaddress.IPv6Address(0x20010000 << 96 | 1 << 64 | (number ^ 0xFFFFFFFF)),  # Teredo
        ipaddress.IPv6Address(0x0064FF9B << 96 | number),  # NAT64
    ]
    assert [innermost(address) for address in dressed] == [inner] * 4
    assert {is_public(address) for address in dressed} == {is_public(inner)}
