"""When two mail addresses are the same one. Pure.

It is decided here alone, never by the database, whose lower() knows what its locale does (in "C": A to Z).

Upper and lower case are one, also in the local part (whoever asked for no mail does not mean one spelling of two), and
so are composed and decomposed letters (RFC 6532 3.1), and a domain in U-labels and in A-labels (RFC 5890 2.3.2.1).
"""

from __future__ import annotations

import unicodedata

import idna

# How an A-label begins (RFC 5890 2.3.1).
_ACE = "xn--"


def mailbox_key(address: str) -> str:
    """As it is kept and compared: lower case, the domain in A-labels. Of an ASCII address it is that in lower case."""
    if address.isascii():
        return address.lower()
    local, at, domain = _composed(address).rpartition("@")
    return f"{local}@{_ascii(domain)}" if at else domain


def domain_key(address: str) -> str:
    """Of its domain, or of a domain alone."""
    return mailbox_key("@" + address.rpartition("@")[2])[1:]


def has_one_spelling(address: str) -> bool:
    """Whether no other address is the same but for the case of ASCII letters, which any database knows."""
    return address.isascii() and _ACE not in address.lower()


def mailbox_spellings(address: str) -> list[str]:
    """What the same one may be kept as: its key first, then what earlier releases kept."""
    key = mailbox_key(address)
    if has_one_spelling(address):
        return [key]
    local, at, domain = key.rpartition("@")
    shown = f"{local}@{_unicode(domain)}" if at else key
    return list(dict.fromkeys([key, address.lower(), _composed(address), shown]))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def _ascii(domain: str) -> str:
    """What is no domain is left as it is: whoever is sent it judges."""
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except UnicodeError:
        return domain


def _unicode(domain: str) -> str:
    try:
        return idna.decode(domain)
    except UnicodeError:
        return domain
