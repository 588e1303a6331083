"""Alarms on certificates, against the issuer's own schedule: lives of 90 days, and of those that CAs give by now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fix_infra import reckon

from smtp_proxy.certs import schedule
from smtp_proxy.model.certificate import StoredCertificate
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.ids import new_id
from smtp_proxy_infra import settings

BEGIN = datetime(2026, 11, 26, tzinfo=UTC)
HOUR = timedelta(hours=1)
METRICS = {"CertificateDaysLeft", "CertificateLifeLeft", "CertificateOverdue", "IssuedCertificateDaysLeft"}
LIVES = pytest.mark.parametrize("days", [90, 64, 45, 6])
# A failed attempt is made again after so long at most, and one that fails twice is no alarm.
RENEWED_WITHIN = 1.25 * schedule.RETRY_MAX


def certificate(days: float) -> StoredCertificate:
    ends = BEGIN + timedelta(days=days)
    return StoredCertificate(new_id(BEGIN), "mx", ("mx.example.com",), "", Sealed("", b""), BEGIN, ends, "ca")


def asked_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The metrics of a row of the table, by what its expression calls them."""
    return dict(row.get("metrics") or {"value": row["metric"]})


ROWS = {key: row for key, row in settings.load("production")["alarms"].items() if METRICS & set(asked_of(row).values())}


def sounding(found: StoredCertificate, now: datetime, *, renewed: bool = True) -> set[str]:
    """The alarms whose threshold is passed; `renewed`: somebody renews it, or should."""
    left = found.not_after - now
    values = {
        "CertificateDaysLeft": left / timedelta(days=1),
        "IssuedCertificateDaysLeft": left / timedelta(days=1),
        "CertificateLifeLeft": 100 * (left / (found.not_after - found.not_before)),
        "CertificateOverdue": schedule.overdue(found, now).total_seconds() if renewed else 0.0,
    }

    def passed(row: Mapping[str, Any]) -> bool:
        named = {name: values[metric] for name, metric in asked_of(row).items()}
        value = reckon(row["expression"], named) if "expression" in row else named["value"]
        return value > row["above"] if "above" in row else value < row["below"]

    return {key for key, row in ROWS.items() if passed(row)}


def hours(found: StoredCertificate) -> Iterator[datetime]:
    now = found.not_before
    while now < found.not_after:
        yield now
        now += HOUR


@LIVES
def test_a_certificate_that_is_renewed_in_time_is_no_alarm(days: int) -> None:
    """REQ-INFRA-TLS-006: also where it is the second attempt that does it."""
    found = certificate(days)
    until = schedule.renewal_time(found) + RENEWED_WITHIN
    assert {key for now in hours(found) if now <= until for key in sounding(found, now)} == set()


@LIVES
def test_one_that_is_not_renewed_is_told_while_there_is_time(days: int) -> None:
    """REQ-INFRA-TLS-006: by the issuer and by who serves it with a fifth of its life left, and once more."""
    found = certificate(days)
    first: dict[str, datetime] = {}
    for now in hours(found):
        for key in sounding(found, now):
            first.setdefault(key, now)
    life = found.not_after - found.not_before
    assert first.keys() == {"certificate-overdue", "certificate-ends", "certificate-ends-soon"}
    for key in ("certificate-overdue", "certificate-ends"):
        # CloudWatch looks at whole hours, so an hour later it is told.
        assert found.not_after - first[key] - timedelta(minutes=ROWS[key]["minutes"]) >= life / 5, key
    assert 12 * HOUR <= found.not_after - first["certificate-ends-soon"] <= timedelta(days=7)


def test_one_that_was_imported_for_a_year_is_told_of_by_its_days() -> None:
    found = certificate(365)
    told = next(now for now in hours(found) if sounding(found, now, renewed=False))
    assert timedelta(days=20) < found.not_after - told <= timedelta(days=21)
