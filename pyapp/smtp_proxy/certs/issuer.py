"""Gets one certificate: key and request, order, proofs, chain, check, store. If any fails the old one serves on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from smtp_proxy.certfiles.canary import NotTried, try_out
from smtp_proxy.certfiles.check import check
from smtp_proxy.certs import ca
from smtp_proxy.certs.dns import DnsProvider, Records
from smtp_proxy.clock import Clock
from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError, IssuanceFailed
from smtp_proxy.model.certificate import AcmeAccount, CertificateOrder, StoredCertificate
from smtp_proxy.sealing import Sealed, SecretKeys
from smtp_proxy.store.ids import new_id

if TYPE_CHECKING:
    from smtp_proxy.store import Store

log = logging.getLogger(__name__)

STAGING: Final = "https://acme-staging-v02.api.letsencrypt.org/directory"
PRODUCTION: Final = "https://acme-v02.api.letsencrypt.org/directory"
_CHALLENGE_LIFE: Final = timedelta(hours=1)
_NOTHING: Final = Sealed("", b"")


def directory_of(settings: Settings) -> str:
    """Whose certificates are asked for (REQ-INFRA-TLS-008).

    Raises ConfigurationError: development does not talk to the CA that strangers trust, whose limits it would use up.
    """
    url = settings.acme_directory or (PRODUCTION if settings.mode == "production" else STAGING)
    if settings.mode == "development" and url == PRODUCTION:
        raise ConfigurationError(
            "ACME_DIRECTORY is the production directory of Let's Encrypt, and SMTP_PROXY_MODE is development: set "
            "SMTP_PROXY_MODE=production, or leave ACME_DIRECTORY empty for the staging directory"
        )
    return url


class Issuer:
    """Everything that one attempt needs."""

    def __init__(
        self, settings: Settings, store: Store, keys: SecretKeys, dns: DnsProvider | None, clock: Clock
    ) -> None:
        self.directory = directory_of(settings)
        self._settings = settings
        self._store = store
        self._keys = keys
        self._dns = dns
        self._clock = clock
        self._ca: ca.Ca | None = None

    async def issue(self, order: CertificateOrder, before: StoredCertificate | None) -> StoredCertificate:
        """Get it and make it the current one of its name.

        Raises:
            IssuanceFailed: the CA, or the DNS; says whether it wants to be left alone for a while.
            CertificateProblem: what the CA sent is not good.
            ConfigurationError, StoreError.
        """
        key = await asyncio.to_thread(ca.new_key)
        request = await asyncio.to_thread(ca.signing_request, key, order.names)
        replaces = before.chain if before is not None and before.directory == self.directory else ""
        authority = await self._authority()
        try:
            opened = await self._open(authority, order, request, replaces)
        except IssuanceFailed as error:
            if error.code != "accountDoesNotExist":
                raise
            authority = self._ca = await self._registered()  # The CA has lost it, or closed it.
            opened = await self._open(authority, order, request, "")
        async with self._proving(order, opened):
            chain = await asyncio.to_thread(authority.finish, opened, self._settings.acme_patience_seconds)
        began = time.monotonic()
        certificate = await asyncio.to_thread(self._checked, order, chain, key)
        await self._store.add_fleet_certificate(certificate)
        log.info(
            "certificate issued: %s, good until %s",
            order.name,
            certificate.not_after.isoformat(),
            extra={"action": "certificate_issued", "id": certificate.id, "stored_seconds": time.monotonic() - began},
        )
        return certificate

    async def look_at_renewal(self, certificate: StoredCertificate) -> None:
        """Ask the CA when it suggests to renew (ARI) and keep that; a CA that can not be asked changes nothing."""
        try:
            authority = await self._authority()
            at, again = await asyncio.to_thread(authority.renewal, certificate.chain)
        except IssuanceFailed as error:
            log.warning("%s: %s", certificate.name, error, extra={"action": "renewal_info_failed"})
            at, again = certificate.renew_at, self._clock.now() + timedelta(hours=6)
        await self._store.set_renewal_time(certificate.id, at, again)

    async def revoke(self, certificate: StoredCertificate, reason: int) -> None:
        """At the CA that it is from, then here: replicas take it away.

        Raises IssuanceFailed; ConfigurationError: it is from another CA than the settings name, or was imported.
        """
        if certificate.directory != self.directory:
            source = certificate.directory or "elsewhere (it was imported)"
            raise ConfigurationError(
                f"{certificate.name} is from {source}, and ACME_DIRECTORY is {self.directory}: "
                "revoke it where it is from"
            )
        authority = await self._authority()
        await asyncio.to_thread(authority.revoke, certificate.chain, reason)
        await self._store.set_fleet_certificate_state(certificate.id, "revoked")

    # -- below

    async def _open(self, authority: ca.Ca, order: CertificateOrder, request: bytes, replaces: str) -> ca.Opened:
        profile = self._settings.acme_profile
        return await asyncio.to_thread(authority.open, request, order.challenge, profile, replaces)

    async def _authority(self) -> ca.Ca:
        if self._ca is None:
            accounts = {account.directory: account for account in await self._store.list_acme_accounts()}
            found = accounts.get(self.directory)
            self._ca = await (self._registered() if found is None else self._opened(found))
        return self._ca

    async def _opened(self, account: AcmeAccount) -> ca.Ca:
        key, ca_file = self._keys.open(account.sealed, account.context), self._settings.acme_ca_file
        return await asyncio.to_thread(ca.Ca, self.directory, key, account.kid, ca_file)

    async def _registered(self) -> ca.Ca:
        settings, key = self._settings, await asyncio.to_thread(ca.new_key)
        account = AcmeAccount(new_id(self._clock.now()), self.directory, "", _NOTHING)
        sealed = self._keys.seal(key, account.context)  # Before the CA knows of it: without a key file all stops here.
        authority = await asyncio.to_thread(ca.Ca, self.directory, key, "", settings.acme_ca_file)
        kid = await asyncio.to_thread(authority.register, settings.acme_contact, _binding(settings))
        await self._store.add_acme_account(AcmeAccount(account.id, self.directory, kid, sealed))
        log.info("account made at %s", self.directory, extra={"action": "acme_account_made"})
        return authority

    @contextlib.asynccontextmanager
    async def _proving(self, order: CertificateOrder, opened: ca.Opened) -> AsyncIterator[None]:
        """The proofs can be seen while the block runs."""
        if order.challenge == "http-01":
            for proof in opened.proofs:
                await self._store.put_acme_challenge(proof.token, proof.content, _CHALLENGE_LIFE)
            try:
                yield
            finally:
                for proof in opened.proofs:
                    await self._store.remove_acme_challenge(proof.token)
            return
        if self._dns is None:
            raise ConfigurationError(f"{order.name} wants dns-01: set ACME_DNS to route53 or rfc2136")
        records = _records(opened)
        try:
            if records:
                await asyncio.to_thread(self._dns.put, records)
                await asyncio.sleep(self._settings.acme_dns_wait_seconds)
            yield
        finally:
            if records:
                await self._take_away(self._dns, records)

    async def _take_away(self, dns: DnsProvider, records: Records) -> None:
        try:
            await asyncio.to_thread(dns.remove, records)
        except IssuanceFailed as error:  # The certificate is there or not, all the same.
            log.warning("records stay in the DNS: %s", error, extra={"action": "dns_records_stay"})

    def _checked(self, order: CertificateOrder, chain: str, key: bytes) -> StoredCertificate:
        now = self._clock.now()
        label = f"certificate {order.name} from {self.directory}"
        good = check(chain.encode(), key, order.names, now, label)
        try:
            try_out(chain.encode(), key, label)
        except NotTried as error:
            # The order is spent. Whoever serves it tries it before that.
            log.warning("stored all the same: %s", error, extra={"action": "certificate_not_tried"})
        certificate = StoredCertificate(
            new_id(now), order.name, order.names, chain, _NOTHING, good.not_before, good.not_after, self.directory
        )
        return replace(certificate, sealed=self._keys.seal(key, certificate.context))


def _records(opened: ca.Opened) -> dict[str, list[str]]:
    """A name and its wildcard are proved at the same place."""
    found: dict[str, list[str]] = {}
    for proof in opened.proofs:
        found.setdefault(f"_acme-challenge.{proof.domain}", []).append(proof.content)
    return found


def _binding(settings: Settings) -> ca.Binding | None:
    file = settings.acme_eab_hmac_file
    if not settings.acme_eab_kid or file is None:
        return None
    try:
        return ca.Binding(settings.acme_eab_kid, file.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise ConfigurationError(f"ACME_EAB_HMAC_FILE: can not read {file}: {reason}") from None
