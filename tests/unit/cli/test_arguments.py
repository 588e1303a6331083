"""Arguments as they are read, values as they are shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from smtp_proxy import cli
from smtp_proxy.cli import output
from smtp_proxy.errors import ConfigurationError, InvalidValue
from smtp_proxy.model.envelope import DeliveryState


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("mx.example:25", ("mx.example", 25)), ("[::1]:2525", ("::1", 2525)), ("10.0.0.1:1", ("10.0.0.1", 1))],
)
def test_addresses(text: str, parsed: tuple[str, int]) -> None:
    assert cli.parse_address(text) == parsed


@pytest.mark.parametrize("text", ["", "mx.example", ":25", "mx:0", "mx:65536", "mx:²", "mx:25x"])
def test_not_addresses(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write HOST:PORT"):
        cli.parse_address(text)


def test_states() -> None:
    assert cli.parse_state("Queued") is DeliveryState.QUEUED
    with pytest.raises(InvalidValue):
        cli.parse_state("1")
    assert cli.describe_states([DeliveryState.QUEUED] * 3) == "queued"
    assert cli.describe_states([]) == ""


def test_times_are_utc_and_say_so() -> None:
    assert output.when(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) + timedelta(milliseconds=1)) == "2026-01-02 03:04:05Z"
    assert output.when(None) == ""
