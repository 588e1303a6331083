"""Making and changing credentials: names checked, passwords generated where none is given, only the hash kept."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from smtp_proxy.model.tenant import Credential, Tenant
from smtp_proxy.tenants import names
from smtp_proxy.tenants.passwords import Passwords, generate_password


class AccountStore(Protocol):
    """What is needed of the store."""

    async def create_tenant(self, name: str) -> Tenant: ...
    async def tenant_by_name(self, name: str) -> Tenant: ...
    async def create_credential(self, tenant_id: UUID, username: str, password_hash: str) -> Credential: ...
    async def set_password_hash(self, username: str, password_hash: str) -> Credential: ...


async def create_tenant(store: AccountStore, name: str) -> Tenant:
    """Raises InvalidValue, AlreadyExists."""
    return await store.create_tenant(names.tenant_name(name))


async def create_credential(
    store: AccountStore, passwords: Passwords, tenant: str, username: str, password: str | None = None
) -> tuple[Credential, str]:
    """Give a tenant (by name) a login; returns it and the password, which is not kept anywhere.

    Raises:
        InvalidValue: username or password can not be used.
        NotFound: no such tenant.
        AlreadyExists: the username is taken, perhaps by another tenant.
    """
    username = names.username(username)
    secret = generate_password() if password is None else names.password(password)
    owner = await store.tenant_by_name(tenant)
    return await store.create_credential(owner.id, username, await passwords.hash(secret)), secret


async def reset_password(
    store: AccountStore, passwords: Passwords, username: str, password: str | None = None
) -> tuple[Credential, str]:
    """Replace a password; returns the credential and the new one. Raises InvalidValue, NotFound."""
    secret = generate_password() if password is None else names.password(password)
    return await store.set_password_hash(username, await passwords.hash(secret)), secret
