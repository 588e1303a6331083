"""The certificate files: which are found, which is the default, what is said of those that will not do."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from cryptography.x509.ocsp import OCSPCertStatus

from smtp_proxy.config import Settings
from smtp_proxy.errors import CertificateProblem, ConfigurationError
from smtp_proxy.ingress import certificates, ocsp


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "ca").mkdir()
    return Authority(tmp_path / "ca")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    folder.mkdir()
    return folder


def read(**values: Any) -> certificates.CertificateSet:
    return certificates.read(Settings.load(values, {}), datetime.now(UTC))


class TestStore:
    def test_every_folder_with_a_pair_and_the_first_is_the_default(self, store: Path, authority: Authority) -> None:
        for name in ("b.example", "a.example"):
            authority.pair(store / name, name)
        (store / "lost+found").mkdir()
        (store / "..data").mkdir()
        (store / "README").write_text("a file")
        found = read(tls_cert_dir=store)
        assert [pair.name for pair in found.pairs] == ["a.example", "b.example"]
        chain, key, staple, label = found.for_core()[0]
        assert chain.startswith(b"-----BEGIN CERTIFICATE")
        assert b"PRIVATE KEY" in key
        assert staple == b""
        assert label == f"TLS_CERT_DIR: {store}/a.example/fullchain.pem, {store}/a.example/privkey.pem"

    def test_the_short_names_do_too_and_the_long_ones_come_first(self, store: Path) -> None:
        for folder, names in (("one", ("cert.pem", "key.pem")), ("two", (*certificates.CHAIN_NAMES, "privkey.pem"))):
            (store / folder).mkdir()
            for name in names:
                (store / folder / name).write_bytes(name.encode())
        assert [(p.chain, p.key) for p in read(tls_cert_dir=store).pairs] == [
            (b"cert.pem", b"key.pem"),
            (b"fullchain.pem", b"privkey.pem"),
        ]

    @pytest.mark.parametrize(
        ("default", "expected"),
        [
            ("", ["", "a.example", "b.example"]),
            ("b.example", ["b.example", "", "a.example"]),  # by its folder
            ("other.b.example", ["b.example", "", "a.example"]),  # by a name in it
            ("SINGLE.example", ["", "a.example", "b.example"]),
        ],
    )
    def test_who_is_the_default(self, store: Path, authority: Authority, default: str, expected: list[str]) -> None:
        single = authority.issue("single.example")
        authority.pair(store / "a.example", "a.example")
        authority.pair(store / "b.example", "b.example", "other.b.example")
        found = read(tls_cert_dir=store, tls_cert_file=single, tls_key_file=single, tls_default_name=default)
        assert [pair.name for pair in found.pairs] == expected

    def test_a_default_that_is_none_is_told_what_there_is(self, store: Path, authority: Authority) -> None:
        authority.pair(store / "a.example", "a.example")
        with pytest.raises(
            ConfigurationError, match=r"^TLS_DEFAULT_NAME: .* for nobody\.example; there are a\.example"
        ):
            read(tls_cert_dir=store, tls_default_name="nobody.example")

    @pytest.mark.parametrize(
        ("gone", "said"), [("privkey.pem", "privkey.pem or key.pem"), ("fullchain.pem", "cert.pem")]
    )
    def test_half_a_pair_is_named(self, store: Path, authority: Authority, gone: str, said: str) -> None:
        authority.pair(store / "a.example", "a.example")
        (store / "a.example" / gone).unlink()
        with pytest.raises(CertificateProblem, match=rf"^TLS_CERT_DIR: {store}/a\.example has no .*{said}"):
            read(tls_cert_dir=store)

    def test_an_empty_store_and_a_missing_one(self, store: Path) -> None:
        with pytest.raises(ConfigurationError, match="TLS_CERT_DIR has no certificate"):
            read(tls_cert_dir=store)
        with pytest.raises(CertificateProblem, match=r"TLS_CERT_DIR: can not read .*missing"):
            read(tls_cert_dir=store / "missing")

    def test_rules_for_clients_are_read_where_they_are_asked_for(self, store: Path, authority: Authority) -> None:
        authority.pair(store / "a.example", "a.example")
        crl = store / "crl.pem"
        crl.write_bytes(authority.revoke())
        rules = {"tls_client_ca_file": authority.ca_file, "tls_client_crl_file": crl}
        assert read(tls_cert_dir=store, **rules).client_ca == b""
        found = read(tls_cert_dir=store, tls_client_auth="optional", **rules)
        assert (found.client_ca, found.client_crl) == (authority.certificate_pem, crl.read_bytes())


class TestStamp:
    @pytest.fixture
    def settings(self, store: Path, authority: Authority) -> Settings:
        authority.pair(store / "a.example", "a.example")
        return Settings.load({"tls_cert_dir": store}, {})

    def test_it_stays_while_nothing_changes(self, settings: Settings) -> None:
        assert certificates.stamp(settings) == certificates.stamp(settings)

    def test_it_differs_when_anything_does(self, settings: Settings, store: Path, authority: Authority) -> None:
        stamps = [certificates.stamp(settings)]
        authority.pair(store / "a.example", "a.example")
        stamps.append(certificates.stamp(settings))
        authority.pair(store / "b.example", "b.example")
        stamps.append(certificates.stamp(settings))
        (store / "b.example" / "ocsp.der").write_bytes(b"x")
        stamps.append(certificates.stamp(settings))
        os.utime(store / "a.example" / "privkey.pem", ns=(1, 1))
        stamps.append(certificates.stamp(settings))
        (store / "b.example" / "privkey.pem").unlink()
        stamps.append(certificates.stamp(settings))  # half a pair is seen too
        (store / "b.example" / "privkey.pem").write_bytes(b"x")
        stamps.append(certificates.stamp(settings))
        for number, stamp in enumerate(stamps):
            assert stamp not in stamps[:number]

    def test_a_link_that_points_elsewhere_is_a_change(
        self, settings: Settings, store: Path, authority: Authority
    ) -> None:
        """As certbot's live/NAME and Kubernetes' mounted secrets change."""
        for number in "12":
            authority.pair(store.parent / f"archive{number}", "link.example")
        (store / "link.example").symlink_to(store.parent / "archive1")
        before = certificates.stamp(settings)
        (store / "link.example").unlink()
        (store / "link.example").symlink_to(store.parent / "archive2")
        assert certificates.stamp(settings) != before


class TestStaple:
    def test_a_good_response_goes_with_its_pair(self, store: Path, authority: Authority) -> None:
        response = authority.ocsp(authority.pair(store / "a.example", "a.example"))
        (store / "a.example" / "ocsp.der").write_bytes(response)
        found = read(tls_cert_dir=store)
        assert found.for_core()[0][2] == response
        until = found.renewal_of_staples()
        assert until is not None
        assert timedelta(hours=22) < until - datetime.now(UTC) < timedelta(days=1)

    def test_the_one_of_the_single_pair_has_a_setting(self, tmp_path: Path, authority: Authority) -> None:
        certificate = authority.pair(tmp_path, "a.example")
        (tmp_path / "response").write_bytes(authority.ocsp(certificate))
        single = {"tls_cert_file": tmp_path / "fullchain.pem", "tls_key_file": tmp_path / "privkey.pem"}
        assert read(**single, tls_ocsp_file=tmp_path / "response").for_core()[0][2]
        with pytest.raises(CertificateProblem, match="TLS_OCSP_FILE: can not read"):
            read(**single, tls_ocsp_file=tmp_path / "missing")

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"status": OCSPCertStatus.REVOKED}, "the certificate is revoked"),
            ({"status": OCSPCertStatus.UNKNOWN}, "the certificate is unknown"),
            ({"begins": timedelta(days=-3), "lasts": timedelta(days=1)}, "not fresh: its next update is 20"),
            ({"lasts": None}, "not fresh: its next update is none"),
            ({"begins": timedelta(days=1)}, "still to come"),
        ],
    )
    def test_one_that_will_not_do_is_left_off(
        self, tmp_path: Path, authority: Authority, changes: dict[str, Any], said: str
    ) -> None:
        certificate = authority.pair(tmp_path, "a.example")
        found = ocsp.staple(
            authority.ocsp(certificate, **changes), (tmp_path / "fullchain.pem").read_bytes(), datetime.now(UTC)
        )
        assert (found.response, found.until) == (b"", None)
        assert said in found.refused

    def test_one_of_another_certificate_or_issuer_is_left_off(self, tmp_path: Path, authority: Authority) -> None:
        other = authority.pair(tmp_path / "other", "a.example")
        certificate = authority.pair(tmp_path / "own", "a.example")
        chain = (tmp_path / "own" / "fullchain.pem").read_bytes()
        assert "another certificate" in ocsp.staple(authority.ocsp(other), chain, datetime.now(UTC)).refused
        (tmp_path / "impostor").mkdir()
        impostor = Authority(tmp_path / "impostor")  # of the same name, with another key
        whole = chain + authority.certificate_pem
        assert ocsp.staple(authority.ocsp(certificate), whole, datetime.now(UTC)).response
        assert "another certificate" in ocsp.staple(impostor.ocsp(certificate), whole, datetime.now(UTC)).refused

    @pytest.mark.parametrize("response", [b"x", b"\x30\x03\x0a\x01\x06"])
    def test_garbage_and_a_refusal_are_left_off(self, tmp_path: Path, authority: Authority, response: bytes) -> None:
        authority.pair(tmp_path, "a.example")
        found = ocsp.staple(response, (tmp_path / "fullchain.pem").read_bytes(), datetime.now(UTC))
        assert found.response == b""
        assert found.refused
