"""From a host name to a session one can send on: TCP, TLS, EHLO, AUTH.

Two promises are kept here. What was asked to be encrypted is never sent in the clear: without
STARTTLS there is no session. And a password crosses a plain connection only if `--tls none` was
asked for and every address of the host is on this machine.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from smtp_proxy_client import pins
from smtp_proxy_client.errors import (
    AuthFailed,
    ClientError,
    ConnectionFailed,
    Refused,
    TlsFailed,
    UsageError,
)
from smtp_proxy_client.reply import Reply
from smtp_proxy_client.stats import Timings, timed
from smtp_proxy_client.wire import Wire

# RFC 4954 4: 334 asks for the next part of a login; RFC 4954 6: 504 is an unknown mechanism.
CONTINUE_LOGIN = 334
UNKNOWN_MECHANISM = 504
SERVICE_CLOSING = 421

# What getaddrinfo yields; the last kind is for a Python without IPv6.
SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


class TlsMode(StrEnum):
    """How the connection is encrypted."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"

    @property
    def default_port(self) -> int:
        """RFC 6409 submission, RFC 8314 submissions, and plain SMTP."""
        return {TlsMode.STARTTLS: 587, TlsMode.IMPLICIT: 465, TlsMode.NONE: 25}[self]


class Mechanism(StrEnum):
    """How to log in; `auto` takes PLAIN where it is offered, else LOGIN."""

    AUTO = "auto"
    PLAIN = "plain"
    LOGIN = "login"


@dataclass(frozen=True)
class Secret:
    """A password that does not show in a repr, a log line or a traceback."""

    _value: str

    def reveal(self) -> str:
        """The password itself, for the wire."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


@dataclass(frozen=True)
class Login:
    """Who logs in, and how."""

    user: str
    password: Secret
    mechanism: Mechanism = Mechanism.AUTO


@dataclass(frozen=True)
class Target:
    """Where to connect to and what to insist on."""

    host: str
    port: int
    tls: TlsMode = TlsMode.STARTTLS
    login: Login | None = None
    ca_file: Path | None = None
    insecure: bool = False
    server_name: str = ""
    timeout_seconds: float = 30.0
    pins: tuple[str, ...] = ()

    @property
    def expected_name(self) -> str:
        """The name that is sent as SNI and that the certificate must hold."""
        return (self.server_name or self.host).removesuffix(".")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Session:
    """A greeted, encrypted and logged-in connection."""

    def __init__(self, wire: Wire, extensions: dict[str, str]) -> None:
        self.wire = wire
        self.extensions = extensions
        self.mechanism: str | None = None
        self.is_usable = True

    @property
    def tls_version(self) -> str | None:
        """As `TLSv1.3`, or nothing on a plain connection."""
        return self.wire.tls.version() if self.wire.tls else None

    @property
    def tls_cipher(self) -> str | None:
        """OpenSSL's name of the cipher suite."""
        cipher = self.wire.tls.cipher() if self.wire.tls else None
        return cipher[0] if cipher else None

    def expect_ok(self, reply: Reply, *codes: int) -> Reply:
        """The reply if it is positive, or one of the codes; else the error that it is."""
        if reply.code in codes or (not codes and reply.is_positive):
            return reply
        if reply.code == SERVICE_CLOSING:
            self.is_usable = False
        raise Refused(reply)

    def quit(self) -> None:
        """Part politely where that is still possible; never fails."""
        if self.is_usable:
            with suppress(ClientError):
                self.wire.command("QUIT")
        self.wire.close()


class Dialer:
    """Opens sessions to one target. Threads may share it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._context = tls_context(target)

    def dial(self, timings: Timings) -> Session:
        """A session, logged in if the target says so; the phases' times go to `timings`."""
        with self._connected(timings, self._context) as session:
            if self.target.login:
                with timed(timings, "auth"):
                    log_in(session, self.target.login)
            return session

    def unverified_certificate(self) -> bytes:
        """The certificate (DER) that the server shows, whatever it is worth. Nothing is sent."""
        with self._connected({}, insecure_context()) as session:
            certificate = session.wire.tls.getpeercert(binary_form=True) if session.wire.tls else None
            session.wire.close()
        if not certificate:
            raise TlsFailed("the server shows no certificate")
        return certificate

    @contextmanager
    def _connected(self, timings: Timings, context: ssl.SSLContext) -> Iterator[Session]:
        """A session before login, closed again if anything goes wrong up to the end of the block."""
        with timed(timings, "connect"):
            wire = Wire(self._connect(), self.target.timeout_seconds)
        try:
            yield self._greeted(wire, timings, context)
        except BaseException:
            wire.close()
            raise

    def _greeted(self, wire: Wire, timings: Timings, context: ssl.SSLContext) -> Session:
        session = Session(wire, {})
        if self.target.tls is TlsMode.IMPLICIT:
            with timed(timings, "tls"):
                self._start_tls(wire, context)
        with timed(timings, "hello"):
            self._read_greeting(session)
            say_hello(session)
        if self.target.tls is TlsMode.STARTTLS:
            with timed(timings, "tls"):
                self._ask_for_tls(session)
                self._start_tls(wire, context)
            with timed(timings, "hello"):
                # RFC 3207 4.2: what was learned before TLS must be forgotten.
                say_hello(session)
        return session

    def _connect(self) -> socket.socket:
        """Try the host's addresses in turn."""
        addresses = self._addresses()
        problems = []
        for family, address in addresses:
            try:
                return connected(family, address, self.target.timeout_seconds)
            except OSError as error:
                problems.append(f"{address[0]}: {error.strerror or 'timed out'}")
        raise ConnectionFailed(
            f"cannot connect to {self.target} ({'; '.join(problems)})",
            hint="is the server running, and is --port right?",
        )

    def _addresses(self) -> Sequence[tuple[socket.AddressFamily, SocketAddress]]:
        try:
            found = socket.getaddrinfo(self.target.host, self.target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "not a host name"
            raise ConnectionFailed(f"cannot look up {self.target.host!r}: {reason}") from error
        addresses = [(family, address) for family, _, _, _, address in found]
        if self.target.login and self.target.tls is TlsMode.NONE:
            refuse_plain_login(self.target, [str(address[0]) for _, address in addresses])
        return addresses

    def _read_greeting(self, session: Session) -> None:
        try:
            session.expect_ok(session.wire.read_reply(), 220)
        except ConnectionFailed as error:
            if self.target.tls is not TlsMode.IMPLICIT:
                error.hint = "does this port expect TLS from the start? Then --tls implicit"
            raise

    def _ask_for_tls(self, session: Session) -> None:
        if "STARTTLS" not in session.extensions:
            raise TlsFailed(
                f"{self.target} offers no STARTTLS",
                hint="nothing was sent in the clear; --tls implicit, or --tls none for a plain test",
            )
        reply = session.wire.command("STARTTLS")
        if reply.code != 220:  # RFC 3207 4
            raise TlsFailed(f"STARTTLS refused: {reply.text}", temporary=reply.is_temporary)

    def _start_tls(self, wire: Wire, context: ssl.SSLContext) -> None:
        try:
            wire.start_tls(context, self.target.expected_name)
            if context is self._context and self.target.pins:
                pins.check(self.target.pins, wire.tls.getpeercert(binary_form=True) if wire.tls else None)
        except (ValueError, UnicodeError) as error:
            name = self.target.expected_name
            raise UsageError(f"{name!r} cannot be the name of a server: {error}") from error
        except TlsFailed as error:
            if self.target.tls is TlsMode.IMPLICIT and "wrong version" in error.reason:
                error.hint = "the port speaks before TLS; does it want --tls starttls?"
            raise


def connected(family: socket.AddressFamily, address: SocketAddress, timeout_seconds: float) -> socket.socket:
    """A connection to one address. An OSError may also mean no such family here, or too many open files."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_seconds)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def tls_context(target: Target) -> ssl.SSLContext:
    """The rules for the handshake."""
    if target.insecure:
        return insecure_context()
    try:
        context = ssl.create_default_context(cafile=target.ca_file)
    except ssl.SSLError as error:
        raise UsageError(f"--ca-file: {target.ca_file} holds no PEM certificate") from error
    except OSError as error:
        raise UsageError(f"--ca-file: cannot read {target.ca_file}: {error.strerror}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def insecure_context() -> ssl.SSLContext:
    """Encrypts, and believes anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def refuse_plain_login(target: Target, addresses: list[str]) -> None:
    """Without TLS a password may travel within this machine only."""
    far = [a for a in addresses if not ipaddress.ip_address(a.partition("%")[0]).is_loopback]
    if far:
        raise UsageError(
            f"refusing to log in without TLS: {target.host} is {far[0]}, not this machine",
            hint="use --tls starttls or --tls implicit, or leave out --user",
        )


def say_hello(session: Session) -> None:
    """EHLO; the extensions offered become the session's."""
    reply = session.expect_ok(session.wire.command(f"EHLO {own_name(session.wire.local_address)}"))
    session.extensions = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = line.partition(" ")
        session.extensions[keyword.upper()] = parameters


def own_name(local_address: str) -> str:
    """RFC 5321 4.1.4: this host's full name, or else its address as a literal."""
    name = socket.gethostname()
    if "." in name.strip(".") and name.isascii() and name.replace(".", "").replace("-", "").isalnum():
        return name
    prefix = "IPv6:" if ":" in local_address else ""
    return f"[{prefix}{local_address.partition('%')[0]}]"


def log_in(session: Session, login: Login) -> None:
    """AUTH with the mechanism asked for; with `auto`, LOGIN also where the server takes no PLAIN."""
    offered = session.extensions.get("AUTH", "").upper().split()
    candidates = [m for m in (Mechanism.PLAIN, Mechanism.LOGIN) if m.upper() in offered]
    if login.mechanism is not Mechanism.AUTO:
        candidates = [m for m in candidates if m is login.mechanism]
    if not candidates:
        wanted = "PLAIN or LOGIN" if login.mechanism is Mechanism.AUTO else login.mechanism.upper()
        shown = f"AUTH {' '.join(offered)}" if offered else "no AUTH at all"
        raise AuthFailed(f"the server offers {shown}; wanted {wanted}", hint="see --auth")
    for mechanism in candidates:
        reply = attempt(session, mechanism, login)
        if reply.is_positive:
            session.mechanism = mechanism.upper()
            return
        # Only an unknown mechanism is worth a second try: a wrong password stays wrong, and
        # repeating it may lock the account.
        if reply.code != UNKNOWN_MECHANISM:
            break
    raise AuthFailed(
        f"AUTH {mechanism.upper()} refused: {reply.text}",
        hint=f"the user was {login.user!r}; check it and the password",
        temporary=reply.is_temporary,
        reply=reply,
    )


def attempt(session: Session, mechanism: Mechanism, login: Login) -> Reply:
    """One AUTH dialog; the reply that ended it, freed of anything secret."""
    password = login.password.reveal()
    identity = base64_of(f"\0{login.user}\0{password}")
    if mechanism is Mechanism.PLAIN:
        # RFC 4616 2, with the initial response of RFC 4954 4.
        reply = session.wire.command(f"AUTH PLAIN {identity}")
    else:
        reply = session.wire.command("AUTH LOGIN")
        for part in (login.user, password):
            if reply.code == CONTINUE_LOGIN:
                reply = session.wire.command(base64_of(part))
    if reply.code == CONTINUE_LOGIN:
        session.wire.command("*")  # RFC 4954 4: cancel a dialog that asks for more.
    return reply.without(password, base64_of(password), identity)


def base64_of(text: str) -> str:
    """As AUTH wants it."""
    return base64.b64encode(text.encode()).decode()
