"""OCSP responses are asked for, checked and kept; nothing that a responder does ends what serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import Authority
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from ocsp_responder import Responder, responding

from smtp_proxy.clock import ManualClock
from smtp_proxy.config import Settings
from smtp_proxy.ingress import certificates, must_staple
from smtp_proxy.ingress.ocsp_fetch import ResponseFetcher


class House:
    def __init__(self, folder: Path, responder: Responder) -> None:
        self.authority, self.responder = Authority(folder), responder
        self.settings = Settings.load({"tls_cert_dir": folder / "certs", "data_dir": folder / "data"}, {})
        self.folder = folder / "certs" / "mx"
        self.clock = ManualClock(datetime.now(UTC))
        self.told = 0
        self.fetcher = ResponseFetcher(self.settings, self.clock, self._tell)
        self.certificate = self.issue()

    def _tell(self) -> None:
        self.told += 1

    def issue(self, *, staple: bool = False) -> x509.Certificate:
        url = self.responder.url
        issued = self.authority.pair(self.folder, "mx.example", days=30, responder=url, must_staple=staple)
        self.responder.answer = lambda _: self.authority.ocsp(issued)
        return issued

    def stapled(self) -> bytes:
        return self.read().pairs[0].staple.response

    def read(self) -> certificates.CertificateSet:
        return certificates.read(self.settings, self.clock.now())


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with responding() as responder:
        yield House(tmp_path, responder)


async def test_it_is_fetched_and_again_at_half_of_its_life(house: House) -> None:
    """REQ-INFRA-TLS-014."""
    assert house.stapled() == b""
    before = certificates.stamp(house.settings)
    assert await house.fetcher.round() == 1
    assert certificates.stamp(house.settings) != before, "the reloader sees it"
    first = house.stapled()
    assert ocsp.load_der_ocsp_response(first).serial_number == house.certificate.serial_number
    assert house.responder.asked == [house.certificate.serial_number]
    assert house.told == 1
    house.clock.advance(10.9 * 3600)  # of a day that began an hour before
    assert await house.fetcher.round() == 0
    house.clock.advance(600)
    assert await house.fetcher.round() == 1
    assert len(house.responder.asked) == house.told == 2


async def test_another_certificate_has_another_response(house: House) -> None:
    await house.fetcher.round()
    house.issue()
    assert house.stapled() == b""
    assert await house.fetcher.round() == 1
    assert house.stapled() != b""
    kept = certificates.fetched_folder(house.settings)
    assert len(await asyncio.to_thread(lambda: list(kept.iterdir()))) == 1, "that of the one before is gone"


async def test_without_a_responder_nothing_is_asked(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.authority.pair(house.folder, "mx.example")
    with caplog.at_level(logging.DEBUG, logger="smtp_proxy"):
        assert await house.fetcher.round() == 0
    assert house.responder.asked == []
    assert caplog.records == []


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("500", "answered 500"),
        ("garbage", "it can not be read"),
        ("endless", "more than 65536 octets"),
        ("other", "it is about another certificate"),
        ("revoked", "it says that the certificate is revoked"),
        ("old", "it is not fresh"),
        ("changed", "not signed by the issuer"),
        ("stranger", "not signed by the issuer"),
        ("usage", "not signed by the issuer"),
    ],
)
async def test_what_is_no_good_is_not_stapled(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str, reason: str
) -> None:
    authority, certificate = house.authority, house.certificate
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    good = authority.ocsp(certificate)
    flipped = good[:-1] + bytes([good[-1] ^ 1])  # within the signature
    named = authority.ocsp(certificate, delegate=other.responder())
    answers = {
        "500": good,
        "garbage": b"<html>",
        "endless": bytes(70_000),
        "other": authority.ocsp(authority.pair(tmp_path / "else", "else.example")),
        "revoked": authority.ocsp(certificate, status=ocsp.OCSPCertStatus.REVOKED),
        "old": authority.ocsp(certificate, begins=timedelta(days=-2)),
        "changed": flipped,
        "stranger": named,
        "usage": authority.ocsp(certificate, delegate=authority.responder(may_sign=False)),
    }
    house.responder.answer = lambda _: answers[what]
    house.responder.status = 500 if what == "500" else 200
    with caplog.at_level(logging.WARNING):
        assert await house.fetcher.round() == await house.fetcher.round() == 0
    assert house.stapled() == b""
    assert [reason in record.getMessage() for record in caplog.records] == [True], "asked once, told once"
    house.responder.answer, house.responder.status = (lambda _: good), 200
    house.clock.advance(301)
    assert await house.fetcher.round() == 1


async def test_a_responder_that_the_issuer_has_named(house: House) -> None:
    """RFC 6960 4.2.2.2."""
    delegate = house.authority.responder()
    response = house.authority.ocsp(house.certificate, delegate=delegate)
    house.responder.answer = lambda _: response
    assert await house.fetcher.round() == 1
    assert house.stapled() == response


async def test_nobody_answers(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.authority.pair(house.folder, "mx.example", responder="http://127.0.0.1:1/")
    with caplog.at_level(logging.WARNING):
        for _ in range(24 * 12):
            await house.fetcher.round()
            house.clock.advance(300)
    assert 6 <= len(caplog.records) <= 12, "ever less often"
    assert "can not be asked" in caplog.text


async def test_what_was_placed_by_hand_is_stapled_first(house: House) -> None:
    placed = house.authority.ocsp(house.certificate, lasts=timedelta(days=3))
    await asyncio.to_thread((house.folder / "ocsp.der").write_bytes, placed)
    assert await house.fetcher.round() == 0
    assert house.stapled() == placed
    house.clock.advance(timedelta(days=4).total_seconds())
    house.responder.answer = lambda _: house.authority.ocsp(house.certificate, begins=timedelta(days=4))
    assert await house.fetcher.round() == 1
    assert house.stapled() not in (placed, b"")


async def test_a_chain_without_its_issuer_can_not_be_asked_for(house: House, caplog: pytest.LogCaptureFixture) -> None:
    file = house.folder / "fullchain.pem"
    file.write_bytes(house.certificate.public_bytes(Encoding.PEM))
    with caplog.at_level(logging.WARNING):
        assert await house.fetcher.round() == 0
    assert "its issuer is not in the chain" in caplog.text


async def test_must_staple_waits_for_its_response(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """REQ-INFRA-TLS-014, RFC 7633: the one before serves till then."""
    serving = house.read()
    house.issue(staple=True)
    assert must_staple.held_back(house.read(), serving, house.clock.now()).pairs == serving.pairs
    await house.fetcher.round()
    found = house.read()
    assert must_staple.held_back(found, serving, house.clock.now()) == found
    assert found.pairs[0].staple.response
    house.clock.advance(timedelta(days=2).total_seconds())
    stale = house.read()
    with caplog.at_level(logging.ERROR):
        assert must_staple.held_back(stale, stale, house.clock.now()) == stale, "there is no other"
    assert "clients that know of that refuse it" in caplog.text
    house.clock.advance(timedelta(days=30).total_seconds())
    assert must_staple.held_back(stale, serving, house.clock.now()) == stale, "the one before has ended"
