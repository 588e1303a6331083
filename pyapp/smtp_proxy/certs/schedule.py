"""When is a certificate due, when is a failed attempt tried again, when are people told. Pure: time comes from outside.

Due: as the CA suggests (ARI, RFC 9773), else when a third of its life is left; a certificate that lives 90 days or more
at the latest 30 days before its end (REQ-INFRA-TLS-010). What the CA suggests only ever brings that forward.
"""

from __future__ import annotations

import random
from datetime import datetime, time, timedelta
from typing import Final

from smtp_proxy.model.certificate import CertificateOrder, StoredCertificate

_LONG_LIFE: Final = timedelta(days=90)
_LATEST: Final = timedelta(days=30)
_DAILY_AT: Final = time(2, 0)  # UTC
_DAY: Final = timedelta(days=1)
RETRY_MAX: Final = timedelta(hours=6)
# Nobody can be sure that a CA that is asked to wait for weeks is still asked before the certificate ends.
_RETRY_AFTER_MAX: Final = timedelta(days=2)
_NEARS: Final = timedelta(days=14)


def renewal_time(certificate: StoredCertificate) -> datetime:
    """From when on it is to be replaced."""
    life = certificate.not_after - certificate.not_before
    own = certificate.not_after - life / 3
    if life >= _LONG_LIFE:
        own = min(own, certificate.not_after - _LATEST)
    return own if certificate.renew_at is None else min(own, certificate.renew_at)


def overdue(certificate: StoredCertificate, now: datetime) -> timedelta:
    """For how long it has been due; nothing while it is not. The alarm on it fits certificates of any life."""
    return max(now - renewal_time(certificate), timedelta(0))


def why_due(
    order: CertificateOrder, certificate: StoredCertificate | None, directory: str, now: datetime
) -> str | None:
    """Why the order has to be fulfilled now, in a word; None: it has not."""
    if order.asked_at is not None:
        return "asked for"
    if order.next_try_at is not None and order.next_try_at > now:
        return None
    if certificate is None:
        return "missing"
    reasons = {
        "another try": order.attempts > 0,  # whatever the first one was for, such as an operator's wish
        "other names": set(certificate.names) != set(order.names),
        "another CA": certificate.directory not in ("", directory),
        "renewal": renewal_time(certificate) <= now and not _is_new(certificate, now),
    }
    return next((why for why, holds in reasons.items() if holds), None)


def _is_new(certificate: StoredCertificate, now: datetime) -> bool:
    """Got within the last day: with a clock far ahead each new one looks old, and the CA would be asked for ever."""
    return certificate.created_at is not None and timedelta(0) <= now - certificate.created_at < _DAY


def retry_at(
    failed: int, now: datetime, initial_seconds: float, retry_after: datetime | None, chance: float | None = None
) -> datetime:
    """After the `failed`th failure in a row (from 1): doubled each time, up to 6 hours, with jitter of a quarter.

    `retry_after`: what the CA said (RFC 8555 6.6); it is never asked earlier. `chance`: 0 to 1, for tests.
    """
    jitter = 1 + 0.25 * (random.random() if chance is None else chance)  # noqa: S311
    doubled = timedelta(seconds=initial_seconds * float(2 ** min(failed - 1, 20)))
    delay = min(doubled, RETRY_MAX) * jitter
    if retry_after is not None:
        delay = max(delay, min(retry_after - now, _RETRY_AFTER_MAX))
    return now + delay


def should_alert(order: CertificateOrder, failed: int, not_after: datetime | None, now: datetime) -> bool:
    """At once when something begins to fail, and each day while the end nears or nothing serves."""
    if failed == 1 or order.alerted_at is None:
        return True
    nears = not_after is None or not_after - now <= _NEARS
    return nears and now - order.alerted_at >= _DAY


def ends_soon(not_after: datetime, told_at: datetime | None, now: datetime) -> bool:
    """Whether people are to be told today of the end of one that nobody renews."""
    return not_after - now <= _NEARS and (told_at is None or now - told_at >= _DAY)


def next_daily(now: datetime, jitter_seconds: float, chance: float | None = None) -> datetime:
    """The next 02:00 UTC, give or take the jitter: not all of the world asks a CA at the full hour."""
    share = random.random() if chance is None else chance  # noqa: S311
    shift = timedelta(seconds=jitter_seconds * (2 * share - 1))
    at = datetime.combine(now.date(), _DAILY_AT, tzinfo=now.tzinfo) + shift
    while at <= now:
        at += _DAY
    return at
