"""Certificates of a running service: how they are replaced, and how those of clients log in."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
from pathlib import Path

import pytest
from certificates import Authority
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from fix_ingress import USERNAME, Client, House, MakeHouse, eventually
from ocsp_responder import responding
from stopwatch import Stopwatch

from smtp_proxy.cli.control import ask
from smtp_proxy.errors import CertificateProblem

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

NAMES = ("localhost", "127.0.0.1")


@pytest.fixture
def store(tmp_path: Path, authority: Authority) -> Path:
    authority.pair(tmp_path / "certs" / "main", *NAMES)
    return tmp_path / "certs"


def own_data(tmp_path: Path, store: Path) -> dict[str, object]:
    return {"data_dir": tmp_path, "tls_cert_dir": store, "tls_cert_file": None, "tls_key_file": None}


async def shown(house: House) -> bytes:
    """SHA-256 of what a client without a name is shown."""
    client = await house.connected()
    tls = client.writer.get_extra_info("ssl_object")
    certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
    await client.hang_up()
    return certificate.fingerprint(hashes.SHA256())


async def shows(house: House, certificate: x509.Certificate) -> None:
    expected = certificate.fingerprint(hashes.SHA256())

    async def so() -> bool:
        return await shown(house) == expected

    await eventually(so, 5)


@pytest.mark.parametrize("way", ["socket", "signal", "database", "files"])
async def test_a_new_certificate_is_shown_and_nobody_is_disturbed(
    make_house: MakeHouse, tmp_path: Path, store: Path, authority: Authority, way: str
) -> None:
    """REQ-INFRA-TLS-005, REQ-INFRA-TLS-013."""
    house = await make_house(**own_data(tmp_path, store), tls_watch_seconds=0.3 if way == "files" else 0.0)
    await house.start()
    client = await house.client()
    await client.begin()  # In the middle of a message.
    renewed = authority.pair(store / "main", *NAMES)
    if way == "socket":
        answer = await asyncio.to_thread(ask, house.settings.control_socket, "reload")
        assert [each["fingerprint"] for each in answer["certificates"]] == [renewed.fingerprint(hashes.SHA256()).hex()]
    elif way == "signal":
        os.kill(os.getpid(), signal.SIGHUP)
    elif way == "database":
        await house.sql("NOTIFY smtp_proxy_certificates")
    with Stopwatch() as reload:
        await shows(house, renewed)
    assert reload.seconds < 3
    client.send(b"Subject: still here\r\n\r\n.\r\n")
    assert (await client.expect(250)).startswith("250 2.0.0 queued as")


async def test_a_bad_one_is_refused_with_its_reason(
    make_house: MakeHouse, tmp_path: Path, store: Path, authority: Authority
) -> None:
    house = await make_house(**own_data(tmp_path, store), tls_watch_seconds=0.0)
    await house.start()
    before = await shown(house)
    authority.pair(store / "main", *NAMES, days=-1)
    with pytest.raises(CertificateProblem, match=rf"^TLS_CERT_DIR: {store}/main/fullchain\.pem.* expired on"):
        await asyncio.to_thread(ask, house.settings.control_socket, "reload")
    assert await shown(house) == before
    listed = await asyncio.to_thread(ask, house.settings.control_socket, "certificates")
    assert [each["fingerprint"] for each in listed["certificates"]] == [before.hex()]


async def test_a_response_is_fetched_and_stapled(
    make_house: MakeHouse, tmp_path: Path, store: Path, authority: Authority
) -> None:
    """REQ-INFRA-TLS-014: as OpenSSL sees it, by itself, and for a new certificate too."""
    async with responding() as responder:
        first = authority.pair(store / "main", *NAMES, responder=responder.url)
        responder.answer = lambda _: authority.ocsp(first)
        house = await make_house(**own_data(tmp_path, store), tls_watch_seconds=0.1)
        await house.start()
        await staples(house, first)
        second = authority.pair(store / "main", *NAMES, responder=responder.url)
        responder.answer = lambda _: authority.ocsp(second)
        await staples(house, second)


async def staples(house: House, certificate: x509.Certificate) -> None:
    host, port = house.addresses["tls"]
    command = ("openssl", "s_client", "-status", "-connect", f"{host}:{port}")

    async def so() -> bool:
        done = await asyncio.to_thread(
            subprocess.run, command, input=b"QUIT\r\n", capture_output=True, check=False, timeout=10
        )
        serial = f"{certificate.serial_number:X}".encode()
        return b"OCSP Response Status: successful" in done.stdout and serial in done.stdout

    await eventually(so, 10)


def with_certificate(authority: Authority, file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca_file)
    context.load_cert_chain(file)
    return context


class TestClients:
    """REQ-INFRA-TLS-003."""

    @pytest.fixture
    async def house(self, make_house: MakeHouse, tmp_path: Path, store: Path, authority: Authority) -> House:
        (tmp_path / "crl.pem").write_bytes(authority.revoke())
        made = await make_house(
            **own_data(tmp_path, store),
            tls_watch_seconds=0.0,
            tls_client_auth="optional",
            tls_client_ca_file=authority.ca_file,
            tls_client_crl_file=tmp_path / "crl.pem",
        )
        await made.start()
        return made

    async def says(self, house: House, context: ssl.SSLContext, line: str = "AUTH EXTERNAL =") -> str:
        """What a client with that certificate hears."""
        client = await Client.connect(house.addresses["tls"], context)
        try:
            await client.expect(220)
            client.send(b"EHLO client.example\r\n")
            while not (offered := await client.reader.readline()).startswith(b"250 "):
                if offered.startswith(b"250-AUTH"):
                    assert b"EXTERNAL" in offered
            return await client.say(line)
        finally:
            await client.vanish()

    async def hears(self, house: House, context: ssl.SSLContext, code: str) -> None:
        async def so() -> bool:
            return (await self.says(house, context)).startswith(code)

        await eventually(so, 10)

    async def test_a_certificate_logs_in_as_long_as_it_is_somebody_s(self, house: House, authority: Authority) -> None:
        file = authority.issue("app.example")
        context = with_certificate(authority, file)
        fingerprint = x509.load_pem_x509_certificate(file.read_bytes()).fingerprint(hashes.SHA256()).hex()
        assert (await self.says(house, context)).startswith("535 5.7.8")
        await house.store.add_certificate(USERNAME, f"sha256:{fingerprint}")
        await self.hears(house, context, "235")
        await house.store.disable_credential(USERNAME)
        await self.hears(house, context, "535")
        await house.store.enable_credential(USERNAME)
        await self.hears(house, context, "235")
        await house.sql("UPDATE tenants SET disabled_at = now()")
        await self.hears(house, context, "535")
        await house.sql("UPDATE tenants SET disabled_at = NULL")
        await self.hears(house, context, "235")
        await house.store.remove_certificate(USERNAME, f"sha256:{fingerprint}")
        await self.hears(house, context, "535")

    async def test_by_a_name_in_it_and_mail_is_the_credential_s(self, house: House, authority: Authority) -> None:
        await house.store.add_certificate(USERNAME, "dns:app.example")
        context = with_certificate(authority, authority.issue("app.example", "other.example"))
        client = await Client.connect(house.addresses["tls"], context)
        await client.expect(220)
        await client.command(250, "EHLO client.example")
        assert (await client.say("AUTH EXTERNAL =")).startswith("235")
        await client.submit()
        await client.hang_up()
        (row,) = await house.sql("SELECT credential_id FROM envelopes")
        assert row["credential_id"] == house.credential.id

    async def test_one_that_was_revoked_is_refused_after_the_reload(
        self, house: House, authority: Authority, tmp_path: Path
    ) -> None:
        await house.store.add_certificate(USERNAME, "dns:app.example")
        file = authority.issue("app.example")
        context = with_certificate(authority, file)
        await self.hears(house, context, "235")
        crl = authority.revoke(x509.load_pem_x509_certificate(file.read_bytes()))
        (tmp_path / "crl.pem").write_bytes(crl)
        await asyncio.to_thread(ask, house.settings.control_socket, "reload")
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await self.says(house, context)
        assert (await self.says(house, with_certificate(authority, authority.issue("app.example")))).startswith("235")

    async def test_without_one_passwords_do_as_before(self, house: House) -> None:
        client = await house.client()
        await client.submit()
