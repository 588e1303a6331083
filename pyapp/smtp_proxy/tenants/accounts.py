"""Making and changing credentials: names checked, passwords generated where none is given, only the hash kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from smtp_proxy.errors import NotFound
from smtp_proxy.model.tenant import Credential, Network, Tenant
from smtp_proxy.tenants import names, networks, senders
from smtp_proxy.tenants.passwords import Passwords, generate_password


class AccountStore(Protocol):
    """What is needed of the store."""

    async def create_tenant(self, name: str) -> Tenant: ...
    async def tenant_by_name(self, name: str) -> Tenant: ...
    async def create_credential(
        self,
        tenant_id: UUID,
        username: str,
        password_hash: str,
        allowed_senders: Sequence[str] = (),
        allowed_networks: Sequence[Network] = (),
    ) -> Credential: ...
    async def credential_by_username(self, username: str) -> Credential | None: ...
    async def set_allowed_senders(self, username: str, patterns: Sequence[str]) -> Credential: ...
    async def set_allowed_networks(self, username: str, networks: Sequence[Network]) -> Credential: ...
    async def set_password_hash(self, username: str, password_hash: str) -> Credential: ...


async def create_tenant(store: AccountStore, name: str) -> Tenant:
    """Raises InvalidValue, AlreadyExists."""
    return await store.create_tenant(names.tenant_name(name))


async def create_credential(
    store: AccountStore,
    passwords: Passwords,
    tenant: str,
    username: str,
    password: str | None = None,
    allowed_senders: Sequence[str] = (),
    allowed_networks: Sequence[str] = (),
) -> tuple[Credential, str]:
    """Give a tenant (by name) a login; returns it and the password, which is not kept anywhere.

    Raises:
        InvalidValue: username, password, a sender pattern or a network can not be used.
        NotFound: no such tenant.
        AlreadyExists: the username is taken, perhaps by another tenant.
    """
    username = names.username(username)
    patterns = senders.checked(allowed_senders)
    secret = generate_password() if password is None else names.password(password)
    allowed = networks.networks(allowed_networks)
    owner = await store.tenant_by_name(tenant)
    hashed = await passwords.hash(secret)
    return await store.create_credential(owner.id, username, hashed, patterns, allowed), secret


async def reset_password(
    store: AccountStore, passwords: Passwords, username: str, password: str | None = None
) -> tuple[Credential, str]:
    """Replace a password; returns the credential and the new one. Raises InvalidValue, NotFound."""
    secret = generate_password() if password is None else names.password(password)
    return await store.set_password_hash(username, await passwords.hash(secret)), secret


async def set_senders(store: AccountStore, username: str, patterns: Sequence[str]) -> Credential:
    """Say which reverse-paths a login may use; none: any. Raises InvalidValue, NotFound."""
    return await store.set_allowed_senders(username, senders.checked(patterns))


async def change_senders(store: AccountStore, username: str, add: Sequence[str], remove: Sequence[str]) -> Credential:
    """Add to and remove from the list; with neither it is only returned.

    Raises:
        InvalidValue: a pattern can not be used, is not there to be removed, or is the last one.
        NotFound: no such login.
    """
    found = await store.credential_by_username(username)
    if found is None:
        raise NotFound(f"there is no credential {username}")
    patterns = senders.changed(found.allowed_senders, add, remove)
    return found if patterns == found.allowed_senders else await store.set_allowed_senders(username, patterns)


async def set_networks(store: AccountStore, username: str, allowed_networks: Sequence[str]) -> Credential:
    """Say from where a login is taken; none: from everywhere. Raises InvalidValue, NotFound."""
    return await store.set_allowed_networks(username, networks.networks(allowed_networks))
