"""Real servers for the client: aiosmtpd with real certificates, and a socket that follows a script.

Everything runs in this process on loopback; nothing here stands in for the client's own parts.
"""

import asyncio
import dataclasses
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import jsonschema
import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import smtp_proxy_client
from smtp_proxy_client.cli import main

USER, PASSWORD = "tenant1@example.com", "s3cret-pa$$"
SCHEMA = Path(__file__).parents[1] / "schema.json"


@dataclasses.dataclass
class Issued:
    """A certificate with its key, also as a file for servers (PEM, both)."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    path: Path


class Authority:
    """A CA that issues what a test asks for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = self._issue("Test Root", None, ["ca"], is_ca=True)
        self.ca_file = self.root.path

    def issue(self, *names: str, days: tuple[int, int] = (-1, 30), self_signed: bool = False) -> Issued:
        """A server certificate for the names, valid from and to so many days from now."""
        return self._issue(names[0], None if self_signed else self.root, list(names), days=days)

    def _issue(
        self,
        common_name: str,
        issuer: Issued | None,
        names: list[str],
        *,
        days: tuple[int, int] = (-1, 30),
        is_ca: bool = False,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        issuer_name = issuer.certificate.subject if issuer else subject
        issuer_key = issuer.key if issuer else key
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1], minutes=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName(list(map(general_name, names))), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=is_ca,
                    crl_sign=is_ca,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        certificate = builder.sign(issuer_key, hashes.SHA256())
        path = self.folder / f"{certificate.serial_number:x}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Issued(certificate, key, path)


def general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Mailbox:
    """An aiosmtpd handler that keeps what arrives, and answers as it is told."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.arrivals: list[float] = []
        self.tls: list[bool] = []
        self.logins: list[tuple[str, str]] = []
        self.hellos: list[str] = []
        self.connections = 0
        self.slowness_seconds = 0.0
        self.together: asyncio.Barrier | None = None  # Nobody is answered before so many are there.
        self.arrived = threading.Event()
        self.present = 0
        self.peak = 0
        self.on_recipient: Callable[[str], str | None] = lambda _address: None
        self.on_data: Callable[[int], str | None] = lambda _count: None
        self.hangs_up_at: Callable[[int], bool] = lambda _count: False

    def authenticate(self, server, session, envelope, mechanism, data) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((mechanism, data.login.decode()))
        good = (data.login.decode(), data.password.decode()) == (USER, PASSWORD)
        # handled=False leaves the reply, 535, to aiosmtpd.
        return AuthResult(success=good, handled=False)

    async def handle_EHLO(self, server, session, envelope, hostname, responses) -> list[str]:
        session.host_name = hostname
        self.hellos.append(hostname)
        return responses

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:
        refusal = self.on_recipient(address)
        if refusal:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:
        await self._linger()
        self.arrivals.append(time.monotonic())
        if self.hangs_up_at(len(self.arrivals)):
            server.transport.abort()
            return "421 4.3.2 gone"
        self.envelopes.append(envelope)
        self.tls.append(session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None)
        return self.on_data(len(self.envelopes)) or "250 2.0.0 taken"

    async def _linger(self) -> None:
        self.present += 1
        self.peak = max(self.peak, self.present)
        self.arrived.set()
        try:
            if self.together:
                await self.together.wait()
            await asyncio.sleep(self.slowness_seconds)
        finally:
            self.present -= 1


@dataclasses.dataclass
class Server:
    """A running server and how to reach it."""

    host: str
    port: int
    mailbox: Mailbox
    listener: asyncio.Server

    def options(self, *more: str) -> list[str]:
        return ["--host", self.host, "--port", str(self.port), *more]


class Loop:
    """An event loop in a thread, for the servers of one test."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="servers")
        self._servers: list[asyncio.Server] = []
        self._thread.start()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=10)

    def serve(self, factory, sock: socket.socket, context: ssl.SSLContext | None) -> asyncio.Server:
        server = self.call(self.loop.create_server(factory, sock=sock, ssl=context))
        self._servers.append(server)
        return server

    def close(self) -> None:
        self.call(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def listening(host: str = "127.0.0.1") -> socket.socket:
    # asyncio switches Nagle's delay off only where the protocol is named.
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind((host, 0))
    sock.listen(64)
    return sock


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def good(authority: Authority) -> Issued:
    return authority.issue("localhost", "127.0.0.1", "::1")


@pytest.fixture
def serve(good: Issued) -> Iterator[Callable[..., Server]]:
    """Start a server: `serve(tls="implicit", issued=..., mechanisms=["LOGIN"], ...)`."""
    loop = Loop()

    def start(
        tls: str = "starttls",
        issued: Issued = good,
        host: str = "127.0.0.1",
        mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN"),
        **options,
    ) -> Server:
        mailbox, sock = Mailbox(), listening(host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.path)
        options.setdefault("enable_SMTPUTF8", True)

        def session() -> SMTP:
            mailbox.connections += 1
            return SMTP(
                mailbox,
                loop=loop.loop,
                hostname="mail.example.com",
                tls_context=context if tls == "starttls" else None,
                require_starttls=tls == "starttls",
                authenticator=mailbox.authenticate,
                auth_require_tls=tls == "starttls",
                auth_exclude_mechanism={"PLAIN", "LOGIN"} - set(mechanisms),
                **options,
            )

        port = sock.getsockname()[1]
        listener = loop.serve(session, sock, context if tls == "implicit" else None)
        return Server(host, port, mailbox, listener)

    yield start
    loop.close()


@pytest.fixture
def script() -> Iterator[Callable[..., int]]:
    """A server that sends its lines, one per line received; a callable gets the socket; then it hangs up."""
    sockets, threads, ended = [], [], threading.Event()

    def start(*steps, hold_open: bool = False) -> int:
        sock = listening()
        sockets.append(sock)

        def play() -> None:
            while not ended.is_set():
                try:
                    connection, _ = sock.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    try:
                        _follow(connection, steps)
                        if hold_open:
                            ended.wait(5)
                    except OSError:
                        pass  # The client left: its right.

        thread = threading.Thread(target=play, name="script")
        threads.append(thread)
        thread.start()
        return sock.getsockname()[1]

    yield start
    ended.set()
    for sock in sockets:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()


def _follow(connection: socket.socket, steps) -> None:
    for number, step in enumerate(steps):
        if number:
            _read_line(connection)
        if callable(step):
            step(connection)
        else:
            connection.sendall(step)


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise OSError("gone")
        line += byte
    return line


@dataclasses.dataclass
class Ran:
    """How a run of the client ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def client(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run the command line in this process."""
    monkeypatch.delenv("SMTP_PROXY_CLIENT_PASSWORD", raising=False)

    def run(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def environment() -> dict[str, str]:
    """All that a client in a process of its own is told."""
    return {"PYTHONPATH": str(Path(smtp_proxy_client.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""}


@pytest.fixture
def spawn(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command line in a process of its own, which can be sent signals."""
    processes = []

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "smtp_proxy_client", *map(str, arguments)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def checked() -> Callable[[str], dict]:
    """What --json printed, once it has passed schema.json."""
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    def parse(text: str) -> dict:
        result = json.loads(text, parse_constant=pytest.fail)
        validator.validate(result)
        return result

    return parse
