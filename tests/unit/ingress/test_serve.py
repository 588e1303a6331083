"""From settings to the core: every setting arrives, and what is wrong is told by the setting's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from certificates import Authority

from smtp_proxy.config import Settings
from smtp_proxy.core import ServerConfig
from smtp_proxy.errors import CertificateProblem, ConfigurationError
from smtp_proxy.ingress import serve
from smtp_proxy.ingress.certificates import CertificateSet, Pair
from smtp_proxy.ingress.ocsp import Staple
from smtp_proxy.model.tenant import Identity
from smtp_proxy.store.memory import MemoryStore

IDENTITY = Identity(UUID(int=1), UUID(int=2), "bench", ("example.com",))
PAIR = CertificateSet((Pair("", "files", b"chain", b"key", Staple()),), b"ca", b"crl")
# Settings that the core is told nothing of by themselves: who submits in plaintext is looked up first.
NOT_FOR_THE_CORE = {"smtp_plaintext_username", "smtp_control_socket"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def settings(**values: Any) -> Settings:
    return Settings.load(values, {})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`told(settings, identity)`: what the core would be told."""

    def translate(given: Settings, identity: Identity | None = IDENTITY) -> dict[str, Any]:
        with monkeypatch.context() as patch:
            patch.setattr(serve, "ServerConfig", dict)
            config: Any = serve.core_config(given, PAIR, identity)
        return dict(config)

    return translate


def test_the_settings_by_their_names_in_the_core(told: Any) -> None:
    given = settings(
        hostname="mx.example.com",
        smtp_host="192.0.2.1",
        smtp_starttls_port=587,
        smtp_tls_port=465,
        smtp_plaintext_port=2526,
        smtp_threads=3,
        smtp_max_connections=11,
        smtp_max_in_flight_bytes=2_000_000,
        smtp_command_timeout_seconds=1.5,
        smtp_data_timeout_seconds=2.5,
        smtp_handshake_timeout_seconds=3.5,
        smtp_session_max_seconds=4.5,
        smtp_max_command_line_bytes=600,
        smtp_max_auth_line_bytes=700,
        smtp_max_text_line_bytes=1001,
        smtp_max_message_bytes=70_000,
        smtp_max_recipients=12,
        smtp_max_errors_per_session=13,
        smtp_max_auth_failures_per_session=14,
        smtp_max_messages_per_session=15,
        smtp_max_hops=16,
        smtp_add_missing_headers=False,
        smtp_strip_bcc=False,
        tls_min_version="1.3",
        tls_ticket_seconds=60,
        tls_client_auth="optional",
        tls_client_ca_file="/ca.pem",
        smtp_max_idle_commands_per_session=18,
        smtp_proxy_protocol_networks="10.0.0.0/8,2001:db8::/32",
        smtp_login_ban_seconds=17.5,
    )
    assert told(given) == {
        "hostname": "mx.example.com",
        "software": "smtp-proxy",
        "starttls_address": "192.0.2.1:587",
        "tls_address": "192.0.2.1:465",
        "plaintext_address": "127.0.0.1:2526",
        "plaintext_identity": (UUID(int=1).bytes, UUID(int=2).bytes, "bench", ("example.com",)),
        "certificates": [(b"chain", b"key", b"", "files")],
        "limits": {
            "command_line_bytes": 600,
            "auth_line_bytes": 700,
            "text_line_bytes": 1001,
            "message_bytes": 70_000,
            "recipients": 12,
            "errors_per_session": 13,
            "auth_failures_per_session": 14,
            "messages_per_session": 15,
            "hops": 16,
            "idle_commands_per_session": 18,
        },
        "command_timeout_seconds": 1.5,
        "data_timeout_seconds": 2.5,
        "handshake_timeout_seconds": 3.5,
        "session_max_seconds": 4.5,
        "max_connections": 11,
        "max_in_flight_bytes": 2_000_000,
        "threads": 3,
        "add_missing_headers": False,
        "strip_bcc": False,
        "tls13_only": True,
        "ticket_seconds": 60,
        "client_auth": "optional",
        "client_ca": b"ca",
        "client_crl": b"crl",
        "protection": {
            "proxy_protocol_timeout_seconds": 5.0,
            "max_connections_per_address": 1000,
            "max_new_connections_per_address_per_minute": 6000,
            "ipv6_prefix_bits": 64,
            "login_timeout_seconds": 120.0,
            "login_delay_seconds": 1.0,
            "login_delay_max_seconds": 10.0,
            "login_failures_before_ban": 100,
            "login_failures_window_seconds": 600.0,
            "login_ban_seconds": 17.5,
            "min_data_bytes_per_second": 500,
            "min_data_grace_seconds": 60.0,
            "max_sessions_per_credential": 1000,
        },
        "proxy_networks": ["10.0.0.0/8", "2001:db8::/32"],
    }


@pytest.mark.parametrize(
    "name", sorted(name for name in Settings.model_fields if name.startswith("smtp_") and name not in NOT_FOR_THE_CORE)
)
def test_no_smtp_setting_is_forgotten(told: Any, name: str) -> None:
    before = settings(smtp_plaintext_port=2526)
    value = getattr(before, name)
    other = not value if isinstance(value, bool) else "192.0.2.1" if isinstance(value, str) else value + 1
    assert told(before.model_copy(update={name: other})) != told(before)


def test_addresses_of_ipv6_are_in_brackets(told: Any) -> None:
    config = told(settings(smtp_host="::1", smtp_tls_port=465))
    assert config["tls_address"] == "[::1]:465"


def test_the_greeting_says_that_mail_is_discarded(told: Any) -> None:
    assert "discarded" in told(settings(smtp_accept_only=True))["software"]


def test_without_an_identity_nobody_listens_in_plaintext(told: Any) -> None:
    config = told(settings(smtp_plaintext_port=2526), None)
    assert (config["plaintext_address"], config["plaintext_identity"]) == (None, None)


def test_a_pattern_that_is_none_is_named(told: Any) -> None:
    nobody = Identity(UUID(int=1), UUID(int=2), "bench", ("example.com", "not a pattern"))
    with pytest.raises(ConfigurationError, match=r'SMTP_PLAINTEXT_USERNAME: "not a pattern" is no sender pattern'):
        serve.make_core(settings(smtp_plaintext_port=0), PAIR, nobody)


def test_the_core_takes_the_defaults_and_shows_no_key() -> None:
    config = serve.core_config(settings(smtp_plaintext_port=0), PAIR, IDENTITY)
    assert isinstance(config, ServerConfig)
    assert "key" not in repr(config)


class TestCertificates:
    def test_both_files_are_read(self, tmp_path: Path) -> None:
        chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
        chain.write_bytes(b"a chain")
        key.write_bytes(b"a key")
        given = settings(tls_cert_file=chain, tls_key_file=key)
        (pair,) = serve.read_certificates(given).pairs
        assert (pair.chain, pair.key) == (b"a chain", b"a key")

    def test_none_is_a_question_of_settings(self) -> None:
        with pytest.raises(ConfigurationError, match="TLS_CERT_FILE and TLS_KEY_FILE are not set"):
            serve.read_certificates(settings())

    @pytest.mark.parametrize("missing", ["tls_cert_file", "tls_key_file"])
    @pytest.mark.parametrize("instead", ["nothing", "a folder"])
    def test_one_that_cannot_be_read_is_named(self, tmp_path: Path, missing: str, instead: str) -> None:
        there, gone = tmp_path / "there.pem", tmp_path / "gone.pem"
        there.write_bytes(b"x")
        if instead == "a folder":
            gone.mkdir()
        given = settings(**{"tls_cert_file": there, "tls_key_file": there, missing: gone})
        with pytest.raises(CertificateProblem, match=rf"^{missing.upper()}: can not read .*gone\.pem: \w"):
            serve.read_certificates(given)

    @pytest.mark.parametrize("broken", ["not PEM", "another's key", "expired"])
    async def test_a_pair_that_cannot_serve_is_named_by_its_files(
        self, tmp_path: Path, authority: Authority, broken: str
    ) -> None:
        key = authority.issue("other.example")
        chain = authority.issue("localhost", days=-1 if broken == "expired" else 1)
        if broken == "not PEM":
            chain = tmp_path / "chain.pem"
            chain.write_bytes(b"no certificate")
        given = settings(tls_cert_file=chain, tls_key_file=key)
        with pytest.raises(CertificateProblem) as raised:
            serve.make_core(given, serve.read_certificates(given))
        assert str(raised.value).startswith(f"TLS_CERT_FILE, TLS_KEY_FILE: {chain}, {key}: ")
        assert "PRIVATE KEY-" not in str(raised.value)

    async def test_a_good_pair_makes_a_core(self, authority: Authority) -> None:
        file = authority.issue("localhost")
        given = settings(tls_cert_file=file, tls_key_file=file)
        assert serve.make_core(given, serve.read_certificates(given)).stats()["connections_total"] == 0


def test_what_the_core_refuses_is_the_operators_to_mend(authority: Authority) -> None:
    file = authority.issue("localhost")
    given = settings(tls_cert_file=file, tls_key_file=file).model_copy(update={"smtp_max_recipients": 40_000})
    with pytest.raises(ConfigurationError, match="recipients = 40000 is out of range"):
        serve.make_core(given, serve.read_certificates(given))


class TestPlaintextIdentity:
    async def test_no_listener_needs_none(self) -> None:
        assert await serve._plaintext_identity(settings(smtp_plaintext_username="bench"), MemoryStore()) is None

    async def test_the_credential_is_looked_up(self) -> None:
        store = MemoryStore()
        tenant = await store.create_tenant("acme")
        credential = await store.create_credential(tenant.id, "bench", "hash")
        identity = await serve._plaintext_identity(plaintext("bench"), store)
        assert identity == Identity(tenant.id, credential.id, "bench")

    @pytest.mark.parametrize("username", ["", "nobody"])
    async def test_without_a_credential_it_says_how_to_make_one(self, username: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"^SMTP_PLAINTEXT_USERNAME: .*'{username}'.*credential create"):
            await serve._plaintext_identity(plaintext(username), MemoryStore())

    async def test_a_disabled_credential_submits_nothing(self) -> None:
        store = MemoryStore()
        await store.create_credential((await store.create_tenant("acme")).id, "bench", "hash")
        await store.disable_credential("bench")
        with pytest.raises(ConfigurationError, match=r"^SMTP_PLAINTEXT_USERNAME: .*'bench' is disabled"):
            await serve._plaintext_identity(plaintext("bench"), store)

    async def test_what_is_discarded_needs_no_name(self) -> None:
        identity = await serve._plaintext_identity(plaintext("", smtp_accept_only=True), MemoryStore())
        assert identity == Identity(UUID(int=0), UUID(int=0), "accept-only")

    async def test_but_a_name_that_is_given_must_be_right(self) -> None:
        with pytest.raises(ConfigurationError, match="'nobody'"):
            await serve._plaintext_identity(plaintext("nobody", smtp_accept_only=True), MemoryStore())


def plaintext(username: str, **values: Any) -> Settings:
    return settings(smtp_plaintext_port=0, smtp_plaintext_username=username, **values)
