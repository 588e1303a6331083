"""Reloads certificates while the service runs: on demand, at SIGHUP, when files change, when the database says so.

A new certificate serves a client of our own first (`certfiles.canary`). Then the core swaps the whole set, or refuses
it with the reason and goes on with the one it has; no connection is touched. Nothing here ends the service: a file that
can not serve today may be mended tomorrow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from smtp_proxy.certfiles import canary
from smtp_proxy.core import CertificateError, ConfigError
from smtp_proxy.errors import CertificateProblem, SmtpProxyError
from smtp_proxy.ingress import certificates, must_staple
from smtp_proxy.telemetry.metrics import TLS_DAYS_LEFT, TLS_LIFE_LEFT, TLS_RELOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.core import Certificate
    from smtp_proxy.ingress.certificates import CertificateSet

log = logging.getLogger(__name__)

# Whoever writes a pair writes two files: when one has changed, the other may be on its way.
_SETTLE_SECONDS: Final = 0.1
_SETTLE_ROUNDS: Final = 3
# A set that was refused is tried again so often, though no file has changed: a date may have come.
_RETRY_SECONDS: Final = 30.0
_SECONDS_PER_DAY: Final = 86_400.0
# The core's fields, by the settings that they come from.
_CLIENT_FILES: Final = {"client_ca": "TLS_CLIENT_CA_FILE", "client_crl": "TLS_CLIENT_CRL_FILE"}


class TlsCore(Protocol):
    """What is needed of the core."""

    def reload_tls(
        self, certificates: Sequence[Certificate], client_ca: bytes = b"", client_crl: bytes = b""
    ) -> None: ...


class Reloader:
    """Knows what serves, and replaces it."""

    def __init__(self, settings: Settings, core: TlsCore, clock: Clock, serving: CertificateSet) -> None:
        self._settings = settings
        self._core = core
        self._clock = clock
        self._serving = serving
        self._turn = asyncio.Lock()
        self._stamp = certificates.stamp(settings)
        self._refused = ""  # the last reason, so that each is told once
        self._told = asyncio.Event()
        self._measure()

    async def reload(self, source: str) -> list[dict[str, Any]]:
        """Read all files and serve what is in them; returns `listed`.

        Raises:
            CertificateProblem, ConfigurationError: names the file and says what is wrong; the old set serves on.
        """
        async with self._turn:
            try:
                found = await asyncio.to_thread(self._exchange)
            except SmtpProxyError as error:
                TLS_RELOADS.labels("failed").inc()
                self._refuse(str(error), source)
                raise
            self._serving, self._refused = found, ""
            TLS_RELOADS.labels("ok").inc()
            self._measure()
            count = len(found.pairs)
            log.info(
                "certificates reloaded: %s", count, extra={"action": "tls_reloaded", "source": source, "count": count}
            )
            return self.listed()

    def listed(self) -> list[dict[str, Any]]:
        """What serves, the default first: names, not_after, fingerprint, issuer, default, file, stapled."""
        return [_described(pair, default=at == 0) for at, pair in enumerate(self._serving.pairs)]

    def notice(self) -> None:
        """The database says that certificates may have changed; for `Store.listen_certificates`."""
        self._told.set()

    async def watch(self, then: Callable[[], None] = lambda: None) -> None:
        """Reload when files change, when the database tells, and when a staple is no longer fresh; for ever.

        `then` is called after each time, whatever came of it.
        """
        interval = self._settings.tls_watch_seconds or None
        tried = self._clock.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._told.wait()
            source = "database" if self._told.is_set() else "files"
            self._told.clear()
            waited = self._refused and self._clock.monotonic() - tried >= _RETRY_SECONDS
            if source == "database" or waited or await self._has_changed():
                tried = self._clock.monotonic()
                await self._reload_if_new(source)
                then()

    # -- below

    async def _has_changed(self) -> bool:
        until = self._serving.renewal_of_staples()
        if until is not None and until <= self._clock.now():
            return True
        now = certificates.stamp(self._settings)
        if now == self._stamp:
            return False
        for _ in range(_SETTLE_ROUNDS):
            before = now
            await asyncio.sleep(_SETTLE_SECONDS)
            now = certificates.stamp(self._settings)
            if now == before:
                break
        return True

    async def _reload_if_new(self, source: str) -> None:
        """Say nothing where nothing is new, since the database calls at each connection too."""
        try:
            self._stamp = certificates.stamp(self._settings)
            found = await asyncio.to_thread(self._read)
        except SmtpProxyError as error:
            TLS_RELOADS.labels("failed").inc()
            self._refuse(str(error), source)
            return
        if found != self._serving or self._refused:
            with contextlib.suppress(SmtpProxyError):  # It has been counted and told.
                await self.reload(source)

    def _exchange(self) -> CertificateSet:
        self._stamp = certificates.stamp(self._settings)  # Before the reading: what is written after it counts.
        found = self._read()
        self._try_out(found)
        exchange(self._core, found)
        return found

    def _try_out(self, found: CertificateSet) -> None:
        """What serves already has shown that it can. Raises CertificateProblem."""
        known = {(pair.chain, pair.key) for pair in self._serving.pairs}
        for pair in found.pairs:
            if (pair.chain, pair.key) not in known:
                canary.try_out(pair.chain, pair.key, pair.label, tls13_only=self._settings.tls_min_version == "1.3")

    def _read(self) -> CertificateSet:
        now = self._clock.now()
        return must_staple.held_back(certificates.read(self._settings, now), self._serving, now)

    def _refuse(self, reason: str, source: str) -> None:
        if reason != self._refused:
            self._refused = reason
            log.error(
                "certificates are not reloaded, the old ones serve on: %s",
                reason,
                extra={"action": "tls_reload_failed", "source": source},
            )

    def _measure(self) -> None:
        TLS_DAYS_LEFT.clear()
        TLS_LIFE_LEFT.clear()
        for pair in self._serving.pairs:
            leaf = x509.load_pem_x509_certificates(pair.chain)[0]
            left, name = _Countdown(self._clock, leaf), pair.name or "default"
            TLS_DAYS_LEFT.labels(name).set_function(left)
            TLS_LIFE_LEFT.labels(name).set_function(left.percent)
            if pair.staple.refused:
                log.warning(
                    "no OCSP response is stapled: %s: %s",
                    pair.label,
                    pair.staple.refused,
                    extra={"action": "no_staple"},
                )


class _Countdown:
    """Days until a certificate expires, whenever it is asked."""

    def __init__(self, clock: Clock, certificate: x509.Certificate) -> None:
        self._clock = clock
        self._ends = certificate.not_valid_after_utc
        self._life = self._ends - certificate.not_valid_before_utc

    def __call__(self) -> float:
        return (self._ends - self._clock.now()) / timedelta(seconds=_SECONDS_PER_DAY)

    def percent(self) -> float:
        """Of its life, which is days or a year."""
        return 100.0 * ((self._ends - self._clock.now()) / self._life)


def exchange(core: TlsCore, found: CertificateSet) -> None:
    """Make the core serve these. Raises CertificateProblem; then the old ones serve on."""
    try:
        core.reload_tls(found.for_core(), found.client_ca, found.client_crl)
    except CertificateError as error:
        raise CertificateProblem(str(error)) from None
    except ConfigError as error:
        field, colon, rest = str(error).partition(": ")
        raise CertificateProblem(f"{_CLIENT_FILES.get(field, field)}{colon}{rest}") from None


def _described(pair: certificates.Pair, *, default: bool) -> dict[str, Any]:
    leaf = x509.load_pem_x509_certificates(pair.chain)[0]
    return {
        "names": certificates.served_names(pair.chain),
        "not_after": leaf.not_valid_after_utc.isoformat().replace("+00:00", "Z"),
        "fingerprint": leaf.fingerprint(hashes.SHA256()).hex(),
        "issuer": leaf.issuer.rfc4514_string(),
        "default": default,
        "file": pair.label.partition(": ")[2],
        "stapled": bool(pair.staple.response),
    }
