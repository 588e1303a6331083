"""Reports to senders: delivery status notifications (RFC 3464, 6522), in UTF-8 where RFC 6533 asks for it. Pure.

Written by hand and not by a library, since bytes of the reported message go in as they are. What comes from outside and
is repeated in a field (replies, ORCPT, ENVID) has lost its controls, so nobody writes a field of ours.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from enum import Enum
from typing import TYPE_CHECKING, Final
from uuid import UUID

from smtp_proxy.delivery.wire import header_of
from smtp_proxy.model.dsn import Ret
from smtp_proxy.model.envelope import BodyType, Envelope, Recipient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.model.attempt import RecipientResult

# Of the reported message's header, bytes.
_HEADER_MAX: Final = 64 * 1024
# What delivery refuses to put on the wire: a bare CR or LF, NUL (delivery/wire.py).
_UNFIT: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
_WIDTH: Final = 76
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_UNITEXT = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MESSAGE_ID = re.compile(rb"^message-id:[ \t\r\n]*(<[!-;=?-~]{3,250}>)", re.IGNORECASE | re.MULTILINE)


class Action(Enum):
    """RFC 3464 2.3.3: its name, the status where the server gave none, the subject and the sentence about it."""

    FAILED = (
        "failed",
        "5.0.0",
        "Your message could not be delivered",
        "could not be delivered, and is not tried again",
    )
    DELAYED = ("delayed", "4.0.0", "Your message is delayed", "could not be delivered so far; it is tried on")
    RELAYED = (
        "relayed",
        "2.0.0",
        "Your message was passed on",
        "was passed on to a server that sends no reports; you will not hear of it again",
    )

    def __init__(self, keyword: str, status: str, subject: str, sentence: str) -> None:
        self.keyword = keyword
        self.status = status
        self.subject = subject
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Ending:
    """What is told of one recipient."""

    recipient: Recipient
    action: Action
    result: RecipientResult
    at: datetime | None  # of the attempt; None: nothing was asked of a next hop
    retry_until: datetime | None = None  # delayed


def report(
    envelope: Envelope, endings: Sequence[Ending], report_id: UUID, hostname: str, now: datetime, full_max_bytes: int
) -> Envelope:
    """Write the report on `envelope`, to its reverse-path, from the null reverse-path.

    All of the message comes back with a failure where RET=FULL asks for it (RFC 3461 4.3, 6.2) and it has no more than
    `full_max_bytes`; otherwise its header.
    """
    utf8 = _needs_utf8(envelope, endings)
    full = (
        envelope.ret is Ret.FULL
        and any(ending.action is Action.FAILED for ending in endings)
        and len(envelope.body) <= full_max_bytes
    )
    boundary = f"=_{report_id.hex}"
    parts = (
        _part("text/plain; charset=utf-8", _words(envelope, endings, hostname).encode()),
        _part(
            f"message/{'global-' if utf8 else ''}delivery-status",
            _status(envelope, endings, hostname, utf8=utf8).encode(),
        ),
        _returned(envelope, full=full, utf8=utf8),
    )
    head = _head(envelope, endings, report_id, hostname, now, boundary, eight_bit=not all(p.isascii() for p in parts))
    delimiter = f"--{boundary}\r\n".encode()
    body = b"".join((head, *(delimiter + part for part in parts), f"--{boundary}--\r\n".encode()))
    return Envelope(
        id=report_id,
        tenant_id=envelope.tenant_id,
        credential_id=envelope.credential_id,
        reverse_path="",
        body=body,
        body_type=BodyType.SEVEN_BIT if body.isascii() else BodyType.EIGHT_BIT_MIME,
        smtputf8=utf8,
        received_at=now,
        helo=hostname,
        client_address="127.0.0.1",
        tls=False,
    )


# -- the parts (RFC 6522 3)


def _head(
    envelope: Envelope,
    endings: Sequence[Ending],
    report_id: UUID,
    hostname: str,
    now: datetime,
    boundary: str,
    *,
    eight_bit: bool,
) -> bytes:
    actions = {ending.action for ending in endings}
    subject = actions.pop().subject if len(actions) == 1 else "What became of your message"
    kind = "global-" if _needs_utf8(envelope, endings) else ""
    lines = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{envelope.reverse_path}>",
        f"Subject: {subject}",
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{report_id}@{hostname}>",
        # RFC 3834 5: made in answer to a message, and by no person.
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f"Content-Type: multipart/report; report-type={kind}delivery-status;",
        f'\tboundary="{boundary}"',
        f"Content-Transfer-Encoding: {'8bit' if eight_bit else '7bit'}",
    ]
    if (found := _MESSAGE_ID.search(header_of(envelope.body)[:_HEADER_MAX])) is not None:
        lines.append(f"References: {found[1].decode('ascii')}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _words(envelope: Envelope, endings: Sequence[Ending], hostname: str) -> str:
    """For people."""
    received = envelope.received_at.strftime("%Y-%m-%d %H:%M:%S")
    paragraphs = [f"This is the mail system at {hostname}, about the message that it took from you at {received} UTC."]
    for action in Action:
        concerned = [ending for ending in endings if ending.action is action]
        if concerned:
            paragraphs.append(f"It {action.sentence}:")
            paragraphs += map(_paragraph, concerned)
    paragraphs.append("Details for programs, and what was sent, follow.")
    return "\r\n\r\n".join(map(_wrapped, paragraphs)) + "\r\n"


def _paragraph(ending: Ending) -> str:
    result = ending.result
    said = " ".join(p for p in (str(result.reply_code or ""), result.enhanced_code, result.reply_text) if p)
    by = f" ({result.remote})" if result.remote else ""
    until = f" It is given up at {ending.retry_until:%Y-%m-%d %H:%M} UTC." if ending.retry_until is not None else ""
    return f"<{ending.recipient.address}>{by}: {_plain(said)}{until}"


def _status(envelope: Envelope, endings: Sequence[Ending], hostname: str, *, utf8: bool) -> str:
    """RFC 3464 2.1: fields on the message, and a group of fields for each recipient."""
    fields = [f"Reporting-MTA: dns; {hostname}"]
    if envelope.envid is not None:
        fields.insert(0, _field("Original-Envelope-Id", _decoded(envelope.envid)))
    fields.append(f"Arrival-Date: {format_datetime(envelope.received_at)}")
    groups = ["\r\n".join(fields), *("\r\n".join(_of_recipient(e, envelope, utf8=utf8)) for e in endings)]
    text = "\r\n\r\n".join(groups) + "\r\n"
    return text if utf8 else text.encode("ascii", "replace").decode()


def _of_recipient(ending: Ending, envelope: Envelope, *, utf8: bool) -> list[str]:
    recipient, result = ending.recipient, ending.result
    fields = []
    if recipient.orcpt is not None:
        fields.append(_field("Original-Recipient", _original(recipient.orcpt, utf8=utf8)))
    address_type = "rfc822" if recipient.address.isascii() else "utf-8"
    fields += [
        f"Final-Recipient: {address_type}; {recipient.address}",
        f"Action: {ending.action.keyword}",
        f"Status: {_status_code(ending)}",
    ]
    if result.remote and ending.at is not None:
        fields.append(f"Remote-MTA: dns; {_host(result.remote)}")
    said = " ".join(p for p in (str(result.reply_code), result.enhanced_code, result.reply_text) if p)
    if result.reply_code:
        fields.append(_field("Diagnostic-Code", f"smtp; {said}"))
    elif result.reply_text:
        fields.append(_field("Diagnostic-Code", f"x-smtp-proxy; {result.reply_text}"))
    if ending.at is not None:
        fields.append(f"Last-Attempt-Date: {format_datetime(ending.at)}")
    fields.append(f"Final-Log-ID: {envelope.id}")
    if ending.retry_until is not None:
        fields.append(f"Will-Retry-Until: {format_datetime(ending.retry_until)}")
    return fields


def _returned(envelope: Envelope, *, full: bool, utf8: bool) -> bytes:
    """RFC 6522 3: the third part. Its header alone is not a message, and so has a type of its own.

    What could not be sent could not be sent back either: of such a message the header, with spaces in those places.
    """
    if full and not _UNFIT.search(envelope.body):
        return _part("message/global" if utf8 else "message/rfc822", envelope.body)
    header = _UNFIT.sub(b" ", header_of(envelope.body))
    if len(header) > _HEADER_MAX:
        header = header[: header.rfind(b"\r\n", 0, _HEADER_MAX) + 2]
    return _part("message/global-headers" if utf8 else "text/rfc822-headers", header)


def _part(content_type: str, content: bytes) -> bytes:
    encoding = "7bit" if content.isascii() else "8bit"
    end = b"" if content.endswith(b"\r\n") else b"\r\n"
    return f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + content + end


# -- values


def _needs_utf8(envelope: Envelope, endings: Sequence[Ending]) -> bool:
    """RFC 6533: an address or a header that ASCII cannot write."""
    said = (envelope.reverse_path, *(text for e in endings for text in (e.recipient.address, e.recipient.orcpt or "")))
    return not all(text.isascii() for text in said) or (envelope.smtputf8 and not header_of(envelope.body).isascii())


def _status_code(ending: Ending) -> str:
    """RFC 3464 2.3.4: of the class that the action has."""
    given, fallback = ending.result.enhanced_code, ending.action.status
    return given if given[:1] == fallback[0] else fallback


def _original(orcpt: str, *, utf8: bool) -> str:
    """ORCPT as a field's value (RFC 3464 2.3.1). Of the type utf-8 it stays encoded in ASCII (RFC 6533 3)."""
    kind, _, value = orcpt.partition(";")
    if kind.lower() != "utf-8":
        return f"{kind};{_decoded(value)}"
    return f"{kind};{_UNITEXT.sub(_character, value)}" if utf8 else orcpt


def _decoded(xtext: str) -> str:
    """RFC 3461 4."""
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), xtext)


def _character(found: re.Match[str]) -> str:
    code = int(found[1], 16)
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else found[0]


def _host(remote: str) -> str:
    """[2001:db8::1]:25 -> [2001:db8::1], mx.example:25 -> mx.example."""
    return remote.rpartition(":")[0] or remote


def _plain(text: str) -> str:
    return _CONTROLS.sub(" ", text).strip()


def _field(name: str, value: str) -> str:
    """Folded (RFC 5322 2.2.3), without controls."""
    return "\r\n ".join(_lines(f"{name}: {_plain(value)}"))


def _wrapped(text: str) -> str:
    return "\r\n".join(_lines(text))


def _lines(text: str) -> list[str]:
    """Broken at blanks; a word may be long, and a line of more than 998 octets is broken anywhere (RFC 5322 2.1.1)."""
    lines = textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return [line[at : at + 200] for line in lines for at in range(0, len(line), 200)] or [""]
