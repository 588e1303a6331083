"""When certificates are due, tried again and told of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.certs.schedule import next_daily, renewal_time, retry_at, should_alert, why_due
from smtp_proxy.model.certificate import CertificateOrder, StoredCertificate
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.ids import new_id

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ORDER = CertificateOrder("mx", ("mx.example.com",))


def certificate(life_days: float, left_days: float, renew_at: datetime | None = None) -> StoredCertificate:
    ends = NOW + left_days * DAY
    return StoredCertificate(
        new_id(NOW), "mx", ("mx.example.com",), "", Sealed("", b""), ends - life_days * DAY, ends, "ca", renew_at
    )


@pytest.mark.parametrize(
    ("life", "left", "due"),
    [
        (90, 30.01, False),
        (90, 30, True),
        (365, 121.7, False),
        (365, 121.6, True),
        (6, 2.01, False),  # short-lived: by a third of the life
        (6, 2, True),
        (45, 15.01, False),
        (45, 15, True),
        (90, -1, True),
    ],
)
def test_due_by_what_is_left(life: float, left: float, due: bool) -> None:
    """REQ-INFRA-TLS-010: at the latest 30 days before the end of one that lives 90 days."""
    assert (why_due(ORDER, certificate(life, left), "ca", NOW) == "renewal") is due


@given(life=st.floats(90, 1000))
def test_thirty_days_before_the_end_at_the_latest(life: float) -> None:
    """REQ-INFRA-TLS-010."""
    found = certificate(life, life)
    assert found.not_after - renewal_time(found) >= timedelta(days=30) - timedelta(seconds=1)


def test_the_ca_brings_it_forward_and_never_puts_it_off() -> None:
    assert why_due(ORDER, certificate(90, 80, NOW - DAY), "ca", NOW) == "renewal"
    assert why_due(ORDER, certificate(90, 80, NOW + DAY), "ca", NOW) is None
    assert why_due(ORDER, certificate(90, 29, NOW + 20 * DAY), "ca", NOW) == "renewal"


@pytest.mark.parametrize(("hours", "due"), [(0, False), (23, False), (24, True), (-1, True)])
def test_a_clock_that_is_far_ahead_does_not_order_for_ever(hours: float, due: bool) -> None:
    """What was had within a day is not renewed because of its dates; nor does a clock set back put it off."""
    found = replace(certificate(90, 5), created_at=NOW - timedelta(hours=hours))
    assert (why_due(ORDER, found, "ca", NOW) == "renewal") is due


def test_other_reasons() -> None:
    fresh = certificate(90, 89)
    later = CertificateOrder("mx", ("mx.example.com",), next_try_at=NOW + DAY, attempts=1)
    for order, cert, directory, why in (
        (ORDER, fresh, "ca", None),
        (ORDER, None, "ca", "missing"),
        (ORDER, fresh, "production", "another CA"),
        (CertificateOrder("mx", ("mx.example.com", "b.example.com")), fresh, "ca", "other names"),
        (CertificateOrder("mx", ("mx.example.com",), asked_at=NOW), fresh, "ca", "asked for"),
        (later, None, "ca", None),
        (CertificateOrder("mx", ("mx.example.com",), next_try_at=NOW, attempts=1), fresh, "ca", "another try"),
    ):
        assert why_due(order, cert, directory, NOW) == why


def test_it_is_tried_ever_less_often() -> None:
    """REQ-INFRA-TLS-006."""
    delays = [(retry_at(n, NOW, 60, None, 0) - NOW).total_seconds() for n in range(1, 12)]
    assert delays[:4] == [60, 120, 240, 480]
    assert delays[-1] == 6 * 3600
    assert (retry_at(1, NOW, 60, None, 1) - NOW).total_seconds() == 75
    assert (retry_at(10_000, NOW, 60, None, 0) - NOW).total_seconds() == 6 * 3600


def test_a_ca_is_not_asked_before_it_wants() -> None:
    """REQ-INFRA-TLS-006: Retry-After (RFC 8555 6.6), within reason."""
    assert retry_at(1, NOW, 60, NOW + timedelta(hours=7)) == NOW + timedelta(hours=7)
    assert retry_at(1, NOW, 60, NOW + 365 * DAY) == NOW + 2 * DAY
    assert retry_at(1, NOW, 60, NOW - DAY, 0) == NOW + timedelta(seconds=60)


def test_people_are_told_at_once_and_as_the_end_nears() -> None:
    """REQ-INFRA-TLS-006."""
    told = CertificateOrder("mx", ("mx.example.com",), attempts=3, alerted_at=NOW - 2 * DAY)
    assert should_alert(ORDER, 1, NOW + 60 * DAY, NOW)
    assert not should_alert(told, 4, NOW + 60 * DAY, NOW)
    assert should_alert(told, 4, NOW + 13 * DAY, NOW)
    assert should_alert(told, 4, None, NOW)
    just = CertificateOrder("mx", ("mx.example.com",), attempts=3, alerted_at=NOW - DAY / 2)
    assert not should_alert(just, 4, NOW + DAY, NOW)


@given(st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)), st.floats(0, 1))  # noqa: DTZ001
def test_daily_around_two(now: datetime, chance: float) -> None:
    at = next_daily(now, 1800, chance)
    assert now < at <= now + DAY + timedelta(hours=1)
    assert abs((at - at.replace(hour=2, minute=0, second=0, microsecond=0)).total_seconds()) <= 1800
