"""What is doubled for SMTP is undone for an API, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.delivery.wire import transmitted, unstuffed

LINES = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x.", b"x", b"...", b"\xc3\xbc"]), min_size=1)


@given(LINES)
def test_unstuffed_is_the_message_again(lines: list[bytes]) -> None:
    body = b"\r\n".join(lines) + b"\r\n"
    assert unstuffed(transmitted(b"", body)[0]) == body
