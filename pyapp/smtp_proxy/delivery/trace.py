"""The Received field that every relay puts in front of what it passes on (RFC 5321 4.4). Pure."""

from __future__ import annotations

import ipaddress
import re
from email.utils import format_datetime
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from smtp_proxy.model.envelope import Envelope

_UNKNOWN = "unknown"
# What the client called itself is its own claim; only what a domain or address literal can hold is repeated.
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9.:_\[\]-]+")


def received_field(envelope: Envelope, hostname: str, *, hide_client: bool = False) -> bytes:
    """Name where the message came from, who took it, how, its id, the TLS cipher suite and when.

    There is never a `for` clause: it would tell one recipient of another (RFC 5321 4.4, 7.2). With `hide_client` there
    is no `from` clause either, as in what a sendmail command submits; then nothing is said of the submitter.
    """
    return (
        f"Received: {'' if hide_client else _source(envelope)}"
        f"by {_domain(hostname)} with {_protocol(envelope)} id {envelope.id}{_cipher(envelope)};\r\n"
        f"\t{_date(envelope.received_at.replace(microsecond=0))}\r\n"
    ).encode("ascii", "replace")


def _source(envelope: Envelope) -> str:
    helo = _NOT_A_NAME.sub("?", envelope.helo)[:255] or "unknown"
    return f"from {helo} ({_address_literal(_without_port(envelope.client_address))})\r\n\t"


def _protocol(envelope: Envelope) -> str:
    """RFC 3848, RFC 6531 4.3. Who comes by TLS has logged in; who comes without it (loopback only) has done neither."""
    return ("UTF8SMTP" if envelope.smtputf8 else "ESMTP") + ("SA" if envelope.tls else "")


def _cipher(envelope: Envelope) -> str:
    """RFC 8314 4.3: a clause of its own, and so behind `id` (RFC 5321 4.4, Additional-Registered-Clauses)."""
    return "" if envelope.tls_suite is None else f"\r\n\ttls {envelope.tls_suite}"


def _domain(hostname: str) -> str:
    """Our name; an address as RFC 5321 4.1.3 wants it."""
    literal = _address_literal(hostname)
    return hostname if literal == _UNKNOWN else literal


def _without_port(address: str) -> str:
    """1.2.3.4:25 -> 1.2.3.4, [::1]:25 -> ::1; without a port unchanged."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


@lru_cache(maxsize=256)
def _date(second: datetime) -> str:
    """RFC 5322 3.3. Much mail comes in the same second."""
    return format_datetime(second)


@lru_cache(maxsize=4096)
def _address_literal(address: str) -> str:
    """Write an address as RFC 5321 4.1.3 wants it. Senders are few and come again."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return _UNKNOWN
    return f"[IPv6:{parsed}]" if parsed.version == 6 else f"[{parsed}]"
