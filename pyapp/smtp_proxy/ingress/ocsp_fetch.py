"""Fetches OCSP responses for what is to serve (RFC 6960), in the background, so that they can be stapled.

Each is checked (its signature too) and kept in DATA_DIR/ocsp by the fingerprint of its certificate, where the next
start finds it; it is asked for again when half of its life has passed. A certificate that names no responder needs
none, which is normal; a responder that is away changes nothing: what is fresh is stapled, else nothing is
(REQ-INFRA-TLS-014).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import aiohttp
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from smtp_proxy.certfiles.files import write_response
from smtp_proxy.errors import CertificateProblem, SmtpProxyError
from smtp_proxy.ingress import certificates
from smtp_proxy.ingress.ocsp import staple
from smtp_proxy.telemetry.metrics import OCSP_FETCHES

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.ingress.certificates import Pair

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 60.0
_FETCH_SECONDS: Final = 10.0
_RESPONSE_BYTES: Final = 64 * 1024
_AGAIN_FIRST: Final = timedelta(minutes=5)
_AGAIN_MAX: Final = timedelta(hours=6)
_HEADERS: Final = {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}


class OcspFailed(SmtpProxyError):
    """No response that could be stapled was had."""


@dataclass(slots=True)
class _Trouble:
    failed: int
    again_at: datetime


class ResponseFetcher:
    """`then` is called when a response was written."""

    def __init__(self, settings: Settings, clock: Clock, then: Callable[[], None]) -> None:
        self._settings = settings
        self._clock = clock
        self._then = then
        self._trouble: dict[str, _Trouble] = {}  # by fingerprint
        self._look = asyncio.Event()

    def notice(self) -> None:
        """Certificates may have changed: look at once."""
        self._look.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.round()
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()

    async def round(self) -> int:
        """Look at each certificate once; returns how many responses were written."""
        try:
            found = await asyncio.to_thread(certificates.read, self._settings, self._clock.now())
        except SmtpProxyError:
            return 0  # The reloader says so.
        written = sum([await self._look_at(pair) for pair in found.pairs])
        wanted = {certificates.fingerprint(pair.chain) for pair in found.pairs}
        await asyncio.to_thread(_forget, self._settings, wanted)
        self._trouble = {print_: trouble for print_, trouble in self._trouble.items() if print_ in wanted}
        if written:
            self._then()
        return written

    # -- below

    async def _look_at(self, pair: Pair) -> bool:
        now, print_ = self._clock.now(), certificates.fingerprint(pair.chain)
        fresh = pair.staple.renew_at is not None and now < pair.staple.renew_at
        trouble = self._trouble.get(print_)
        if fresh or (trouble is not None and now < trouble.again_at):
            return False
        try:
            response = await self._fetched(pair.chain)
            if response is not None:
                file = certificates.fetched_file(self._settings, pair.chain)
                await asyncio.to_thread(write_response, file, response)
        except (OcspFailed, CertificateProblem) as error:
            self._failed(pair, print_, str(error))
            return False
        self._trouble.pop(print_, None)
        if response is None:
            return False
        OCSP_FETCHES.labels("ok").inc()
        log.info("OCSP response fetched: %s", pair.label, extra={"action": "ocsp_fetched"})
        return True

    async def _fetched(self, chain: bytes) -> bytes | None:
        """A response for the first certificate of a PEM chain; None: it names no responder. Raises OcspFailed."""
        leaf, *others = x509.load_pem_x509_certificates(chain)
        if (url := responder_of(leaf)) is None:
            return None
        issuer = next((each for each in others if each.subject == leaf.issuer), None)
        if issuer is None:
            raise OcspFailed(f"its issuer is not in the chain, so {url} can not be asked")
        request = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1()).build()  # noqa: S303 - RFC 5019
        response = await _ask(url, request.public_bytes(serialization.Encoding.DER))
        now = self._clock.now()
        if refused := staple(response, chain, now).refused:
            raise OcspFailed(f"{url}: {refused}")
        check_signature(ocsp.load_der_ocsp_response(response), issuer, now)
        return response

    def _failed(self, pair: Pair, print_: str, reason: str) -> None:
        OCSP_FETCHES.labels("failed").inc()
        before = self._trouble.get(print_)
        failed = 1 if before is None else before.failed + 1
        delay = min(_AGAIN_FIRST * 2 ** min(failed - 1, 10), _AGAIN_MAX)
        self._trouble[print_] = _Trouble(failed, self._clock.now() + delay)
        log.warning("no OCSP response for %s: %s", pair.label, reason, extra={"action": "ocsp_failed"})


def responder_of(certificate: x509.Certificate) -> str | None:
    """Where its status can be asked by HTTP (RFC 5280 4.2.2.1)."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return None
    for description in access:
        location = description.access_location
        if description.access_method != AuthorityInformationAccessOID.OCSP:
            continue
        if isinstance(location, x509.UniformResourceIdentifier) and location.value.startswith(("http://", "https://")):
            return str(location.value)
    return None


def check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> None:
    """Signed by the issuer, or by a responder that the issuer has named (RFC 6960 4.2.2.2). Raises OcspFailed."""
    for signer in (issuer, *(each for each in response.certificates if _is_delegate(each, issuer, now))):
        try:
            _verify(signer, response)
        except (InvalidSignature, TypeError, ValueError):
            continue
        return
    raise OcspFailed("the response is not signed by the issuer, nor by one that it has named")


def _is_delegate(certificate: x509.Certificate, issuer: x509.Certificate, now: datetime) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    in_time = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
    return in_time and ExtendedKeyUsageOID.OCSP_SIGNING in usage


def _verify(signer: x509.Certificate, response: ocsp.OCSPResponse) -> None:
    key, algorithm = signer.public_key(), response.signature_hash_algorithm
    signature, signed = response.signature, response.tbs_response_bytes
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, signed)
    elif isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
        key.verify(signature, signed, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
        key.verify(signature, signed, ec.ECDSA(algorithm))
    else:
        raise TypeError("no key or algorithm that signs responses")


async def _ask(url: str, request: bytes) -> bytes:
    timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, data=request, headers=_HEADERS, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise OcspFailed(f"{url} answered {answer.status}")
            response = bytearray()
            async for part in answer.content.iter_chunked(_RESPONSE_BYTES):
                response += part
                if len(response) > _RESPONSE_BYTES:
                    raise OcspFailed(f"{url} answered with more than {_RESPONSE_BYTES} octets")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise OcspFailed(f"{url} can not be asked: {error or type(error).__name__}") from None
    return bytes(response)


def _forget(settings: Settings, wanted: set[str]) -> None:
    """Responses for certificates that are gone."""
    for file in certificates.fetched_folder(settings).glob("*.der"):
        if file.stem not in wanted:
            file.unlink(missing_ok=True)
