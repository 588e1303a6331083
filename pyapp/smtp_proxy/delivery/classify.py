"""From what happened to what it means: delivered, deferred or refused. Pure.

2xx at the end                   delivered
4xx anywhere                     deferred
5xx to MAIL, RCPT, DATA or dot   refused
530 534 535 538 (RFC 4954 6)     deferred: our login or its lack is the operator's to mend, not the message's fault
5xx in greeting, EHLO, STARTTLS  deferred: about the host, not about the message
no reply: network, DNS, TLS, time-out, garbage   deferred, reply_code 0
no reply after the final dot     unknown, reply_code 0
a message we may not send        refused, reply_code 0

Why it is so, its kind, and the few refusals that are not for good, say the rules in replies.toml (`rules`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from smtp_proxy.delivery.rules import judge
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult

if TYPE_CHECKING:
    from smtp_proxy.delivery.reply import Reply

# RFC 4954 6 and 4.
_LOGIN_CODES: Final = frozenset({530, 534, 535, 538})


def is_login_trouble(code: int) -> bool:
    """The server wants another login than we have."""
    return code in _LOGIN_CODES


def outcome_of(code: int) -> Outcome:
    """What a reply to MAIL, RCPT, DATA or the final dot means for the recipient."""
    if 200 <= code <= 299:
        return Outcome.DELIVERED
    if 500 <= code <= 599 and not is_login_trouble(code):
        return Outcome.REFUSED
    return Outcome.DEFERRED


def from_reply(number: int, reply: Reply, remote: str) -> RecipientResult:
    """Read the server's answer for one recipient."""
    code, status, text = reply.code, reply.enhanced_code, reply.text
    outcome, kind = judge(code, status, text, outcome_of(code))
    return RecipientResult(number, outcome, code, status, text, remote, kind)


def no_reply(number: int, text: str, remote: str, kind: Kind = Kind.UNKNOWN) -> RecipientResult:
    """Nothing usable came back: try again later. Without `kind`, the text tells."""
    if kind is Kind.UNKNOWN:
        _, kind = judge(0, "", text, Outcome.DEFERRED)
    return RecipientResult(number, Outcome.DEFERRED, 0, "", text, remote, kind)


def unknown(number: int, text: str, remote: str) -> RecipientResult:
    """It was sent with its final dot, and nobody said what became of it."""
    _, kind = judge(0, "", text, Outcome.DEFERRED)
    return RecipientResult(number, Outcome.UNKNOWN, 0, "", text, remote, kind)


def refused_here(number: int, enhanced_code: str, text: str, remote: str) -> RecipientResult:
    """We do not send it, and trying again would change nothing."""
    return RecipientResult(number, Outcome.REFUSED, 0, enhanced_code, text, remote, Kind.LOCAL)


def on_route(result: RecipientResult, name: str) -> RecipientResult:
    """What was not delivered names its route, by which it may have a schedule of its own."""
    return result if result.outcome is Outcome.DELIVERED else replace(result, route=name)
