"""Our own listeners, from outside: greeting, STARTTLS, a handshake without SNI, chain, name, days left, PROXY v2."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509

from smtp_proxy.doctor.dialogue import Dialogue, NotSmtp, connected, own_address
from smtp_proxy.doctor.finding import Finding, failed, ok, skipped, warning

if TYPE_CHECKING:
    from smtp_proxy.config import Settings
    from smtp_proxy.doctor.surroundings import Surroundings

# Certificates are renewed at a third of their life, which may be six days: by the days and by the share that are left.
_DAYS_FAILED: Final = 3
_SHARE_FAILED: Final = 0.1
_DAYS_WARNED: Final = 10
_SHARE_WARNED: Final = 0.25
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where such a listener is reached from here
# PROXY protocol 2.2: signature, version 2 and PROXY, TCP over IPv4, length; from 192.0.2.1 (RFC 5737) to 192.0.2.2.
_PROXY_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack(
    "!H4s4sHH", 12, b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02", 40_000, 587
)


@dataclass(frozen=True)
class Listener:
    """Where one is, and how TLS begins there."""

    name: str
    address: tuple[str, int]
    starttls: bool


async def examine(settings: Settings, around: Surroundings) -> list[Finding]:
    """Both of them, one after the other."""
    host = _ANY.get(settings.smtp_host, settings.smtp_host)
    listeners = (
        Listener("submission (STARTTLS)", around.starttls or (host, settings.smtp_starttls_port), starttls=True),
        Listener("submissions (TLS)", around.implicit or (host, settings.smtp_tls_port), starttls=False),
    )
    found: list[Finding] = []
    for listener in listeners:
        found.extend(await asyncio.to_thread(_all_of, listener, settings, around.ca_file))
    return found


def _all_of(listener: Listener, settings: Settings, ca_file: Path | None) -> list[Finding]:
    return list(_listener(listener, settings, ca_file))


def _listener(listener: Listener, settings: Settings, ca_file: Path | None) -> Iterator[Finding]:
    shown = f"{listener.name} at {listener.address[0]}:{listener.address[1]}"
    try:
        header, proxy = _proxy(listener, settings)
        yield proxy
        yield from _greeting(listener, shown, header)
        yield from _certificate(listener, shown, header, settings.hostname, ca_file)
    except (OSError, NotSmtp) as error:
        step = "is the service up, do its ports and security groups allow us, is it draining? See its log"
        if settings.smtp_proxy_protocol_networks:
            step += "; SMTP_PROXY_PROTOCOL_NETWORKS must name those who send a PROXY header, and no others"
        yield failed(f"{shown}: {error or type(error).__name__}", step)


def _proxy(listener: Listener, settings: Settings) -> tuple[bytes, Finding]:
    """What we have to send first, coming from where we come."""
    networks = [text for text in settings.smtp_proxy_protocol_networks.split(",") if text]
    if not networks:
        return b"", skipped("PROXY protocol: SMTP_PROXY_PROTOCOL_NETWORKS is empty, clients are seen by their address")
    ours = ipaddress.ip_address(own_address(listener.address))
    if any(ours in ipaddress.ip_network(network) for network in networks):
        return _PROXY_V2, ok(f"PROXY v2: {ours} is trusted, and the header is sent first")
    return b"", skipped(
        f"PROXY v2: {ours} is not in SMTP_PROXY_PROTOCOL_NETWORKS, so no header is sent and that is not tried",
        "run doctor from within these networks to have it tried",
    )


def _greeting(listener: Listener, shown: str, header: bytes) -> Iterator[Finding]:
    with connected(listener.address, header) as dialogue:
        if not listener.starttls:
            dialogue.start_tls(_anybody(), None)
        greeting = dialogue.expect(220)[0]
        extensions = {line.partition(" ")[0].upper() for line in dialogue.command("EHLO doctor.invalid", 250)[1:]}
        dialogue.command("QUIT", 221)
    yield ok(f"{shown} greets: {greeting}")
    if listener.starttls and "STARTTLS" not in extensions:
        yield failed(f"{shown} offers no STARTTLS", "set TLS_CERT_FILE and TLS_KEY_FILE, or TLS_CERT_DIR")
    if listener.starttls and "AUTH" in extensions:
        yield failed(f"{shown} offers AUTH in the clear", "something that is not smtp-proxy answers there: find it")


def _certificate(
    listener: Listener, shown: str, header: bytes, hostname: str, ca_file: Path | None
) -> Iterator[Finding]:
    with _secured(listener, header, _anybody(), None) as dialogue:
        certificate = x509.load_der_x509_certificate(dialogue.certificate())
    yield ok(f"{shown} shakes hands with a client that names no server (no SNI)")
    yield _days_left(shown, certificate, datetime.now(UTC))
    for name, what in ((None, "chain"), (hostname, f"name {hostname}")):
        context = ssl.create_default_context(cafile=ca_file)
        context.check_hostname = name is not None
        try:
            with _secured(listener, header, context, name):
                yield ok(f"{shown}: the certificate's {what} verifies")
        except ssl.SSLCertVerificationError as error:
            yield _unverified(shown, what, error, chain=name is None)
            return


def _unverified(shown: str, what: str, error: ssl.SSLCertVerificationError, *, chain: bool) -> Finding:
    text = f"{shown}: the certificate's {what} does not verify: {error.verify_message}"
    if chain:
        return failed(
            text, "put the intermediates into TLS_CERT_FILE (fullchain.pem), or name your own CA with --ca-file"
        )
    return failed(text, "have a certificate issued for SMTP_PROXY_HOSTNAME, or set that to a name of the certificate")


def _days_left(shown: str, certificate: x509.Certificate, now: datetime) -> Finding:
    left = certificate.not_valid_after_utc - now
    share = left / (certificate.not_valid_after_utc - certificate.not_valid_before_utc)
    days = left.total_seconds() / 86_400
    text = f"{shown}: the certificate is good for {days:.1f} days"
    step = "renew it, then `smtp-proxy certs reload`; see why that did not happen by itself"
    if days < _DAYS_FAILED and share < _SHARE_FAILED:
        return failed(text, step)
    return warning(text, step) if days < _DAYS_WARNED and share < _SHARE_WARNED else ok(text)


@contextlib.contextmanager
def _secured(listener: Listener, header: bytes, context: ssl.SSLContext, name: str | None) -> Iterator[Dialogue]:
    """A dialogue that is under TLS. Raises OSError, NotSmtp."""
    with connected(listener.address, header) as dialogue:
        if listener.starttls:
            dialogue.expect(220)
            dialogue.command("EHLO doctor.invalid", 250)
            dialogue.command("STARTTLS", 220)
        dialogue.start_tls(context, name)
        yield dialogue


def _anybody() -> ssl.SSLContext:
    """Whoever it is: what it shows is looked at afterwards."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
