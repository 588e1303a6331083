"""Certificates that clients take only with an OCSP response (RFC 7633) wait for it while the one before serves."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from datetime import datetime

    from smtp_proxy.ingress.certificates import CertificateSet, Pair

log = logging.getLogger(__name__)


def held_back(found: CertificateSet, serving: CertificateSet, now: datetime) -> CertificateSet:
    """`found`, with the pair that serves in place of one of that name that lacks the response it must have."""
    before = {pair.name: pair for pair in serving.pairs}
    return replace(found, pairs=tuple(_chosen(pair, before.get(pair.name), now) for pair in found.pairs))


def must_staple(chain: bytes) -> bool:
    """Whether the first certificate of a PEM chain says so."""
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
        features = leaf.extensions.get_extension_for_class(x509.TLSFeature).value
    except (ValueError, IndexError, x509.ExtensionNotFound):
        return False
    return x509.TLSFeatureType.status_request in features


def _chosen(new: Pair, old: Pair | None, now: datetime) -> Pair:
    if new.staple.response or not must_staple(new.chain):
        return new
    if old is not None and old.chain != new.chain and _ends(old) > now:
        log.warning(
            "%s must be stapled and has no OCSP response yet: the one before serves", new.label,
            extra={"action": "must_staple_waits"},
        )  # fmt: skip
        return old
    log.error(
        "%s must be stapled and has no OCSP response: clients that know of that refuse it", new.label,
        extra={"action": "must_staple_missing"},
    )  # fmt: skip
    return new


def _ends(pair: Pair) -> datetime:
    return x509.load_pem_x509_certificates(pair.chain)[0].not_valid_after_utc
