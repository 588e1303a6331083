"""What is passed on of a client's wish for notifications, to a server that offers DSN (RFC 3461 5.2.1). Pure.

What was given goes on with the same value, what was not given is not made up (for ORCPT that would be allowed). A
server without DSN gets none of it (5.2.2); the "relayed" report that the sender is owed then is `worker.dsn`'s.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from smtp_proxy.delivery.wire import UnfitForWire

if TYPE_CHECKING:
    from smtp_proxy.model.envelope import Envelope, Recipient

# RFC 5321 4.1.2 esmtp-value, with the UTF-8 that RFC 6531 3.3 adds: no blank, no control, no "=".
_VALUE = re.compile(r"[^\x00-\x20=\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
# RFC 3461 4.2, characters.
_ORCPT_MAX: Final = 500
# What unitext (RFC 6533 3) may not hold as it is: "+", a backslash that encodes nothing, and in ASCII all else.
_TO_ENCODE = re.compile(r"[^!-~]|\+|\\(?!x\{)")


def mail_parameters(envelope: Envelope) -> bytes:
    """RET and ENVID for MAIL; empty as a rule. Raises UnfitForWire."""
    text = "" if envelope.ret is None else f" RET={envelope.ret.name}"
    if envelope.envid is not None:
        text += f" ENVID={_checked(envelope.envid)}"
    return text.encode()


def rcpt_parameters(recipient: Recipient) -> str:
    """NOTIFY and ORCPT for RCPT; empty as a rule. Raises UnfitForWire."""
    text = "" if recipient.notify is None else f" NOTIFY={recipient.notify.keywords}"
    if recipient.orcpt is not None:
        text += f" ORCPT={_checked(recipient.orcpt)}"
    return text


def on_the_wire(parameters: str, *, smtputf8: bool) -> bytes:
    """Encode what `rcpt_parameters` said; in ASCII where the transaction is not SMTPUTF8 (RFC 6533 3)."""
    if smtputf8 or parameters.isascii():
        return parameters.encode()
    others, orcpt, value = parameters.rpartition(" ORCPT=")
    in_ascii = _TO_ENCODE.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", value)
    # One that grows too long would cost the message; its sender can do without.
    return (others if len(in_ascii) > _ORCPT_MAX else f"{others}{orcpt}{in_ascii}").encode()


def _checked(value: str) -> str:
    if _VALUE.fullmatch(value) is None:
        raise UnfitForWire("a DSN parameter holds characters that may not be sent", "5.5.4")
    return value
