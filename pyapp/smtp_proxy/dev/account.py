"""The first tenant: made at the first run; its generated password and API key are kept in the data directory."""

from __future__ import annotations

import contextlib
import logging

from smtp_proxy import tenants
from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.dev.home import Home
from smtp_proxy.dev.plan import TENANT, USERNAME
from smtp_proxy.errors import ConfigurationError, InvalidValue, NotFound
from smtp_proxy.model.api_key import ApiScope
from smtp_proxy.model.tenant import Credential
from smtp_proxy.store import Store

log = logging.getLogger(__name__)

PASSWORD_FILE = "password"  # noqa: S105 - the name of a file
API_KEY_FILE = "api-key"
_API_KEY = "dev"  # what it is called


async def ensure(home: Home, settings: Settings, *, with_api: bool) -> str:
    """Make tenant, credential, password and, `with_api`, a key where they are missing; returns the password.

    The file is the truth: a password that was changed elsewhere is set back to it, a disabled credential enabled.

    Raises:
        SmtpProxyError: the store or the file can not be used.
    """
    kept = _read(home, PASSWORD_FILE, "a new password")
    store = await Store.connect(settings, purpose="dev", accepts=False)
    passwords = tenants.Passwords(threads=1)
    try:
        if TENANT not in [tenant.name for tenant in await store.list_tenants()]:
            await tenants.create_tenant(store, TENANT)
        if with_api:
            await _ensure_api_key(home, store)
        return await _ensure_credential(home, store, passwords, kept)
    finally:
        passwords.close()
        await store.close()


async def _ensure_credential(home: Home, store: Store, passwords: tenants.Passwords, kept: str | None) -> str:
    credential = await store.credential_by_username(USERNAME)
    if credential is not None and credential.disabled_at is not None:
        log.warning("the credential %s was disabled; it is enabled again", USERNAME, extra={"action": "enabled"})
        credential = await store.enable_credential(USERNAME)
    if credential is not None and kept is not None and await _is_valid(credential, passwords, kept):
        return kept
    secret = kept or tenants.generate_password()
    # Kept before it is valid: after a crash in between, the next run makes it so.
    home.write(PASSWORD_FILE, secret + "\n")
    try:
        if credential is None:
            await tenants.create_credential(store, passwords, TENANT, USERNAME, secret)
        else:
            await tenants.reset_password(store, passwords, USERNAME, secret)
    except InvalidValue as error:
        raise ConfigurationError(f"{home.path / PASSWORD_FILE}: {error}; delete it to have a new password") from None
    return secret


async def _is_valid(credential: Credential, passwords: tenants.Passwords, secret: str) -> bool:
    return await passwords.verify(credential.password_hash, secret)


async def _ensure_api_key(home: Home, store: Store) -> None:
    """One that may do everything, in its file. Another one takes its place if it opens nothing any more."""
    kept = _read(home, API_KEY_FILE, "a new key")
    found = None if kept is None else await tenants.ApiKeyChecker(store, SystemClock()).find(kept)
    if found is not None and found.tenant == TENANT and found.scopes == frozenset(ApiScope):
        return
    with contextlib.suppress(NotFound):
        await store.revoke_api_key(TENANT, _API_KEY)
    _, key = await tenants.create_api_key(store, TENANT, _API_KEY, ApiScope)
    home.write(API_KEY_FILE, key + "\n")


def _read(home: Home, name: str, what: str) -> str | None:
    file = home.path / name
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} can not be read: {error}; delete it to have {what}") from None
