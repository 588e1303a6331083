"""The canary: a certificate is served to a client of our own before it is served to anybody else's.

A server as ours listens on a free port of loopback for as long as that takes, and OpenSSL, which most mail programs
use, shakes hands with it by each name. So what only a client would notice (a certificate that is not for servers, a
signature that it does not take) is said while the old certificate serves on.

Not here: dates (`check`), and whether clients trust its CA: here the certificate itself is what is trusted.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from smtp_proxy.core import CertificateError, ConfigError, Server, ServerConfig
from smtp_proxy.errors import CertificateProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

# For one connection: a machine may be busy, but nothing here waits for a network.
_SECONDS: Final = 10.0
# For all names together: a reload, or a fleet's issuer, waits for it.
_TOTAL_SECONDS: Final = 30.0
_HOSTNAME: Final = "localhost"
# X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python has no name for.
_NO_DATES: Final = ssl.VerifyFlags(0x200000)


class NotTried(CertificateProblem):
    """Nothing is known against the certificate: this machine had no descriptor, thread, port or time left to try it."""


def try_out(chain: bytes, key: bytes, label: str, *, tls13_only: bool = False) -> None:
    """Serve a PEM chain and its PEM key on loopback, and connect by each of its names; `label` is named in errors.

    Raises:
        CertificateProblem: says what the core or the client does not like about it; NotTried: nobody was asked, or
            not by each name within `_TOTAL_SECONDS`.
    """
    until = time.monotonic() + _TOTAL_SECONDS
    leaf = _leaf(chain, label)
    names = _names(leaf) or [_HOSTNAME]
    with _serving(chain, key, label, tls13_only=tls13_only) as address:
        for name in names:
            _shake_hands(address, leaf, name, label, until)
        if not tls13_only:
            _shake_hands(address, leaf, names[0], label, until, newest=ssl.TLSVersion.TLSv1_2)


@contextlib.contextmanager
def _serving(chain: bytes, key: bytes, label: str, *, tls13_only: bool) -> Iterator[tuple[str, int]]:
    config = ServerConfig(
        hostname=_HOSTNAME,
        tls_address="127.0.0.1:0",
        certificates=[(chain, key, b"", label)],
        handshake_timeout_seconds=_SECONDS,
        command_timeout_seconds=_SECONDS,
        threads=1,
        tls13_only=tls13_only,
        ticket_seconds=0,
    )
    try:
        server = Server(config)
    except CertificateError as error:
        raise CertificateProblem(str(error)) from None
    except (OSError, RuntimeError) as error:
        raise _not_tried(label, error) from None
    try:
        try:
            address = server.start()["tls"]
        except (ConfigError, OSError, RuntimeError) as error:
            raise _not_tried(label, error) from None
        yield address
    finally:
        server.stop()


def _shake_hands(
    address: tuple[str, int],
    leaf: x509.Certificate,
    name: str,
    label: str,
    until: float,
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, newest
    context.load_verify_locations(cadata=leaf.public_bytes(serialization.Encoding.PEM).decode())
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | _NO_DATES
    context.check_hostname = bool(_names(leaf))
    seconds = min(_SECONDS, until - time.monotonic())
    if seconds <= 0:
        raise _not_tried(label, TimeoutError(f"not all of its names were asked for within {_TOTAL_SECONDS:g} s"))
    try:
        with (
            socket.create_connection(address, timeout=seconds) as plain,
            context.wrap_socket(plain, server_hostname=name) as wire,
        ):
            shown, said = wire.getpeercert(binary_form=True), wire.recv(4)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or str(error)
        raise CertificateProblem(f"{label}: a client that asks for {name} refuses it: {reason}") from None
    except OSError as error:
        raise _not_tried(label, error) from None
    if shown != leaf.public_bytes(serialization.Encoding.DER) or said != b"220 ":
        raise CertificateProblem(f"{label}: a client that asks for {name} is not served with it")


def _not_tried(label: str, error: Exception) -> NotTried:
    return NotTried(f"{label}: it could not be tried on loopback: {error}; it is tried again")


def _leaf(chain: bytes, label: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(chain)[0]
    except (ValueError, IndexError):
        raise CertificateProblem(f"{label}: it holds no PEM certificate, or half of one") from None


def _names(leaf: x509.Certificate) -> list[str]:
    """Names to ask for; one of each wildcard."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    dns = ["canary" + name[1:] if name.startswith("*.") else name for name in names.get_values_for_type(x509.DNSName)]
    return dns + [str(ipaddress.ip_address(str(each))) for each in names.get_values_for_type(x509.IPAddress)]
