"""What passes as a name or a password is fit for where it goes; what does not is refused in our words."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.errors import InvalidValue
from smtp_proxy.tenants import names

texts = st.one_of(
    st.text(max_size=80),
    st.from_regex(r"[a-z0-9-]{0,70}\n?"),
    st.text("ab\0\r\n\t \ufeff\u200e\ud800é", max_size=300),
)


def refusal(check: Callable[[str], str], text: str) -> str | None:
    """What is said against it; None: it passes, unchanged."""
    try:
        assert check(text) == text
    except InvalidValue as said:
        return str(said)
    return None


@given(texts)
def test_a_tenants_name_is_a_dns_label(name: str) -> None:
    if (said := refusal(names.tenant_name, name)) is not None:
        assert repr(name) in said
        return
    assert name.isascii()
    assert 1 <= len(name) <= 63
    assert name == name.lower().strip("-")
    assert name.replace("-", "a").isalnum()


@given(texts)
def test_a_username_survives_what_a_client_does_to_it(name: str) -> None:
    """base64 in AUTH (RFC 4616), one word in a command line of ours, and a look at it."""
    if refusal(names.username, name) is not None:
        return
    assert base64.b64decode(base64.b64encode(name.encode())).decode() == name
    assert len(name.split()) == 1
    assert name.isprintable()
    assert unicodedata.normalize("NFC", name) == name


@given(texts)
def test_a_password_is_never_shown(secret: str) -> None:
    if (said := refusal(names.password, secret)) is not None:
        assert len(secret) < 8 or secret not in said
        return
    assert b"\0" not in secret.encode()
    assert 8 <= len(secret) <= len(secret.encode()) <= 1024
