"""What `doctor` says of an account of SES; `smtp-proxy deploy` begins nothing where it fails."""

from __future__ import annotations

from typing import Any

import pytest

from smtp_proxy.doctor.finding import Level
from smtp_proxy.doctor.outbound import judge_ses

WELL: dict[str, Any] = {
    "SendingEnabled": True,
    "EnforcementStatus": "HEALTHY",
    "ProductionAccessEnabled": True,
    "SendQuota": {"Max24HourSend": 50_000.0, "SentLast24Hours": 100.0, "MaxSendRate": 14.0},
}


@pytest.mark.parametrize(
    ("other", "levels", "says"),
    [
        ({}, [Level.OK, Level.OK], "production access"),
        ({"SendingEnabled": False}, [Level.FAILED, Level.OK, Level.OK], "sending is paused"),
        ({"EnforcementStatus": "PROBATION"}, [Level.WARNING, Level.OK, Level.OK], "under review: PROBATION"),
        ({"ProductionAccessEnabled": False}, [Level.WARNING, Level.OK], "200 recipients a day"),
        (
            {"SendQuota": {"Max24HourSend": 100.0, "SentLast24Hours": 99.0, "MaxSendRate": 14.0}},
            [Level.OK, Level.WARNING],
            "99 of 100 recipients",
        ),
        (
            {"SendQuota": {"Max24HourSend": -1, "SentLast24Hours": 99.0, "MaxSendRate": 1.0}},
            [Level.OK, Level.WARNING],
            "1 recipients a second",
        ),
    ],
)
def test_an_account_is_judged(other: dict[str, Any], levels: list[Level], says: str) -> None:
    """The sandbox, in which every account begins, is worth a warning: mail to verified addresses goes."""
    found = list(judge_ses("SES", {**WELL, **other}, our_rate=10))
    assert [finding.level for finding in found] == levels
    assert says in " ".join(finding.what for finding in found)
