"""A next hop and how to speak to it; and the way that all mail goes without further rules: the configured smarthost."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from smtp_proxy.delivery.pins import read_pins
from smtp_proxy.delivery.sign import usual_for
from smtp_proxy.errors import CertificateProblem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from pydantic import SecretStr

    from smtp_proxy.config import Settings
    from smtp_proxy.delivery.mx.dane import Tlsa
    from smtp_proxy.delivery.provider import Provider
    from smtp_proxy.delivery.sign import Dkim
    from smtp_proxy.delivery.token import TokenSource


# "starttls" is a must, whatever the certificate is worth to `tls_context`; "opportunistic" is TLS where it is offered,
# with any certificate, and else in clear (RFC 7435).
Wire: TypeAlias = Literal["none", "opportunistic", "starttls", "implicit"]

# The route that the settings make; always there.
SMARTHOST: Final = "smarthost"


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One next hop and how to speak to it. Time-outs as RFC 5321 4.5.3.2 asks."""

    host: str
    port: int
    tls: Wire
    client_name: str  # for EHLO
    username: str = ""
    password: SecretStr | None = None
    tls_context: ssl.SSLContext | None = field(default=None, repr=False)
    tls_pins: frozenset[str] = frozenset()  # one must be the server's; see `pins`
    connections: int = 16
    # Transactions at once and messages a minute over the fleet, of the destination and of each tenant at it; 0: any.
    fleet_connections: int = 0
    messages_per_minute: int = 0
    tenant_connections: int = 0
    tenant_messages_per_minute: int = 0
    messages_per_connection: int = 1000
    connection_max_seconds: float = 600.0  # older ones take no new message
    idle_seconds: float = 20.0
    connect_timeout_seconds: float = 30.0
    command_timeout_seconds: float = 300.0  # greeting, EHLO, AUTH, MAIL, RCPT, DATA, each block of data
    data_timeout_seconds: float = 600.0  # from the final dot to its reply (4.5.3.2.6)
    hide_client: bool = False  # in Received
    dkim: Dkim = "all"  # of our signatures, which it is given
    name: str = SMARTHOST  # of the rule in the routes file; stable, for limits, metrics and explanations
    domain: str = ""  # direct delivery: the recipients' domain, in ASCII
    token: TokenSource | None = field(default=None, repr=False)  # XOAUTH2 instead of a password
    dane: tuple[Tlsa, ...] = ()  # the server must show what one of these speaks of
    dane_name: str = ""  # whose records they are, where that is not `host` but what its CNAMEs led to
    # The addresses of `host`, where it is not the system's resolver that finds them. Raises DeliveryError.
    addresses: Callable[[], Awaitable[list[str]]] | None = field(default=None, repr=False)
    provider: Provider | None = field(default=None, repr=False)  # an API instead of SMTP
    login_refused: Callable[[], None] | None = field(default=None, repr=False)  # told, so that secrets are read again

    @property
    def is_limited(self) -> bool:
        """Whether any of the limits over the fleet is set."""
        return bool(
            self.fleet_connections
            or self.messages_per_minute
            or self.tenant_connections
            or self.tenant_messages_per_minute
        )

    @property
    def destination(self) -> tuple[str, str]:
        """What limits, back-off and metrics count by: the route's name, and the recipients' domain or the host."""
        return self.name, self.domain or self.host

    def setting(self, key: str) -> str:
        """What an operator sets: a key of this route in the routes file, or the same of the settings' smarthost."""
        return f"SMARTHOST_{key.upper()}" if self.name == SMARTHOST else f"routes.{self.name}.{key}"

    @property
    def remote(self) -> str:
        """host:port, as it is recorded."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent stays on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


def smarthost(settings: Settings) -> Route:
    """Read the smarthost from the settings. Raises CertificateProblem when its CA file cannot be used."""
    return Route(
        host=settings.smarthost_host,
        port=settings.smarthost_port,
        tls=settings.smarthost_tls,
        client_name=settings.hostname,
        username=settings.smarthost_username,
        password=settings.smarthost_password,
        tls_context=None if settings.smarthost_tls == "none" else tls_context(settings.smarthost_ca_file),
        tls_pins=read_pins(settings.smarthost_tls_pins),
        connections=settings.smarthost_connections,
        messages_per_connection=settings.smarthost_messages_per_connection,
        connection_max_seconds=settings.smarthost_connection_max_seconds,
        idle_seconds=settings.smarthost_idle_seconds,
        connect_timeout_seconds=settings.smarthost_connect_timeout_seconds,
        command_timeout_seconds=settings.smarthost_command_timeout_seconds,
        data_timeout_seconds=settings.smarthost_data_timeout_seconds,
        hide_client=settings.received_client_address == "hide",
        dkim=smarthost_dkim(settings),
    )


def smarthost_dkim(settings: Settings) -> Dkim:
    """Which of our signatures the smarthost of the settings is given."""
    return usual_for(settings.smarthost_host) if settings.smarthost_dkim == "auto" else settings.smarthost_dkim


def tls_context(ca_file: Path | None, setting: str = "SMARTHOST_CA_FILE") -> ssl.SSLContext:
    """Verify chain and name, TLS 1.2 or later; trust the system's CAs, or only those in `ca_file`."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise CertificateProblem(f"{setting} names {ca_file}, which cannot be used: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def unverified_context() -> ssl.SSLContext:
    """Encrypt, TLS 1.2 or later, and take any certificate: pins or TLSA records look at it, or nobody does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
