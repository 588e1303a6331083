"""The client of Redis: what it can not use is named before anything is opened."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError, StreamUnavailable
from smtp_proxy.stream.connection import Connection, stream_errors


def connection(url: str) -> Connection:
    return Connection(Settings.load({}, {"REDIS_URL": url}))


@pytest.mark.parametrize(
    "options", ["db=sekret", "sekret=1", "protocol=9", "max_connections=-1", "socket_timeout=sekret"]
)
def test_an_option_that_redis_py_does_not_know(options: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^REDIS_URL: ") as caught:
        connection(f"redis://:sekret@h?{options}")
    assert "sekret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_options_that_it_knows() -> None:
    await connection("rediss://h?ssl_cert_reqs=none&health_check_interval=5&db=2").close()
    await connection("unix://user:password@/run/valkey.sock?db=1").close()


@given(
    st.sampled_from(["", "redis://", "redis://h", "rediss://h", "unix://"]),
    st.lists(st.sampled_from([*":@/?#[]%0=&é ", "://", "db", "h", "protocol"]), max_size=12),
)
def test_any_text_is_taken_or_refused_in_our_words(start: str, rest: list[str]) -> None:
    with contextlib.suppress(ConfigurationError):
        connection(start + "".join(rest))


@pytest.mark.parametrize("error", [AttributeError("'NoneType' object"), RuntimeError("the handler is closed")])
async def test_a_connection_closed_while_it_was_opened_is_trouble_like_any_other(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def breaks(*_: object, **__: object) -> None:
        raise error

    made = Connection(Settings.load({}, {}))
    monkeypatch.setattr(made._redis, "execute_command", breaks)
    with pytest.raises(StreamUnavailable, match="closed while it was opened"):
        async with stream_errors(1.0):
            await made.call("PING")
    await made.close()
