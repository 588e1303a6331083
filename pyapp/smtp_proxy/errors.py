"""The one exception tree of smtp-proxy.

    SmtpProxyError
    ├── ConfigurationError      operator: a setting is missing or wrong
    │   └── SecretMissing       operator: there is no such secret in Secrets Manager, or it has no value yet
    ├── InvalidValue            client: a name, id or filter that can not be used
    ├── StoreError              Postgres
    │   ├── StoreUnavailable    temporary: cannot be reached or cannot commit now
    │   │   ├── StoreMisconfigured  operator: reached, but user, password, database or rights are wrong
    │   │   └── SchemaBusy      temporary: others hold the locks that a change of the schema needs
    │   ├── SchemaMismatch      operator: migrations are missing or newer than this release
    │   │   └── SchemaMissing   operator: no migration was ever applied
    │   ├── NotFound            client: no such tenant, credential or message
    │   └── AlreadyExists       client: the name is taken
    ├── StreamUnavailable       temporary: Redis/Valkey cannot be reached; mail is accepted all the same
    ├── SecretUnavailable       temporary: Secrets Manager does not answer
    ├── DeliveryError           remote: what the next hop did; see `delivery.classify`
    ├── CertificateProblem      operator: a certificate or key file cannot be used
    ├── IssuanceFailed          remote: a CA did not issue, or could not be asked
    ├── ControlUnreachable      us: no service answers at its control socket
    ├── DeployFailed            us: a new release did not come into service
    │   └── DeployUnfinished    temporary: it goes on at AWS, and is not waited for any more
    └── ServiceFailed           us: a service or one of its parts ended without being asked to

Each class says whose `fault` it is and whether trying again may help (`temporary`): fields, never text to
search. The docstring is the default message. A message names the file, the setting and the next step, and
never holds a secret.
"""

from __future__ import annotations

import inspect
from datetime import datetime
from typing import ClassVar, Literal

Fault = Literal["client", "remote", "operator", "us"]


class SmtpProxyError(Exception):
    """Something went wrong in smtp-proxy."""

    fault: ClassVar[Fault] = "us"
    temporary: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)


class ConfigurationError(SmtpProxyError):
    """A setting is missing or has a value that can not be used."""

    fault = "operator"


class SecretMissing(ConfigurationError):
    """A setting names a secret that is not there, or has no value yet."""


class InvalidValue(SmtpProxyError):
    """A name, id or filter that can not be used."""

    fault = "client"


class StoreError(SmtpProxyError):
    """The database refused what was asked of it."""


class StoreUnavailable(StoreError):
    """The database can not be reached, or can not commit at present."""

    temporary = True

    def __init__(self, message: str | None = None, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate  # None: the server did not say


class StoreMisconfigured(StoreUnavailable):
    """The database turned us away: see DB_USER, DB_PASSWORD, DB_NAME."""

    fault = "operator"
    temporary = False


class SchemaBusy(StoreUnavailable):
    """Others hold the locks that a change of the schema needs; nothing was changed."""


class SchemaMismatch(StoreError):
    """The database schema is not the one this release needs; run `smtp-proxy migrate`."""

    fault = "operator"


class SchemaMissing(SchemaMismatch):
    """The database has no schema yet; run `smtp-proxy migrate`."""


class NotFound(StoreError):
    """There is no such record."""

    fault = "client"


class AlreadyExists(StoreError):
    """A record of that name exists already."""

    fault = "client"


class StreamUnavailable(SmtpProxyError):
    """Redis can not be reached at present; accepted mail waits in Postgres until the sweeper publishes it."""

    temporary = True


class SecretUnavailable(SmtpProxyError):
    """A setting's value can not be read from Secrets Manager at present."""

    temporary = True


class DeliveryError(SmtpProxyError):
    """The next hop did not take the message."""

    fault = "remote"
    temporary = True


class CertificateProblem(SmtpProxyError):
    """A certificate or its key can not be used."""

    fault = "operator"


class IssuanceFailed(SmtpProxyError):
    """The CA did not issue a certificate."""

    fault = "remote"
    temporary = True

    def __init__(self, message: str | None = None, *, code: str = "", retry_after: datetime | None = None) -> None:
        super().__init__(message)
        self.code = code  # RFC 8555 6.7, such as rateLimited; "": the CA did not say
        self.retry_after = retry_after  # the CA is not to be asked before; None: it did not say


class ControlUnreachable(SmtpProxyError):
    """No service answers at its control socket."""

    temporary = True


class DeployFailed(SmtpProxyError):
    """The new release did not come into service."""


class DeployUnfinished(DeployFailed):
    """The deployment goes on at AWS, and is not waited for any more."""

    temporary = True


class ServiceFailed(SmtpProxyError):
    """A service ended without being asked to."""
