"""A job made ready for the wire: its trace field, stuffed body, and what it asks of the next hop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtp_proxy.delivery.dsn import mail_parameters
from smtp_proxy.delivery.trace import received_field
from smtp_proxy.delivery.wire import header_of, path_bytes, transmitted
from smtp_proxy.model.record import record

if TYPE_CHECKING:
    from smtp_proxy.delivery.capabilities import Capabilities
    from smtp_proxy.model.envelope import Envelope


@record(frozen=True, slots=True)
class Unsendable:
    """Why this next hop cannot be given the message, ever: an enhanced code (RFC 3463) and a text."""

    enhanced_code: str
    text: str


@record(frozen=True, slots=True)
class Message:
    """What is sent for one envelope."""

    reverse_path: bytes
    data: bytes  # with the final dot
    size_bytes: int  # as RFC 1870 counts: unstuffed, without the dot
    eight_bit: bool
    utf8_header: bool
    dsn: bytes = b""  # parameters of MAIL, for a server that offers DSN

    def mail_command(self, capabilities: Capabilities, *, utf8_recipient: bool) -> bytes:
        """Write MAIL with the parameters that this server knows; without CRLF."""
        line = b"MAIL FROM:<" + self.reverse_path + b">"
        if capabilities.size:
            line += b" SIZE=%d" % self.size_bytes
        if self.eight_bit and capabilities.eight_bit_mime:
            line += b" BODY=8BITMIME"
        if self.asks_smtputf8(capabilities, utf8_recipient=utf8_recipient):
            line += b" SMTPUTF8"
        if self.dsn and capabilities.dsn:
            line += self.dsn
        return line

    def asks_smtputf8(self, capabilities: Capabilities, *, utf8_recipient: bool) -> bool:
        """Whether MAIL declares it to this server."""
        return capabilities.smtputf8 and (utf8_recipient or self.utf8_header or not self.reverse_path.isascii())

    def objection(self, capabilities: Capabilities) -> Unsendable | None:
        """Whether this server can take it at all."""
        if capabilities.size_bytes and self.size_bytes > capabilities.size_bytes:
            text = f"the message has {self.size_bytes} octets, the server takes {capabilities.size_bytes}"
            return Unsendable("5.3.4", text)
        if not capabilities.smtputf8 and (self.utf8_header or not self.reverse_path.isascii()):
            return Unsendable("5.6.7", "the message needs SMTPUTF8, which the server does not offer")
        # RFC 6152 3 leaves two ways, conversion or return. Conversion would break DKIM signatures and change what we
        # promised to pass on unchanged, so it is returned.
        if self.eight_bit and not capabilities.eight_bit_mime:
            return Unsendable("5.6.3", "the message holds 8-bit text, and the server does not offer 8BITMIME")
        return None


def compose(envelope: Envelope, hostname: str, *, hide_client: bool = False, signature: bytes = b"") -> Message:
    """Prepare an envelope, with `signature` (whole header fields) above its trace field (RFC 6376 5.6).

    Raises UnfitForWire when the body or the reverse-path may not be sent.
    """
    body = envelope.body
    trace = signature + received_field(envelope, hostname, hide_client=hide_client)
    data, ascii_body = transmitted(trace, body)
    return Message(
        reverse_path=path_bytes(envelope.reverse_path, "5.1.7"),
        data=data,
        size_bytes=len(trace) + len(body),
        eight_bit=not ascii_body,
        # The declaration alone asks for nothing: with ASCII in all its headers and addresses it is ordinary mail.
        utf8_header=envelope.smtputf8 and not ascii_body and not header_of(body).isascii(),
        dsn=mail_parameters(envelope),
    )
