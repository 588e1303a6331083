"""What a transaction says of the next hop as a whole. Pure."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from smtp_proxy.model.attempt import Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from smtp_proxy.model.attempt import RecipientResult

_UNREACHED: Final = frozenset({Kind.TLS, Kind.DNS, Kind.TIMEOUT, Kind.NETWORK})


class Verdict(Enum):
    """From best to worst."""

    NOTHING = 0  # nothing was asked of it
    WELL = 1  # it took a copy, or refused it for good: it is willing to talk
    PUT_OFF = 2  # 4xx for every recipient
    TURNED_AWAY = 3  # 421, or another reply that ended the service
    UNREACHED = 4  # no connection, no TLS, no answer in time


def verdict_of(results: Iterable[RecipientResult], *, hung_up: bool) -> tuple[Verdict, str]:
    """Judge one transaction; the text says why, where it went badly."""
    best, text = Verdict.UNREACHED, ""
    asked = False
    for result in results:
        verdict = _of_one(result, hung_up=hung_up)
        if verdict is Verdict.NOTHING:
            continue
        if not asked or verdict.value < best.value:
            best, text = verdict, _said(result)
        asked = True
    return (best, text) if asked else (Verdict.NOTHING, "")


def _of_one(result: RecipientResult, *, hung_up: bool) -> Verdict:
    if result.kind is Kind.LOCAL:
        return Verdict.NOTHING
    if result.reply_code == 0:
        return Verdict.UNREACHED if hung_up or result.kind in _UNREACHED else Verdict.NOTHING
    if hung_up or result.reply_code == 421:
        return Verdict.TURNED_AWAY
    return Verdict.PUT_OFF if result.outcome is Outcome.DEFERRED else Verdict.WELL


def _said(result: RecipientResult) -> str:
    return f"{result.reply_code} {result.reply_text}" if result.reply_code else result.reply_text
