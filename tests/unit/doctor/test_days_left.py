"""What doctor says of the certificate that a listener shows: by the days and by the share of its life that are left."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from certificates import Authority
from cryptography import x509

from smtp_proxy.doctor.finding import Level
from smtp_proxy.doctor.listeners import _days_left


@pytest.mark.parametrize(
    ("life", "left", "level"),
    [
        (90, 31, Level.OK),
        (90, 9, Level.WARNING),
        (90, 2.9, Level.FAILED),
        (45, 11.3, Level.OK),
        (45, 9.9, Level.WARNING),
        (45, 2.9, Level.FAILED),
        # Due with 2 days left, which is no reason to hold a release back.
        (6, 5, Level.OK),
        (6, 2, Level.OK),
        (6, 1.4, Level.WARNING),
        (6, 0.5, Level.FAILED),
        (365, 9, Level.WARNING),
    ],
)
def test_by_the_life_of_the_certificate(life: int, left: float, level: Level, tmp_path: Path) -> None:
    file = Authority(tmp_path).issue("mx.example.com", days=life - 10)  # it is 10 days old
    certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]
    now = certificate.not_valid_after_utc - timedelta(days=left)
    assert _days_left("submission", certificate, now).level == level
