"""One address in its spellings, and two that are not one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_suite.outcomes import KEY, SPELLINGS

from smtp_proxy.model.mailbox import domain_key, has_one_spelling, mailbox_key, mailbox_spellings


@pytest.mark.parametrize("spelling", [*SPELLINGS, KEY])
def test_one_address_has_one_key(spelling: str) -> None:
    assert mailbox_key(spelling) == KEY
    assert not has_one_spelling(spelling)
    assert {KEY, SPELLINGS[0]} <= set(mailbox_spellings(spelling))


@pytest.mark.parametrize(
    "address", ["B@[192.0.2.1]", "a@b@c.example", '"x y"@x.example', "none", "@", "a@-.-", "INFO@X.EXAMPLE"]
)
def test_of_ascii_the_case_alone_is_one(address: str) -> None:
    assert mailbox_key(address) == address.lower()
    assert mailbox_spellings(address) == [address.lower()]
    assert has_one_spelling(address)


def test_what_is_no_domain_stays_as_it_is() -> None:
    assert mailbox_key("A@B\u00fc\u2603..") == "a@b\u00fc\u2603.."
    assert mailbox_key("\u00c9") == "\u00e9"
    assert mailbox_spellings("a@xn--\x7f") == ["a@xn--\x7f"]


def test_a_domain_alone_has_the_key_of_its_addresses() -> None:
    for spelling in (*SPELLINGS, KEY):
        assert domain_key(spelling) == domain_key(spelling.rpartition("@")[2]) == "xn--bcher-kva.example"
    assert domain_key("A@[IPv6:2001:DB8::1]") == "[ipv6:2001:db8::1]"


def test_other_letters_are_other_people() -> None:
    assert len({mailbox_key(f"{local}@x.example") for local in ("eva", "\u00e9va", "stra\u00dfe", "strasse")}) == 4


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_key_is_its_own_key_and_finds_itself(local: str, domain: str) -> None:
    address = f"{local}@{domain}"
    key = mailbox_key(address)
    assert mailbox_key(key) == key
    spellings = mailbox_spellings(address)
    assert spellings[0] == key
    assert address.lower() in spellings
