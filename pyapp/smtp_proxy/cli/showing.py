"""`smtp-proxy certs show`: one certificate as its files are, and whether the running service shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from smtp_proxy.cli import control
from smtp_proxy.cli.arguments import JsonOption, settings_of
from smtp_proxy.cli.output import make_table, print_json, print_table, when
from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.delivery.pins import pin_of
from smtp_proxy.errors import ControlUnreachable, NotFound
from smtp_proxy.ingress import certificates
from smtp_proxy.ingress.ocsp import Staple

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its folder in TLS_CERT_DIR, or a name it is for.")]


def show(context: typer.Context, name: NameArgument, as_json: JsonOption = False) -> None:
    """Show one certificate of TLS_CERT_FILE or TLS_CERT_DIR: names, dates, key, pin, OCSP; never its key."""
    settings, now = settings_of(context), SystemClock().now()
    pair = next((p for p in certificates.read(settings, now).pairs if certificates.is_called(p, name)), None)
    if pair is None:
        raise NotFound(f"no certificate of TLS_CERT_FILE or TLS_CERT_DIR is {name!r} or for it; see `certs list`")
    facts = describe(pair, now)
    facts["served"] = _is_served(settings, facts["fingerprint"])
    if as_json:
        print_json(facts)
        return
    table = make_table("", "")
    for fact, value in facts.items():
        table.add_row(fact.replace("_", " "), _text(value))
    print_table(table)


def describe(pair: certificates.Pair, now: datetime) -> dict[str, Any]:
    """What a certificate says of itself. Raises NotFound: it can not be read."""
    try:
        leaf = x509.load_pem_x509_certificates(pair.chain)[0]
    except ValueError:
        raise NotFound(f"{pair.label}: there is no PEM certificate in it, or half of one") from None
    return {
        "file": pair.label,
        "names": certificates.served_names(pair.chain),
        "issuer": leaf.issuer.rfc4514_string(),
        "not_before": leaf.not_valid_before_utc,
        "not_after": leaf.not_valid_after_utc,
        "days_left": round((leaf.not_valid_after_utc - now).total_seconds() / 86_400, 1),
        "key": _key(leaf),
        "fingerprint": leaf.fingerprint(hashes.SHA256()).hex(),
        "spki_pin": pin_of(leaf.public_bytes(serialization.Encoding.DER)),
        "ocsp": _ocsp(pair.staple),
    }


def _key(leaf: x509.Certificate) -> str:
    key = leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    return f"RSA {key.key_size}" if isinstance(key, rsa.RSAPublicKey) else type(key).__name__


def _ocsp(staple: Staple) -> str:
    if staple.refused:
        return f"not stapled: {staple.refused}"
    return f"stapled until {when(staple.until)}" if staple.response else "none"


def _is_served(settings: Settings, fingerprint: str) -> bool | None:
    """None: no service answers here."""
    try:
        answer = control.ask(settings.control_socket, "certificates")
    except ControlUnreachable:
        return None
    return any(each["fingerprint"] == fingerprint for each in answer["certificates"])


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "no service answers"}[value]
    if isinstance(value, list):
        return ", ".join(value)
    return when(value) if isinstance(value, datetime) else str(value)
