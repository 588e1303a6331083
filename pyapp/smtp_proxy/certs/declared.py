"""Which certificates are wanted, as ACME_CERTIFICATES says.

Such as `mx=mx.example.com,mail.example.com *.example.com@dns-01`.
"""

from __future__ import annotations

import re
from typing import Final

import idna

from smtp_proxy.certfiles.files import folder_name
from smtp_proxy.errors import CertificateProblem, ConfigurationError
from smtp_proxy.model.certificate import CertificateOrder, Challenge

_CHALLENGES: Final[dict[str, Challenge]] = {"http-01": "http-01", "dns-01": "dns-01"}
_NAME: Final = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")


def declared(text: str) -> list[CertificateOrder]:
    """Read the setting. Raises ConfigurationError: names what is wrong."""
    orders: dict[str, CertificateOrder] = {}
    for word in text.split():
        try:
            order = _read(word)
        except CertificateProblem as error:
            raise ConfigurationError(f"ACME_CERTIFICATES: {error}") from None
        if order.name in orders:
            raise ConfigurationError(f"ACME_CERTIFICATES: {order.name} is there twice; write NAME=… for one of them")
        orders[order.name] = order
    return list(orders.values())


def make_order(name: str, names: list[str], challenge: str = "", declared_by: str = "operator") -> CertificateOrder:
    """Check and normalise. `name` "": the first of the names; `challenge` "": DNS-01 for wildcards, else HTTP-01.

    Raises CertificateProblem.
    """
    clean = tuple(dict.fromkeys(_host(each) for each in names))
    if not clean:
        raise CertificateProblem("no name is given")
    wild = any(each.startswith("*.") for each in clean)
    kind = _CHALLENGES.get(challenge or ("dns-01" if wild else "http-01"))
    if kind is None:
        raise CertificateProblem(f"challenge {challenge!r}: write http-01 or dns-01")
    if wild and kind == "http-01":
        raise CertificateProblem("a wildcard needs dns-01 (RFC 8555 8.4)")
    by = "file" if declared_by == "file" else "operator"
    return CertificateOrder(folder_name(name or clean[0]), clean, kind, by)  # type: ignore[arg-type]


def _read(word: str) -> CertificateOrder:
    rest, _, challenge = word.partition("@")
    name, equals, names = rest.partition("=")
    wanted = (names if equals else rest).split(",")
    return make_order(name if equals else "", [each for each in wanted if each], challenge, "file")


def _host(name: str) -> str:
    wild, bare = ("*.", name[2:]) if name.startswith("*.") else ("", name)
    try:
        found = wild + idna.encode(bare.rstrip("."), uts46=True).decode("ascii")
    except idna.IDNAError:
        found = ""
    if not _NAME.fullmatch(found) or len(found) > 253:
        raise CertificateProblem(f"{name!r} is no DNS name that a CA certifies")
    return found
