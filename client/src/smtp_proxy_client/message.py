"""Addresses, templates, and the composed mail.

Everything a caller supplies for a header or an envelope passes a check here that refuses CR, LF,
NUL and the other control characters: a subject must not be able to add a header, nor an address a
command. Bodies may hold anything; they are encoded to seven bits, so no extension is needed. Only
addresses beyond ASCII need one, SMTPUTF8 (RFC 6531).
"""

from __future__ import annotations

import string
import uuid
from dataclasses import dataclass
from email import policy
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import HeaderParser
from email.utils import localtime
from pathlib import Path

from smtp_proxy_client.errors import UsageError
from smtp_proxy_client.reply import printable

TEMPLATE_FIELDS = ("count", "to", "from", "date", "unique")
# The body's encoding is ours to choose; a template that sets it could only be wrong.
RESERVED_HEADERS = frozenset({"mime-version", "content-transfer-encoding", "bcc"})
BODY_TYPES = {"text/plain": "plain", "text/html": "html"}


@dataclass(frozen=True)
class Letter:
    """A composed mail with its envelope, ready for the wire."""

    sender: str
    recipients: tuple[str, ...]
    message_id: str
    data: bytes
    needs_smtputf8: bool


def checked_line(text: str, what: str) -> str:
    """The text, if it can stand in a header or a command without becoming two."""
    if not is_utf8(text):
        raise UsageError(f"{what} is not UTF-8 text: {printable(text)[:80]}")
    for character in text:
        if ord(character) < 32 or ord(character) == 127 or character in "\x85\u2028\u2029":
            raise UsageError(
                f"{what} holds a control character: {printable(text)[:80]}",
                hint="line breaks and NUL would let it add headers or commands",
            )
    return text


def checked_address(text: str, what: str) -> str:
    """A bare address `local@domain`; the server may judge the rest."""
    if not checked_line(text, what).isprintable():
        raise UsageError(f"{what} holds an invisible character: {printable(text)[:80]}")
    local, at, domain = text.rpartition("@")
    quoted = len(local) > 2 and local[0] == local[-1] == '"'
    if not (at and local and domain) or (not quoted and any(c in local for c in ' <>,;"\\')):
        raise UsageError(f"{what} is not an address: {text!r}", hint="give it as local@domain")
    if any(c in domain for c in ' <>,;"\\@'):
        raise UsageError(f"{what} is not an address: {text!r}", hint="give it as local@domain")
    return text


def is_utf8(text: str) -> bool:
    """Not so for a word of the command line that was other bytes, which Python keeps as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


@dataclass(frozen=True)
class Template:
    """Headers and a body in which `$count`, `$to`, `$from`, `$date`, `$unique` are filled in."""

    headers: tuple[tuple[str, string.Template], ...]
    body: string.Template
    subtype: str = "plain"
    source: str = "the template"

    @classmethod
    def literal(cls, subject: str, body: str) -> Template:
        """A mail whose text is taken as it is: a dollar sign is only a dollar sign."""
        subject = checked_line(subject, "--subject").replace("$", "$$")
        if not is_utf8(body):
            raise UsageError("--body is not UTF-8 text")
        return cls((("Subject", string.Template(subject)),), string.Template(body.replace("$", "$$")))

    @classmethod
    def from_file(cls, path: Path) -> Template:
        """Read a file that looks like a mail: headers, an empty line, the body."""
        return cls.parse(read_text(path, "--template"), source=str(path))

    @classmethod
    def parse(cls, text: str, source: str = "the template") -> Template:
        """Take a template apart and try it once, so that mistakes show before anything is sent."""
        parsed = HeaderParser(policy=policy.compat32).parsestr(text)
        if parsed.defects or not parsed.keys():
            raise UsageError(
                f"{source}: does not begin with headers and an empty line",
                hint="for a body alone use --body-file",
            )
        headers, subtype = [], "plain"
        for name, value in parsed.items():
            if name.lower() in RESERVED_HEADERS:
                raise UsageError(f"{source}: the header {name} is set by the client")
            if name.lower() == "content-type":
                subtype = _subtype(str(value), source)
                continue
            unfolded = str(value).replace("\r\n", "\n").replace("\n", "")
            headers.append((name, string.Template(unfolded)))
        template = cls(tuple(headers), string.Template(str(parsed.get_payload())), subtype, source)
        template.compose(1, "sender@example.com", ("recipient@example.com",))
        return template

    def compose(self, count: int, sender: str, recipients: tuple[str, ...]) -> Letter:
        """The mail number `count`, from one to all of the recipients."""
        needs_smtputf8 = not all(address.isascii() for address in (sender, *recipients))
        now = localtime()
        fields = {
            "count": str(count),
            "to": ", ".join(recipients),
            "from": sender,
            "date": now.strftime("%Y-%m-%d %H:%M:%S %z"),
            "unique": uuid.uuid4().hex,
        }
        style = policy.SMTPUTF8 if needs_smtputf8 else policy.SMTP
        message = EmailMessage(policy=style.clone(cte_type="7bit"))
        try:
            for name, value in self.headers:
                message[name] = checked_line(self._fill(value, fields), f"{self.source}: {name}")
            self._add_missing(message, now, sender, recipients, fields["unique"])
            message.set_content(self._fill(self.body, fields), subtype=self.subtype)
            data = message.as_bytes()
        except (MessageError, ValueError) as error:
            raise UsageError(f"{self.source}: {printable(str(error))}") from error
        return Letter(sender, recipients, str(message["Message-ID"]), data, needs_smtputf8)

    def _fill(self, text: string.Template, fields: dict[str, str]) -> str:
        try:
            return text.substitute(fields)
        except KeyError as error:
            problem = f"there is no field ${error.args[0]}"
        except ValueError:
            problem = "a dollar sign without a field"
        known = ", ".join(f"${name}" for name in TEMPLATE_FIELDS)
        raise UsageError(f"{self.source}: {problem}", hint=f"fields are {known}; a dollar sign itself is $$")

    @staticmethod
    def _add_missing(
        message: EmailMessage,
        now: object,
        sender: str,
        recipients: tuple[str, ...],
        unique: str,
    ) -> None:
        defaults: dict[str, object] = {
            "From": _header_address(sender),
            "To": tuple(_header_address(recipient) for recipient in recipients),
            "Date": now,
            "Message-ID": f"<{unique}@{sender.rpartition('@')[2]}>",
        }
        for name, value in defaults.items():
            if name not in message:
                message[name] = value


def read_text(path: Path, option: str) -> str:
    """A text file that an option names."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{option}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{option}: {path} is not UTF-8 text") from error


def _header_address(address: str) -> Address:
    local, _, domain = address.rpartition("@")
    if local.startswith('"'):
        local = local[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return Address(username=local, domain=domain)


def _subtype(content_type: str, source: str) -> str:
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in BODY_TYPES:
        raise UsageError(f"{source}: Content-Type is {kind}, not {' or '.join(BODY_TYPES)}")
    return BODY_TYPES[kind]
