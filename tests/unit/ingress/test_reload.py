"""When certificates are read again, what comes of bad ones, and what is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from certificates import Authority
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.core import Certificate, CertificateError, ConfigError
from smtp_proxy.errors import CertificateProblem
from smtp_proxy.ingress import certificates
from smtp_proxy.ingress.reload import Reloader
from smtp_proxy.telemetry.metrics import REGISTRY

WATCH_SECONDS = 0.02


class FakeCore:
    """Serves what it is given, unless told to refuse."""

    def __init__(self) -> None:
        self.given: list[Sequence[Certificate]] = []
        self.refusal: Exception | None = None
        self.refused = 0

    def reload_tls(self, certificates: Sequence[Certificate], client_ca: bytes = b"", client_crl: bytes = b"") -> None:
        if self.refusal is not None:
            self.refused += 1
            raise self.refusal
        self.given.append(certificates)


class House:
    """A store of one certificate, and a reloader that watches it."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.store = folder / "certs"
        self.renew()
        self.settings = Settings.load({"tls_cert_dir": self.store, "tls_watch_seconds": WATCH_SECONDS}, {})
        self.core = FakeCore()
        clock = SystemClock()
        self.reloader = Reloader(self.settings, self.core, clock, certificates.read(self.settings, clock.now()))

    def renew(self) -> str:
        """A new certificate in place of the old; its fingerprint."""
        return self.authority.pair(self.store / "a.example", "a.example").fingerprint(hashes.SHA256()).hex()

    def serving(self) -> str:
        return str(self.reloader.listed()[0]["fingerprint"])


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
async def watched(house: House) -> AsyncIterator[House]:
    watch = asyncio.create_task(house.reloader.watch())
    yield house
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def soon(house: House, fingerprint: str) -> None:
    async with asyncio.timeout(5):
        while house.serving() != fingerprint:
            await asyncio.sleep(0.01)


def reloads(result: str) -> float:
    return REGISTRY.get_sample_value("smtp_tls_reloads_total", {"result": result}) or 0.0


async def test_on_demand(house: House) -> None:
    before, fingerprint = reloads("ok"), house.renew()
    (listed,) = await house.reloader.reload("test")
    assert (listed["fingerprint"], listed["names"], listed["default"]) == (fingerprint, ["a.example"], True)
    assert listed["issuer"] == "CN=test CA"
    assert listed["not_after"].endswith("Z")
    assert listed["file"].startswith(str(house.store))
    assert reloads("ok") == before + 1
    assert len(house.core.given) == 1
    left = REGISTRY.get_sample_value("smtp_tls_certificate_days_left", {"name": "a.example"})
    assert left is not None
    assert 0.9 < left < 1
    share = REGISTRY.get_sample_value("smtp_tls_certificate_life_left_percent", {"name": "a.example"})
    assert share == pytest.approx(100 * left / 11, abs=0.01)  # it is 10 days old


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (CertificateError("a/fullchain.pem: it expired"), "^a/fullchain.pem: it expired"),
        (ConfigError("client_crl: is not PEM"), "^TLS_CLIENT_CRL_FILE: is not PEM"),
    ],
)
async def test_what_the_core_refuses_leaves_the_old_one(
    house: House, refusal: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, old = reloads("failed"), house.serving()
    house.renew()
    house.core.refusal = refusal
    for _ in range(3):
        with pytest.raises(CertificateProblem, match=said):
            await house.reloader.reload("test")
    assert house.serving() == old
    assert reloads("failed") == before + 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR], "each reason is told once"


async def test_one_that_clients_would_refuse_is_not_given_to_the_core(house: House) -> None:
    """The canary of REQ-INFRA-TLS-005; it is not asked again about what serves."""
    before = house.serving()
    house.authority.pair(house.store / "b.example", "b.example", purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
    with pytest.raises(CertificateProblem, match=r"b\.example.*refuses it"):
        await house.reloader.reload("command")
    assert (house.core.given, house.serving()) == ([], before)
    house.authority.pair(house.store / "b.example", "b.example")
    assert len(await house.reloader.reload("command")) == 2


async def test_a_self_signed_one_in_production_leaves_the_old_one(house: House) -> None:
    """REQ-INFRA-TLS-008: at a reload; in development it would serve (REQ-INFRA-TLS-009)."""
    production = house.settings.model_copy(update={"mode": "production"})
    clock = SystemClock()
    reloader = Reloader(production, house.core, clock, certificates.read(production, clock.now()))
    old = reloader.listed()[0]["fingerprint"]
    (house.store / "a.example" / "fullchain.pem").write_bytes(house.authority.ca_file.read_bytes())
    with pytest.raises(CertificateProblem, match=r"fullchain\.pem.* self-signed, and SMTP_PROXY_MODE is production"):
        await reloader.reload("test")
    assert reloader.listed()[0]["fingerprint"] == old
    assert house.core.given == []
    with pytest.raises(CertificateProblem, match="self-signed"):
        certificates.read(production, clock.now())  # which is how the service starts
    certificates.read(house.settings, clock.now())


async def test_a_changed_file_is_seen(watched: House) -> None:
    await soon(watched, watched.renew())
    await asyncio.sleep(10 * WATCH_SECONDS)
    assert len(watched.core.given) == 1, "and read once"


async def test_half_a_pair_is_waited_out(watched: House, caplog: pytest.LogCaptureFixture) -> None:
    folder, old = watched.store / "a.example", watched.serving()
    (folder / "privkey.pem").unlink()
    async with asyncio.timeout(5):
        while "has no privkey.pem" not in caplog.text:
            await asyncio.sleep(0.01)
    assert watched.serving() == old
    await soon(watched, watched.renew())


async def test_a_set_that_was_refused_is_tried_again_when_its_files_change(watched: House) -> None:
    watched.core.refusal = CertificateError("the key does not belong to the certificate")
    watched.renew()
    async with asyncio.timeout(5):
        while not watched.core.refused:
            await asyncio.sleep(0.01)
    await asyncio.sleep(10 * WATCH_SECONDS)
    assert watched.core.refused == 1, "not over and over"
    watched.core.refusal = None
    await soon(watched, watched.renew())


async def test_the_database_tells(house: House) -> None:
    house.settings = house.settings.model_copy(update={"tls_watch_seconds": 0.0})
    house.reloader._settings = house.settings
    watch = asyncio.create_task(house.reloader.watch())
    try:
        house.reloader.notice()
        await asyncio.sleep(0.2)
        assert house.core.given == [], "nothing is new"
        fingerprint = house.renew()
        await asyncio.sleep(0.2)
        assert house.core.given == [], "nobody looks by himself"
        house.reloader.notice()
        await soon(house, fingerprint)
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def test_a_response_is_stapled_and_left_off_when_it_is_stale(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = house.authority.pair(house.store / "a.example", "a.example")
    begins = timedelta(seconds=2) - timedelta(hours=1)
    response = house.authority.ocsp(certificate, begins=begins, lasts=timedelta(hours=1))
    (house.store / "a.example" / "ocsp.der").write_bytes(response)
    watch = asyncio.create_task(house.reloader.watch())
    try:
        async with asyncio.timeout(10):
            while not house.reloader.listed()[0]["stapled"]:
                await asyncio.sleep(0.01)
            while house.reloader.listed()[0]["stapled"]:
                await asyncio.sleep(0.01)
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
    assert [given[0][2] for given in house.core.given] == [response, b""]
    assert "no OCSP response is stapled" in caplog.text
