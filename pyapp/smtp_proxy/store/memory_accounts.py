"""Tenants, credentials and certificates of the store in memory, with the same rules as in `Store`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from smtp_proxy.clock import Clock, SystemClock
from smtp_proxy.errors import AlreadyExists, NotFound, StoreUnavailable
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.limits import TenantLimits
from smtp_proxy.model.policy import TenantPolicy
from smtp_proxy.model.tenant import CertificateIdentity, Credential, Network, Tenant
from smtp_proxy.store.ids import new_id


class MemoryAccounts:
    """A part of MemoryStore. `down = True` makes every call raise StoreUnavailable."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.down = False
        self._clock = clock or SystemClock()
        self._tenants: dict[str, Tenant] = {}
        self._policies: dict[str, TenantPolicy] = {}
        self._credentials: dict[str, Credential] = {}
        self._certificates: dict[str, CertificateIdentity] = {}
        self._callbacks: list[Callable[[], None]] = []
        self.certificate_callbacks: list[Callable[[], None]] = []

    # -- tenants and credentials

    async def create_tenant(self, name: str) -> Tenant:
        self._reachable()
        if name in self._tenants:
            raise AlreadyExists
        self._tenants[name] = Tenant(new_id(self._clock.now()), name, self._clock.now())
        return self._tenants[name]

    async def list_tenants(self) -> list[Tenant]:
        self._reachable()
        return [self._tenants[name] for name in sorted(self._tenants)]

    async def tenant_by_name(self, name: str) -> Tenant:
        self._reachable()
        if name not in self._tenants:
            raise NotFound
        return self._tenants[name]

    async def limited_tenants(self) -> list[Tenant]:
        self._reachable()
        return [t for t in self._tenants.values() if t.limits.has_rate or t.limits.sessions is not None]

    async def set_tenant_limits(self, name: str, limits: TenantLimits) -> Tenant:
        self._tenants[name] = replace(await self.tenant_by_name(name), limits=limits)
        self._notify()
        return self._tenants[name]

    async def tenant_policy(self, name: str) -> TenantPolicy:
        await self.tenant_by_name(name)
        return self._policies.get(name, TenantPolicy())

    async def set_tenant_policy(self, name: str, policy: TenantPolicy) -> TenantPolicy:
        await self.tenant_by_name(name)
        self._policies[name] = policy
        self._notify()
        return policy

    async def lanes(self) -> dict[UUID, Lane]:
        self._reachable()
        wanted = {self._tenants[name].id: policy.lane for name, policy in self._policies.items()}
        found = {tenant_id: lane for tenant_id, lane in wanted.items() if lane is not Lane.TRANSACTIONAL}
        return found | {c.id: c.lane for c in self._credentials.values() if c.lane is not None}

    async def set_credential_lane(self, username: str, lane: Lane | None) -> Credential:
        return self._put(replace(self._existing(username), lane=lane))

    async def create_credential(
        self,
        tenant_id: UUID,
        username: str,
        password_hash: str,
        allowed_senders: Sequence[str] = (),
        allowed_networks: Sequence[Network] = (),
    ) -> Credential:
        self._reachable()
        if username in self._credentials:
            raise AlreadyExists
        self._credentials[username] = Credential(
            new_id(self._clock.now()),
            tenant_id,
            username,
            password_hash,
            self._clock.now(),
            allowed_senders=tuple(allowed_senders),
            allowed_networks=tuple(allowed_networks),
        )
        self._notify()
        return self._credentials[username]

    async def list_credentials(self, tenant_id: UUID | None = None) -> list[Credential]:
        self._reachable()
        found = (self._credentials[username] for username in sorted(self._credentials))
        return [c for c in found if tenant_id is None or c.tenant_id == tenant_id]

    async def credential_by_username(self, username: str) -> Credential | None:
        self._reachable()
        return self._credentials.get(username)

    async def disable_credential(self, username: str) -> Credential:
        found = self._existing(username)
        return self._put(replace(found, disabled_at=found.disabled_at or self._clock.now()))

    async def enable_credential(self, username: str) -> Credential:
        return self._put(replace(self._existing(username), disabled_at=None))

    async def set_password_hash(self, username: str, password_hash: str) -> Credential:
        return self._put(replace(self._existing(username), password_hash=password_hash))

    async def set_allowed_senders(self, username: str, patterns: Sequence[str]) -> Credential:
        return self._put(replace(self._existing(username), allowed_senders=tuple(patterns)))

    async def set_allowed_networks(self, username: str, networks: Sequence[Network]) -> Credential:
        return self._put(replace(self._existing(username), allowed_networks=tuple(networks)))

    async def listen_credentials(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        try:
            callback()
            await asyncio.Event().wait()
        finally:
            self._callbacks.remove(callback)

    async def listen_certificates(self, callback: Callable[[], None]) -> None:
        self.certificate_callbacks.append(callback)
        try:
            callback()
            await asyncio.Event().wait()
        finally:
            self.certificate_callbacks.remove(callback)

    # -- certificates of clients

    async def add_certificate(self, username: str, identity: str) -> CertificateIdentity:
        self._existing(username)
        if identity in self._certificates:
            raise AlreadyExists
        self._certificates[identity] = CertificateIdentity(identity, username, self._clock.now())
        self._notify()
        return self._certificates[identity]

    async def remove_certificate(self, username: str, identity: str) -> None:
        self._reachable()
        if identity not in self._certificates or self._certificates[identity].username != username:
            raise NotFound
        del self._certificates[identity]
        self._notify()

    async def list_certificates(self, username: str | None = None) -> list[CertificateIdentity]:
        self._reachable()
        found = sorted(self._certificates.values(), key=lambda c: (c.username, c.identity))
        return [c for c in found if username is None or c.username == username]

    async def usernames_by_certificate(self, identities: Sequence[str]) -> dict[str, str]:
        self._reachable()
        return {i: self._certificates[i].username for i in identities if i in self._certificates}

    # -- below

    def _reachable(self) -> None:
        if self.down:
            raise StoreUnavailable

    def _existing(self, username: str) -> Credential:
        self._reachable()
        if username not in self._credentials:
            raise NotFound
        return self._credentials[username]

    def _put(self, credential: Credential) -> Credential:
        self._credentials[credential.username] = credential
        self._notify()
        return credential

    def _notify(self) -> None:
        for callback in self._callbacks:
            callback()
