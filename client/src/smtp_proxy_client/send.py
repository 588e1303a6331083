"""One mail over one session: MAIL, RCPT, DATA, and the final reply."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from smtp_proxy_client.dial import Dialer, Session
from smtp_proxy_client.errors import ClientError, Refused
from smtp_proxy_client.message import Letter
from smtp_proxy_client.reply import Reply
from smtp_proxy_client.stats import Recorder, Result, SentMail, Timings, timed

LINE_BEGINNING_WITH_DOT = re.compile(rb"^\.", re.MULTILINE)


@dataclass(frozen=True)
class Receipt:
    """The server's word that it took the mail, and for whom it did not."""

    reply: Reply
    refused: dict[str, Reply] = field(default_factory=dict)


def deliver(session: Session, letter: Letter, timings: Timings) -> Receipt:
    """Hand one letter over. After an error the session says whether it can be used again."""
    try:
        return _transaction(session, letter, timings)
    except Refused:
        if session.is_usable:
            _reset(session)
        raise
    except BaseException:
        session.is_usable = False
        raise


def send(dialer: Dialer, letter: Letter, recorder: Recorder) -> tuple[Result, ClientError | None]:
    """A connection for a single mail; the result, and the error if there was one."""
    timings: Timings = {}
    session = None
    try:
        with timed(timings, "total"):
            session = dialer.dial(timings)
            receipt = deliver(session, letter, timings)
    except ClientError as error:
        recorder.failed(timings, error)
        return recorder.result(), error
    finally:
        if session:
            facts = session.tls_version, session.tls_cipher, session.mechanism
            session.quit()
    mail = SentMail(
        letter.message_id,
        receipt.reply.text,
        *facts,
        {recipient: reply.text for recipient, reply in receipt.refused.items()},
    )
    recorder.accepted(timings)
    return recorder.result(mail=mail), None


def _transaction(session: Session, letter: Letter, timings: Timings) -> Receipt:
    with timed(timings, "mail"):
        session.expect_ok(session.wire.command(_mail_command(session, letter)))
    with timed(timings, "rcpt"):
        refused = _name_recipients(session, letter.recipients)
    with timed(timings, "data"):
        session.expect_ok(session.wire.command("DATA"), 354)
        reply = session.expect_ok(session.wire.exchange(dot_stuffed(letter.data)))
    return Receipt(reply, refused)


def _mail_command(session: Session, letter: Letter) -> str:
    parameters = [f"MAIL FROM:<{letter.sender}>"]
    if "SIZE" in session.extensions:  # RFC 1870: too large is said before it is sent.
        parameters.append(f"SIZE={len(letter.data)}")
    if letter.needs_smtputf8:
        if "SMTPUTF8" not in session.extensions:
            raise ClientError(
                "the server offers no SMTPUTF8, which an address beyond ASCII needs",
                hint="use addresses of ASCII characters for this server",
            )
        parameters.append("BODY=8BITMIME SMTPUTF8")  # RFC 6531 3.4
    return " ".join(parameters)


def _name_recipients(session: Session, recipients: tuple[str, ...]) -> dict[str, Reply]:
    """RCPT for each. One that is accepted is enough; if none is, the first refusal is the error."""
    refused = {}
    for recipient in recipients:
        try:
            session.expect_ok(session.wire.command(f"RCPT TO:<{recipient}>"))
        except Refused as error:
            if error.reply is None or not session.is_usable or len(recipients) == 1:
                raise
            refused[recipient] = error.reply
    if len(refused) == len(recipients):
        raise Refused(next(iter(refused.values())))
    return refused


def _reset(session: Session) -> None:
    try:
        session.is_usable = session.wire.command("RSET").is_positive
    except ClientError:
        session.is_usable = False


def dot_stuffed(data: bytes) -> bytes:
    """RFC 5321 4.5.2: double a dot that begins a line, and end with a line that is one dot."""
    stuffed = LINE_BEGINNING_WITH_DOT.sub(b"..", data)
    return stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n")
