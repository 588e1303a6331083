"""The routes file as it is written: TOML, checked whole before any of it is used.

    default = "relay"

    [routes.relay]
    hosts = [{ host = "mx1.relay.example", port = 587, weight = 3 }, { host = "mx2.relay.example", priority = 20 }]
    tls = "verified"
    username = "acme"
    password = { file = "/run/secrets/relay" }

    [routes.direct]
    kind = "mx"

    [[rules]]
    domain = "*.example.org"
    tenant = "acme"
    routes = ["direct", "relay"]

docs/ROUTES.md explains every key. A message for the operator names the file and the key.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import idna
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from smtp_proxy import config_checks
from smtp_proxy.delivery.route import SMARTHOST
from smtp_proxy.delivery.routing.secret import SecretReference
from smtp_proxy.delivery.sign import Dkim, usual_for
from smtp_proxy.errors import ConfigurationError

Seconds = Annotated[float, Field(gt=0, le=3600)]
TlsPolicy = Literal["none", "opportunistic", "required", "verified", "implicit"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HostRule(_Strict):
    """One host of a smarthost list. The lowest `priority` first; among equals by chance, as often as `weight` says."""

    host: str
    port: int | None = Field(default=None, ge=1, le=65535)
    priority: int = Field(default=10, ge=0, le=65535)
    weight: int = Field(default=1, ge=1, le=65535)

    @field_validator("host")
    @classmethod
    def _one_word(cls, value: str) -> str:
        return config_checks.one_word(value)


class OauthRule(_Strict):
    """Client credentials (RFC 6749 4.4) for XOAUTH2."""

    token_url: str
    client_id: str = Field(min_length=1)
    client_secret: SecretReference
    scope: str = ""
    ca_file: Path | None = None

    @field_validator("token_url")
    @classmethod
    def _over_tls(cls, value: str) -> str:
        loopback = ("http://127.0.0.1", "http://localhost", "http://[::1]")
        if not value.startswith(("https://", *(f"{start}{end}" for start in loopback for end in ":/"))):
            raise ValueError("must begin with https://, since the client's secret goes there (RFC 6749 3.2)")
        return value


class SesRule(_Strict):
    """Amazon SES API v2. `tenants` maps our tenants to tenants of SES; one that is not named goes without."""

    region: str = Field(min_length=1)
    endpoint_url: str | None = None
    configuration_set: str | None = None
    tenants: dict[str, str] = {}
    from_arn: str | None = None
    max_rate_per_second: float = Field(default=14.0, gt=0, description="of recipients; where the own pace begins")


class RouteRule(_Strict):
    """One way out. Keys that do not belong to its kind are refused."""

    kind: Literal["smarthost", "mx", "ses"] = "smarthost"
    hosts: tuple[HostRule, ...] = ()
    port: int | None = Field(default=None, ge=1, le=65535)
    tls: TlsPolicy | None = None
    tls_pins: tuple[str, ...] = ()
    ca_file: Path | None = None
    username: str = ""
    password: SecretReference | None = None
    oauth: OauthRule | None = None
    mx_names: tuple[str, ...] = ()
    mta_sts: bool = True
    dane: bool = True
    private_addresses: bool = False
    address_literals: bool = True
    ses: SesRule | None = None
    dkim: Dkim | None = Field(default=None, description="none given: all, and none where the next hop is SES")
    connections: int = Field(default=16, ge=1, le=10_000)
    fleet_connections: int = Field(default=0, ge=0, description="transactions at once, all workers; 0: any")
    messages_per_minute: int = Field(default=0, ge=0, description="all workers; 0: any")
    tenant_connections: int = Field(default=0, ge=0)
    tenant_messages_per_minute: int = Field(default=0, ge=0)
    messages_per_connection: int = Field(default=1000, ge=1)
    connection_max_seconds: Seconds = 600.0
    idle_seconds: Seconds = 20.0
    connect_timeout_seconds: Seconds = 30.0
    command_timeout_seconds: Seconds = 300.0
    data_timeout_seconds: Seconds = 600.0

    @property
    def policy(self) -> TlsPolicy:
        return self.tls or ("opportunistic" if self.kind == "mx" else "verified")

    def signatures_for(self, host: str) -> Dkim:
        """Which of our DKIM signatures a next hop of this route is given."""
        return self.dkim or ("none" if self.kind == "ses" else usual_for(host))

    @field_validator("tls_pins")
    @classmethod
    def _pins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pin in value:
            config_checks.pins(pin)
        return value

    @field_validator("hosts", mode="before")
    @classmethod
    def _hosts_may_be_text(cls, value: Any) -> Any:
        """`"host"` and `"host:port"` stand for a table."""
        return [_host_table(entry) if isinstance(entry, str) else entry for entry in value]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for trouble in (self._kind_trouble(), self._tls_trouble(), self._login_trouble()):
            if trouble:
                raise ValueError(trouble)
        return self

    def _kind_trouble(self) -> str | None:
        if self.kind == "smarthost" and not self.hosts:
            return 'a smarthost needs hosts = ["HOST:PORT"]'
        if self.kind != "smarthost" and self.hosts:
            return f"hosts belongs to kind = smarthost, not to {self.kind}"
        if (self.kind == "ses") != (self.ses is not None):
            return 'kind = "ses" and a table ses = { region = "…" } go together'
        given = {"mx_names", "mta_sts", "dane", "private_addresses", "address_literals"} & self.model_fields_set
        if self.kind != "mx" and given:
            return f"{', '.join(sorted(given))}: for kind = mx only"
        return None

    def _tls_trouble(self) -> str | None:
        if self.kind == "mx" and self.policy == "implicit":
            return "tls = implicit is no way to speak to an MX: use required, or verified with mx_names"
        if self.kind == "mx" and self.policy == "verified" and not self.mx_names:
            return (
                "tls = verified needs mx_names: the name of an MX host comes from DNS, which nobody signed, so a "
                "certificate in that name proves nothing until you say which names are right"
            )
        if self.mx_names and self.policy != "verified":
            return "mx_names needs tls = verified"
        if self.tls_pins and self.policy in ("none", "opportunistic"):
            return f"tls_pins needs tls = required, verified or implicit, not {self.policy}"
        return None

    def _login_trouble(self) -> str | None:
        if (self.password or self.oauth) and not self.username:
            return "password and oauth need a username"
        if self.username and (self.password is None) == (self.oauth is None):
            return 'username needs either password = { file = "…" } or a table oauth'
        if self.username and self.kind != "smarthost":
            return "username is for kind = smarthost only"
        safe = self.policy in ("verified", "implicit") or (self.policy == "required" and self.tls_pins)
        if self.username and not safe and not all(_is_loopback(host.host) for host in self.hosts):
            return (
                f"with tls = {self.policy} anyone between could read the password: use verified, implicit or tls_pins"
            )
        return None


class DomainRule(_Strict):
    """Which routes mail takes: of one tenant or all, to one domain, its subdomains (`*.`) or any (`*`)."""

    tenant: str | None = Field(default=None, min_length=1)
    domain: str = "*"
    routes: tuple[str, ...] = Field(min_length=1)

    @field_validator("domain")
    @classmethod
    def _domain(cls, value: str) -> str:
        prefix, rest = ("*.", value[2:]) if value.startswith("*.") else ("", value)
        return value if value == "*" else prefix + ascii_domain(rest)


class RoutesFile(_Strict):
    """The whole file."""

    default: str | tuple[str, ...] = ()
    routes: dict[str, RouteRule] = {}
    rules: tuple[DomainRule, ...] = ()

    @property
    def default_routes(self) -> tuple[str, ...]:
        return (self.default,) if isinstance(self.default, str) else self.default

    @property
    def secrets(self) -> list[SecretReference]:
        """All that it points to."""
        found = [rule.oauth.client_secret if rule.oauth else rule.password for rule in self.routes.values()]
        return [secret for secret in found if secret is not None]

    @property
    def files(self) -> list[Path]:
        """All that it names: of secrets and of CAs."""
        rules = self.routes.values()
        cas = [*(rule.ca_file for rule in rules), *(rule.oauth.ca_file for rule in rules if rule.oauth is not None)]
        return [path for path in (*cas, *(secret.file for secret in self.secrets)) if path is not None]

    @model_validator(mode="after")
    def _names_are_there(self) -> Self:
        for where, names in [
            ("default", self.default_routes),
            *((f"rules.{i}", r.routes) for i, r in enumerate(self.rules)),
        ]:
            for name in names:
                if name not in self.routes and name != SMARTHOST:
                    known = ", ".join([*self.routes, SMARTHOST])
                    raise ValueError(f"{where} names the route {name!r}, which is not there; there are {known}")
        if SMARTHOST in self.routes:
            raise ValueError(f"routes.{SMARTHOST} is the one that the settings SMARTHOST_… make: choose another name")
        twice = [
            r
            for i, r in enumerate(self.rules)
            if (r.tenant, r.domain) in {(o.tenant, o.domain) for o in self.rules[:i]}
        ]
        if twice:
            raise ValueError(f"two rules for domain {twice[0].domain} of tenant {twice[0].tenant or '(any)'}")
        return self


def read_routes(file: Path) -> RoutesFile:
    """Read and check the routes file. Raises ConfigurationError, which names the file and each key at fault."""
    try:
        raw = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"ROUTES_FILE={file} can not be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"ROUTES_FILE={file} is no TOML: {error}") from None
    try:
        return RoutesFile.model_validate(raw)
    except ValidationError as error:
        raise ConfigurationError(f"ROUTES_FILE={file}: {_explained(error)}") from None


def ascii_domain(text: str) -> str:
    """A domain in A-labels and lower case. Raises ValueError."""
    try:
        return idna.encode(text.rstrip("."), uts46=True).decode().lower() if not text.isascii() else _plain(text)
    except (idna.IDNAError, UnicodeError) as error:
        raise ValueError(f"{text!r} is no domain: {error}") from None


def _plain(text: str) -> str:
    name = text.rstrip(".").lower()
    if not name or len(name) > 253 or any(not 0 < len(label) < 64 for label in name.split(".")):
        raise ValueError(f"{text!r} is no domain")
    return name


def _explained(error: ValidationError) -> str:
    """Every trouble with its key. The value is not repeated: it may be a password in the wrong place."""
    return "; ".join(
        f"{'.'.join(map(str, trouble['loc'])) or 'the file'}: {trouble['msg'].removeprefix('Value error, ')}"
        for trouble in error.errors(include_url=False, include_input=False)
    )


def _host_table(text: str) -> dict[str, object]:
    host, colon, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        return {"host": text[1:-1]}
    if not colon or (":" in host and not host.startswith("[")):
        return {"host": text}
    return {"host": host.removeprefix("[").removesuffix("]"), "port": port}


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
