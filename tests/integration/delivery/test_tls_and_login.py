"""STARTTLS, implicit TLS and AUTH: only with the right server, only in safety."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from certificates import Authority
from mail import BODY, job
from pydantic import SecretStr
from scripted_server import ScriptedServer

from smtp_proxy.delivery.pins import pin_of, read_pins
from smtp_proxy.delivery.route import tls_context
from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.errors import CertificateProblem
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult

pytestmark = pytest.mark.integration

TransportTo = Callable[..., SmtpTransport]
WITH_STARTTLS = (b"PIPELINING", b"STARTTLS", b"AUTH PLAIN LOGIN")


def starttls_server(context: ssl.SSLContext, **options: object) -> ScriptedServer:
    return ScriptedServer(tls=context, extensions=WITH_STARTTLS, **options)  # type: ignore[arg-type]


async def deliver(server: ScriptedServer, transport_to: TransportTo, **route: object) -> RecipientResult:
    async with server.running():
        transport = transport_to(server.port, **route)
        (result,) = await transport.deliver(job())
        await transport.close()
    return result


@pytest.fixture(params=["starttls", "implicit"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def server_for(mode: str, context: ssl.SSLContext) -> ScriptedServer:
    server = starttls_server(context)
    server.implicit_tls = mode == "implicit"
    return server


class TestCertificates:
    @pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
    async def test_a_good_one(self, mode: str, name: str, authority: Authority, transport_to: TransportTo) -> None:
        server = server_for(mode, authority.server("localhost", "127.0.0.1"))
        result = await deliver(server, transport_to, host=name, tls=mode, tls_context=tls_context(authority.ca_file))
        assert result.outcome is Outcome.DELIVERED
        assert len(server.received) == 1

    @pytest.mark.parametrize(
        ("names", "days", "text"),
        [(("other.example",), 1, "mismatch"), (("127.0.0.1",), -1, "expired")],
    )
    async def test_a_bad_one(
        self,
        mode: str,
        names: tuple[str, ...],
        *,
        days: int,
        text: str,
        authority: Authority,
        transport_to: TransportTo,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        server = server_for(mode, authority.server(*names, days=days))
        result = await deliver(server, transport_to, tls=mode, tls_context=tls_context(authority.ca_file))
        assert (result.outcome, result.reply_code) == (Outcome.DEFERRED, 0)
        assert "certificate is not accepted" in result.reply_text
        assert text in result.reply_text
        assert not server.verbs["MAIL"]
        assert [record.levelno for record in caplog.records] == [logging.ERROR]

    async def test_one_of_an_unknown_authority(
        self, mode: str, authority: Authority, transport_to: TransportTo
    ) -> None:
        server = server_for(mode, authority.server("127.0.0.1"))
        result = await deliver(server, transport_to, tls=mode, tls_context=tls_context(None))
        assert "certificate is not accepted" in result.reply_text
        assert not server.verbs["MAIL"]

    async def test_an_old_version(self, mode: str, authority: Authority, transport_to: TransportTo) -> None:
        context = authority.server("127.0.0.1")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        result = await deliver(
            server_for(mode, context), transport_to, tls=mode, tls_context=tls_context(authority.ca_file)
        )
        assert (result.outcome, result.reply_code) == (Outcome.DEFERRED, 0)

    def test_a_ca_file_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("no certificate")
        for file in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
            with pytest.raises(CertificateProblem, match="SMARTHOST_CA_FILE"):
                tls_context(file)


class TestPins:
    """REQ-INFRA-TLS-015."""

    @staticmethod
    def pin(file: Path) -> str:
        return pin_of(ssl.PEM_cert_to_DER_cert(file.read_text().partition("-----BEGIN PRIVATE KEY")[0]))

    async def test_the_pinned_key_will_do(self, mode: str, authority: Authority, transport_to: TransportTo) -> None:
        file = authority.issue("127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        pins = read_pins(f"sha256/{'A' * 43}=, {self.pin(file)}")
        result = await deliver(
            server_for(mode, context), transport_to, tls=mode, tls_context=tls_context(authority.ca_file), tls_pins=pins
        )
        assert result.outcome is Outcome.DELIVERED

    @pytest.mark.parametrize(
        ("name", "setting"), [("smarthost", "SMARTHOST_TLS_PINS"), ("relay", "routes.relay.tls_pins")]
    )
    async def test_another_key_will_not_and_the_mail_waits(
        self, name: str, setting: str, mode: str, authority: Authority, transport_to: TransportTo
    ) -> None:
        file = authority.issue("127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        server = server_for(mode, context)
        pins = read_pins(self.pin(authority.issue("127.0.0.1")))
        trusted = tls_context(authority.ca_file)
        result = await deliver(server, transport_to, tls=mode, tls_context=trusted, tls_pins=pins, name=name)
        assert (result.outcome, result.reply_code) == (Outcome.DEFERRED, 0)
        assert f"TLS: the server's public key is {self.pin(file)}, which {setting} does" in result.reply_text
        assert not server.verbs["MAIL"]


class TestStartTls:
    async def test_not_offered(self, authority: Authority, transport_to: TransportTo) -> None:
        server = ScriptedServer(extensions=(b"PIPELINING",))
        result = await deliver(server, transport_to, tls="starttls", tls_context=tls_context(authority.ca_file))
        assert result.outcome is Outcome.DEFERRED
        assert "does not offer STARTTLS" in result.reply_text
        assert not server.verbs["MAIL"]

    async def test_refused(self, authority: Authority, transport_to: TransportTo) -> None:
        server = starttls_server(authority.server("127.0.0.1"))
        server.answers["STARTTLS"] = b"454 4.7.0 not now\r\n"
        result = await deliver(server, transport_to, tls="starttls", tls_context=tls_context(authority.ca_file))
        assert (result.outcome, result.reply_code) == (Outcome.DEFERRED, 454)

    async def test_helo_is_no_way_around_it(self, authority: Authority, transport_to: TransportTo) -> None:
        server = starttls_server(authority.server("127.0.0.1"), answers={"EHLO": b"502 no\r\n"})
        result = await deliver(server, transport_to, tls="starttls", tls_context=tls_context(authority.ca_file))
        assert result.outcome is Outcome.DEFERRED
        assert not server.verbs["HELO"]

    async def test_what_was_said_in_clear_is_forgotten(self, authority: Authority, transport_to: TransportTo) -> None:
        ehlos = 0

        def ehlo(_argument: bytes) -> bytes:
            nonlocal ehlos
            ehlos += 1
            extras = b"250-PIPELINING\r\n250-SIZE 10\r\n250 STARTTLS\r\n" if ehlos == 1 else b"250 8BITMIME\r\n"
            return b"250-scripted\r\n" + extras

        server = starttls_server(authority.server("127.0.0.1"), answers={"EHLO": ehlo})
        result = await deliver(server, transport_to, tls="starttls", tls_context=tls_context(authority.ca_file))
        assert result.outcome is Outcome.DELIVERED, "the SIZE limit of before does not count"
        assert b"SIZE" not in server.received[0].reverse_path

    @pytest.mark.parametrize(
        "injected",
        [
            b"250-evil\r\n250 AUTH PLAIN\r\n",
            b"250 2.1.0 ok\r\n" * 3,
            b"x",
        ],
    )
    @pytest.mark.parametrize("apart", [False, True], ids=["with the 220", "after the 220"])
    async def test_data_in_clear_behind_the_go_ahead(
        self, injected: bytes, apart: bool, authority: Authority, transport_to: TransportTo
    ) -> None:
        """CVE-2021-38371 and its kind: what a man in the middle adds in clear must not be read as from within TLS."""
        injector = Injector()
        injector.serve(injected, apart=apart, context=authority.server("127.0.0.1"))
        transport = transport_to(injector.port, tls="starttls", tls_context=tls_context(authority.ca_file))
        (result,) = await transport.deliver(job())
        await asyncio.to_thread(injector.stop)
        assert (result.outcome, result.reply_code) == (Outcome.DEFERRED, 0)
        assert "in clear" in result.reply_text or "TLS" in result.reply_text
        assert not injector.commands_in_tls


class Injector:
    """A server on plain sockets that adds bytes in clear to its answer to STARTTLS, then does speak TLS."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(5)
        self.port = self.listener.getsockname()[1]
        self.commands_in_tls: list[bytes] = []
        self.thread: threading.Thread | None = None

    def serve(self, injected: bytes, *, apart: bool, context: ssl.SSLContext) -> None:
        self.thread = threading.Thread(target=self._serve, args=(injected, apart, context))
        self.thread.start()

    def _serve(self, injected: bytes, apart: bool, context: ssl.SSLContext) -> None:
        client, _ = self.listener.accept()
        client.settimeout(3)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client:
            client.sendall(b"220 hi\r\n")
            client.recv(1000)
            client.sendall(b"250-hi\r\n250 STARTTLS\r\n")
            client.recv(1000)
            client.sendall(b"220 go\r\n" + (b"" if apart else injected))
            if apart:
                client.sendall(injected)
            try:
                with context.wrap_socket(client, server_side=True) as secure:
                    self.commands_in_tls.append(secure.recv(1000))
            except OSError:
                pass

    def stop(self) -> None:
        self.listener.close()
        if self.thread is not None:
            self.thread.join()


class TestLogin:
    async def test_plain(self, mode: str, authority: Authority, transport_to: TransportTo) -> None:
        server = server_for(mode, authority.server("127.0.0.1"))
        result = await deliver(server, transport_to, **login(authority, mode))
        assert result.outcome is Outcome.DELIVERED
        assert b"AUTH PLAIN " + base64.b64encode(b"\0user\0pass w\xc3\xb6rd") in server.commands

    async def test_login(self, authority: Authority, transport_to: TransportTo) -> None:
        server = starttls_server(authority.server("127.0.0.1"), answers={"AUTH": b"334 VXNlcm5hbWU6\r\n"})
        server.extensions = (b"STARTTLS", b"AUTH LOGIN")
        user, password = (base64.b64encode(raw).decode().upper() for raw in (b"user", "pass wörd".encode()))
        server.answers[user] = b"334 UGFzc3dvcmQ6\r\n"
        server.answers[password] = b"235 2.7.0 welcome\r\n"
        result = await deliver(server, transport_to, **login(authority, "starttls"))
        assert result.outcome is Outcome.DELIVERED
        assert server.verbs[user] == server.verbs[password] == 1

    @pytest.mark.parametrize(
        ("answer", "code"), [(b"535 5.7.8 no\r\n", 535), (b"454 4.7.0 later\r\n", 454), (b"504 5.5.4 no\r\n", 504)]
    )
    async def test_refused(
        self,
        answer: bytes,
        code: int,
        authority: Authority,
        transport_to: TransportTo,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The operator's fault, so the mail waits, and the log says so."""
        server, told = starttls_server(authority.server("127.0.0.1"), answers={"AUTH": answer}), list[int]()
        options = {**login(authority, "starttls"), "login_refused": lambda: told.append(code)}
        result = await deliver(server, transport_to, **options)
        assert (result.outcome, result.reply_code) == (Outcome.DEFERRED, code)
        assert told == ([code] if code != 454 else []), "whoever keeps the password reads it again"
        assert not server.verbs["MAIL"]
        assert any(record.levelno == logging.ERROR for record in caplog.records) == (code != 454)
        assert "pass" not in caplog.text.replace("password", "")
        assert "pass" not in result.reply_text

    async def test_not_offered(self, authority: Authority, transport_to: TransportTo) -> None:
        server = starttls_server(authority.server("127.0.0.1"))
        server.extensions = (b"STARTTLS", b"AUTH GSSAPI")
        result = await deliver(server, transport_to, **login(authority, "starttls"))
        assert result.outcome is Outcome.DEFERRED
        assert "neither" in result.reply_text

    @pytest.mark.parametrize(
        ("name", "setting"), [("smarthost", "SMARTHOST_USERNAME"), ("relay", "routes.relay.username")]
    )
    async def test_never_in_clear(
        self, name: str, setting: str, transport_to: TransportTo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = ScriptedServer(extensions=(b"AUTH PLAIN",))
        monkeypatch.setattr("smtp_proxy.delivery.route.Route.is_loopback", property(lambda _: False))
        result = await deliver(server, transport_to, username="user", password=SecretStr("secret"), name=name)
        assert (result.outcome, result.kind) == (Outcome.DEFERRED, Kind.AUTH)
        assert f"{setting} is set" in result.reply_text
        assert "would show the password" in result.reply_text
        assert not server.verbs["AUTH"]

    async def test_in_clear_on_this_machine(self, transport_to: TransportTo) -> None:
        server = ScriptedServer(extensions=(b"AUTH PLAIN",))
        result = await deliver(server, transport_to, username="user", password=SecretStr("secret"))
        assert result.outcome is Outcome.DELIVERED


def login(authority: Authority, mode: str) -> dict[str, object]:
    return {
        "tls": mode,
        "tls_context": tls_context(authority.ca_file),
        "username": "user",
        "password": SecretStr("pass wörd"),
    }


# -- a server by other hands


class Mailbox:
    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        return "250 2.0.0 kept"


@pytest.fixture
def aiosmtpd_server(authority: Authority) -> Iterator[tuple[int, Mailbox]]:
    def authenticate(_server: SMTP, _session: Session, _envelope: Envelope, _kind: str, data: object) -> AuthResult:
        return AuthResult(success=data == LoginPassword(b"user", "pass wörd".encode()))

    mailbox = Mailbox()
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=0,
        tls_context=authority.server("127.0.0.1"),
        require_starttls=True,
        auth_required=True,
        authenticator=authenticate,
        enable_SMTPUTF8=True,
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        controller.port = probe.getsockname()[1]
    controller.start()
    yield controller.port, mailbox
    controller.stop()


async def test_aiosmtpd(aiosmtpd_server: tuple[int, Mailbox], authority: Authority, transport_to: TransportTo) -> None:
    port, mailbox = aiosmtpd_server
    transport = transport_to(port, **login(authority, "starttls"))
    for _ in range(3):
        results = await transport.deliver(job("a@rcpt.example", "jörg@bücher.example"))
        assert {r.outcome for r in results} == {Outcome.DELIVERED}
    await transport.close()
    assert len(mailbox.envelopes) == 3
    assert mailbox.envelopes[0].rcpt_tos == ["a@rcpt.example", "jörg@bücher.example"]
    assert bytes(mailbox.envelopes[0].original_content or b"").endswith(BODY)
