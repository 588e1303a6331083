"""Tenants, credentials, and the certificates that clients log in by: the part of `Store` that people change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from smtp_proxy.errors import NotFound
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.limits import TenantLimits
from smtp_proxy.model.policy import TenantPolicy
from smtp_proxy.model.tenant import CertificateIdentity, Credential, Network, Tenant
from smtp_proxy.store import lookup
from smtp_proxy.store.ids import new_id
from smtp_proxy.store.listen import CERTIFICATES_CHANNEL, CREDENTIALS_CHANNEL, listen
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.store.pool import Connection

_T = TypeVar("_T")


class Accounts:
    """A part of `Store`, which brings the connections."""

    _settings: Settings
    _clock: Clock

    def _connection(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError

    # -- tenants and credentials

    async def create_tenant(self, name: str) -> Tenant:
        """Raises AlreadyExists."""
        async with self._connection(f"creating tenant {name}") as connection:
            row = await connection.fetchrow(QUERIES["create_tenant"], new_id(self._clock.now()), name)
        return lookup.tenant(present(row, name))

    async def list_tenants(self) -> list[Tenant]:
        """All, by name."""
        async with self._connection("listing tenants") as connection:
            return [lookup.tenant(row) for row in await connection.fetch(QUERIES["list_tenants"])]

    async def tenant_by_name(self, name: str) -> Tenant:
        """Raises NotFound."""
        async with self._connection(f"looking up tenant {name}") as connection:
            return lookup.tenant(present(await connection.fetchrow(QUERIES["tenant_by_name"], name), f"tenant {name}"))

    async def limited_tenants(self) -> list[Tenant]:
        """Those that have a limit."""
        async with self._connection("listing tenants' limits") as connection:
            return [lookup.tenant(row) for row in await connection.fetch(QUERIES["limited_tenants"])]

    async def set_tenant_limits(self, name: str, limits: TenantLimits) -> Tenant:
        """Replace all of them; every process hears of it. Raises NotFound."""
        values = (limits.messages_per_minute, limits.recipients_per_minute, limits.sessions, limits.at_limit.value)
        async with self._connection(f"limiting tenant {name}") as connection:
            row = await connection.fetchrow(QUERIES["set_tenant_limits"], name, *values)
        return lookup.tenant(present(row, f"tenant {name}"))

    async def tenant_policy(self, name: str) -> TenantPolicy:
        """Raises NotFound."""
        async with self._connection(f"looking up the policy of tenant {name}") as connection:
            row = await connection.fetchrow(QUERIES["tenant_policy"], name)
        return lookup.policy(present(row, f"tenant {name}"))

    async def set_tenant_policy(self, name: str, policy: TenantPolicy) -> TenantPolicy:
        """Replace all of it; every process hears of it. Raises NotFound."""
        values = (
            policy.on_unknown.value,
            policy.idempotency_seconds,
            policy.max_age_seconds,
            policy.reports.value,
            policy.suppress_hard_bounces,
            int(policy.lane),
        )
        async with self._connection(f"changing the policy of tenant {name}") as connection:
            row = await connection.fetchrow(QUERIES["set_tenant_policy"], name, *values)
        return lookup.policy(present(row, f"tenant {name}"))

    async def create_credential(
        self,
        tenant_id: UUID,
        username: str,
        password_hash: str,
        allowed_senders: Sequence[str] = (),
        allowed_networks: Sequence[Network] = (),
    ) -> Credential:
        """Raises AlreadyExists when any tenant has that username."""
        async with self._connection(f"creating credential {username}") as connection:
            row = await connection.fetchrow(
                QUERIES["create_credential"],
                new_id(self._clock.now()),
                tenant_id,
                username,
                password_hash,
                allowed_senders,
                allowed_networks,
            )
        return lookup.credential(present(row, username))

    async def list_credentials(self, tenant_id: UUID | None = None) -> list[Credential]:
        """Of one tenant or of all, by username."""
        async with self._connection("listing credentials") as connection:
            return [lookup.credential(row) for row in await connection.fetch(QUERIES["list_credentials"], tenant_id)]

    async def credential_by_username(self, username: str) -> Credential | None:
        """Disabled ones too (a disabled tenant's credentials are disabled); None when there is none."""
        async with self._connection("looking up a credential") as connection:
            row = await connection.fetchrow(QUERIES["credential_by_username"], username)
        return None if row is None else lookup.credential(row)

    async def disable_credential(self, username: str) -> Credential:
        """Raises NotFound."""
        return await self._change_credential("disable_credential", username)

    async def enable_credential(self, username: str) -> Credential:
        """Undo disable_credential. Raises NotFound."""
        return await self._change_credential("enable_credential", username)

    async def set_password_hash(self, username: str, password_hash: str) -> Credential:
        """Raises NotFound."""
        return await self._change_credential("set_password_hash", username, password_hash)

    async def set_allowed_senders(self, username: str, patterns: Sequence[str]) -> Credential:
        """Say which reverse-paths it may use from the next login on; none: any. Raises NotFound."""
        return await self._change_credential("set_allowed_senders", username, patterns)

    async def set_allowed_networks(self, username: str, networks: Sequence[Network]) -> Credential:
        """From where it may log in; none: from everywhere. Raises NotFound."""
        return await self._change_credential("set_allowed_networks", username, networks)

    async def set_credential_lane(self, username: str, lane: Lane | None) -> Credential:
        """Which lane its mail goes in, from the next message on; None: its tenant's. Raises NotFound."""
        return await self._change_credential("set_credential_lane", username, lane)

    async def lanes(self) -> dict[UUID, Lane]:
        """Of tenants and credentials that have one of their own, by their ids."""
        async with self._connection("listing lanes") as connection:
            return {row["id"]: Lane(row["lane"]) for row in await connection.fetch(QUERIES["lanes"])}

    async def listen_credentials(self, callback: Callable[[], None]) -> None:
        """Call back when tenants or credentials may have changed. Runs until cancelled; reconnects by itself."""
        await listen(self._settings, CREDENTIALS_CHANNEL, callback)

    async def listen_certificates(self, callback: Callable[[], None]) -> None:
        """Call back when certificate files may have to be read again. Runs until cancelled; reconnects by itself."""
        await listen(self._settings, CERTIFICATES_CHANNEL, callback)

    # -- certificates of clients

    async def add_certificate(self, username: str, identity: str) -> CertificateIdentity:
        """Let a certificate of that identity log in as `username`. Raises NotFound, AlreadyExists."""
        async with self._connection(f"adding a certificate to {username}") as connection:
            row = await connection.fetchrow(QUERIES["add_certificate"], username, identity)
        return lookup.certificate_identity(present(row, f"credential {username}"))

    async def remove_certificate(self, username: str, identity: str) -> None:
        """Raises NotFound."""
        async with self._connection(f"removing a certificate of {username}") as connection:
            row = await connection.fetchrow(QUERIES["remove_certificate"], username, identity)
        present(row, f"certificate {identity} of {username}")

    async def list_certificates(self, username: str | None = None) -> list[CertificateIdentity]:
        """Of one credential or of all, by username and identity."""
        async with self._connection("listing certificates") as connection:
            rows = await connection.fetch(QUERIES["list_certificates"], username)
        return [lookup.certificate_identity(row) for row in rows]

    async def usernames_by_certificate(self, identities: Sequence[str]) -> dict[str, str]:
        """Whose each of these identities is; those that are nobody's are left out."""
        async with self._connection("looking up a certificate") as connection:
            rows = await connection.fetch(QUERIES["usernames_by_certificate"], list(identities))
        return {row["identity"]: row["username"] for row in rows}

    async def _change_credential(self, statement: str, username: str, *arguments: Any) -> Credential:
        async with self._connection(f"changing credential {username}") as connection:
            row = await connection.fetchrow(QUERIES[statement], username, *arguments)
        return lookup.credential(present(row, f"credential {username}"))


def present(row: _T | None, what: str) -> _T:
    """The row; NotFound if there is none."""
    if row is None:
        raise NotFound(f"there is no {what}")
    return row
