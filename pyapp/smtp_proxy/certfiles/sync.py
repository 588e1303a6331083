"""The store's certificates in TLS_CERT_DIR: at the start of each service that serves them, and when Postgres tells.

What does not pass `check` and the canary is not written, and what serves stays. A certificate that the store no longer
has is taken away, if it came from there, and so is one that has expired while there is another: the core takes all or
none, so one that ended would keep the others from being renewed. What was placed by hand stays as it is, and wins over
one of that name in the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from smtp_proxy.aws.logins import sealing_keys
from smtp_proxy.certfiles import files
from smtp_proxy.certfiles.canary import try_out
from smtp_proxy.certfiles.check import check
from smtp_proxy.clock import Clock, SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import CertificateProblem, SmtpProxyError, StoreUnavailable
from smtp_proxy.model.certificate import StoredCertificate
from smtp_proxy.sealing import SecretKeys

log = logging.getLogger(__name__)

# A certificate that was refused or could not be written is tried again so often, though nobody tells of it.
_AGAIN_SECONDS: Final = 30.0
_STORE_AGAIN_SECONDS: Final = 1.0


class CertificateStore(Protocol):
    """What is needed of the store."""

    async def list_fleet_certificates(
        self, name: str | None = None, *, current_only: bool = True
    ) -> list[StoredCertificate]: ...

    async def listen_certificates(self, callback: Callable[[], None]) -> None: ...


def is_synced(settings: Settings) -> bool:
    """True where the store's certificates are served, and not only what others place in TLS_CERT_DIR."""
    return settings.tls_cert_source == "store"


class CertificateSync:
    """Keeps TLS_CERT_DIR in step with the store."""

    def __init__(self, directory: Path, keys: SecretKeys, store: CertificateStore, clock: Clock) -> None:
        self._directory = directory
        self._keys = keys
        self._store = store
        self._clock = clock
        self._told = asyncio.Event()
        self._reasons: dict[str, str] = {}  # by name, so that each is told once

    @classmethod
    async def of(
        cls, settings: Settings, store: CertificateStore, clock: Clock | None = None
    ) -> CertificateSync | None:
        """None: certificates come as files alone. Raises ConfigurationError: as `check_directory`, `sealing_keys`."""
        if settings.tls_cert_dir is None or not is_synced(settings):
            return None
        files.check_directory(settings.tls_cert_dir)
        return cls(
            settings.tls_cert_dir, await asyncio.to_thread(sealing_keys, settings), store, clock or SystemClock()
        )

    async def once(self) -> list[str]:
        """Bring the files up to date; returns the names that were refused, or could not be written.

        Raises StoreUnavailable.
        """
        found = await self._store.list_fleet_certificates()
        return await asyncio.to_thread(self._write_all, found)

    async def run(self, then: Callable[[], None]) -> None:
        """As `once`, whenever the store tells, and call `then` after each time; for ever."""
        listening = asyncio.create_task(self._store.listen_certificates(self._told.set), name="certificate-listen")
        wait: float | None = None
        try:
            while True:
                try:
                    async with asyncio.timeout(wait):
                        await self._told.wait()
                except TimeoutError:
                    pass
                self._told.clear()
                wait = await self._try(then)
        finally:
            listening.cancel()

    # -- below

    async def _try(self, then: Callable[[], None]) -> float | None:
        """Returns after how many seconds to try again; None: when told."""
        try:
            refused = await self.once()
        except StoreUnavailable as error:
            log.warning("certificates are not fetched: %s", error, extra={"action": "certificates_not_fetched"})
            return _STORE_AGAIN_SECONDS
        then()
        return _AGAIN_SECONDS if refused else None

    def _write_all(self, certificates: list[StoredCertificate]) -> list[str]:
        now, refused = self._clock.now(), []
        expired = [certificate for certificate in certificates if certificate.not_after <= now]
        for certificate in certificates:
            if certificate in expired:
                self._refuse(certificate, f"certificate {certificate.name} expired at {certificate.not_after:%F %TZ}")
                continue
            try:
                self._write(certificate)
                self._reasons.pop(certificate.name, None)
            except SmtpProxyError as error:
                refused.append(certificate.name)
                self._refuse(certificate, str(error))
        self._take_away({files.folder_name(certificate.name) for certificate in certificates})
        self._take_away_expired({files.folder_name(certificate.name) for certificate in expired})
        return refused

    def _write(self, certificate: StoredCertificate) -> None:
        mark = files.mark_of(self._directory, certificate.name)
        if mark == str(certificate.id):
            return
        if mark == "":
            raise CertificateProblem(
                f"TLS_CERT_DIR: {self._directory / files.folder_name(certificate.name)} was placed by hand and serves "
                "instead; take it away, or `smtp-proxy certs import` it"
            )
        chain = certificate.chain.encode()
        key = self._keys.open(certificate.sealed, certificate.context)
        now, label = self._clock.now(), f"certificate {certificate.name} of the store"
        check(chain, key, certificate.names, now, label)
        if certificate.not_before > now:  # The core, unlike `check`, knows no tolerance, and would refuse all of them.
            raise CertificateProblem(f"{label}: it is not valid before {certificate.not_before:%F %TZ}")
        try_out(chain, key, label)
        files.write_certificate(self._directory, certificate.name, chain, key, str(certificate.id))
        log.info(
            "certificate written: %s", certificate.name, extra={"action": "certificate_written", "id": certificate.id}
        )

    def _take_away(self, wanted: set[str]) -> None:
        for folder in files.marked_folders(self._directory):
            if folder not in wanted:
                self._remove(folder)

    def _take_away_expired(self, expired: set[str]) -> None:
        if set(files.folders(self._directory)) - expired:
            for folder in files.marked_folders(self._directory):
                if folder in expired:
                    self._remove(folder)

    def _remove(self, folder: str) -> None:
        files.remove_certificate(self._directory, folder)
        log.info("certificate taken away: %s", folder, extra={"action": "certificate_taken_away"})

    def _refuse(self, certificate: StoredCertificate, reason: str) -> None:
        if self._reasons.get(certificate.name) != reason:
            self._reasons[certificate.name] = reason
            log.error("%s; what serves stays", reason, extra={"action": "certificate_refused"})
