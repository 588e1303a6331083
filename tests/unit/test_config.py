"""Settings: where they come from, and what is said when one is wrong."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.config import CONFIG_FILE_VARIABLE, Settings, environment_name
from smtp_proxy.errors import ConfigurationError


def test_the_stronger_source_wins(tmp_path: Path) -> None:
    file = tmp_path / "smtp-proxy.toml"
    file.write_text('db_host = "from-file"\ndb_port = 1111\n[smtp]\ntls_port = 1465\nstarttls_port = 1587\n')
    environ = {CONFIG_FILE_VARIABLE: str(file), "DB_PORT": "2222", "SMTP_TLS_PORT": "2465", "PATH": "/bin"}
    settings = Settings.load({"smtp_tls_port": "3465"}, environ)
    assert (settings.db_host, settings.db_port) == ("from-file", 2222)
    assert (settings.smtp_starttls_port, settings.smtp_tls_port) == (1587, 3465)


def test_names_that_others_use_carry_our_prefix() -> None:
    settings = Settings.load({}, {"HOSTNAME": "a container", "MODE": "x", "SMTP_PROXY_HOSTNAME": "mail.example.com"})
    assert settings.hostname == "mail.example.com"
    assert settings.mode == "development"


@pytest.mark.parametrize(
    ("overrides", "environ", "said"),
    [
        ({}, {"DB_PORT": "many"}, r"environment variable DB_PORT: .*integer"),
        ({}, {"DB_PORT": "70000"}, r"environment variable DB_PORT: .*65535"),
        ({"no_such": "1"}, {}, r"--set no_such: there is no such setting"),
        ({"db_host": "two words"}, {}, r"--set db_host: must be a host name"),
        ({"hostname": ""}, {}, r"--set hostname: must be a host name"),
        (
            {"ingress_ready_depth_low": "60000"},
            {},
            r"^INGRESS_READY_DEPTH_LOW must not be above INGRESS_READY_DEPTH_HIGH$",
        ),
        ({"db_pooler": "transaction"}, {}, r"^DB_POOLER=transaction needs DB_DIRECT_HOST or DB_DIRECT_PORT"),
        ({"tls_cert_file": "/x"}, {}, r"^TLS_CERT_FILE and TLS_KEY_FILE go together"),
        (
            {"smarthost_username": "x", "smarthost_tls": "none", "mode": "production"},
            {},
            r"^SMARTHOST_USERNAME needs SMARTHOST_TLS=starttls .* SMTP_PROXY_MODE is production$",
        ),
        ({}, {CONFIG_FILE_VARIABLE: "/no/such.toml"}, r"/no/such\.toml, which cannot be read: No such file"),
    ],
)
def test_what_is_wrong_is_named(overrides: dict[str, str], environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        Settings.load(overrides, environ)
    assert caught.value.fault == "operator"


@pytest.mark.parametrize("content", [b"db_port = ", b"\xff\xfe", b"[smtp\n"])
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"bad\.toml is not valid TOML"):
        Settings.load({}, {CONFIG_FILE_VARIABLE: str(file)})


def test_an_unknown_key_in_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[smtp]\ntypo = 1\n")
    with pytest.raises(ConfigurationError, match=r"smtp_typo in .*x\.toml: there is no such setting"):
        Settings.load({}, {CONFIG_FILE_VARIABLE: str(file)})


def test_a_secret_is_in_no_error_and_no_text() -> None:
    settings = Settings.load({}, {"DB_PASSWORD": "hunter22"})
    assert "hunter22" not in repr(settings)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load({"db_password": "hunter22", "db_port": "hunter23"}, {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "must begin with redis://"),
        ("nonsense", "must begin with redis://"),
        ("sekret@h:6379", "must begin with redis://"),
        ("http://:sekret@h", "must begin with redis://"),
        ("redis://", "must name a host"),
        ("redis://:sekret@", "must name a host"),
        ("redis://:sekret@:6379", "must name a host"),
        ("redis://:sekret@%00h", "must name a host"),
        ("redis://:sekret/word@h:6379", "must name a host"),
        ("redis://:sekret?word@h:6379", "must be a URL"),
        ("redis://:sekret#word@h:6379", "must name a host"),
        ("redis://:sekret[word@h:6379", "must be a URL"),
        ("redis://:sekret\u2100@h:6379", "must be a URL"),
        ("redis://sekret/word@h:6379", "must have the number of a database"),
        ("redis://app:1234/sekret@h:6379", "must have the number of a database"),
        ("redis://app:1234?sekret@h:6379", "must be a URL"),
        ("redis://app:1234#sekret@h:6379", "must have no #"),
        ("redis://app:sekret/word@h:6379", "must have a port of 1 to 65535"),
        ("redis://127.0.0.1:99999", "must have a port of 1 to 65535"),
        ("redis://:sekret@h:0", "must have a port of 1 to 65535"),
        ("redis://:sekret@h:six", "must have a port of 1 to 65535"),
        ("redis://:sekret@h/mail", "must have the number of a database"),
        ("unix://:sekret@", "must name a socket"),
        ("unix://run/sekret.sock", "must name a socket"),
    ],
)
def test_a_wrong_redis_url_is_named_and_nothing_of_it_is_said(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^environment variable REDIS_URL: {said}") as caught:
        Settings.load({}, {"REDIS_URL": url})
    assert not any(part in str(caught.value) for part in ("sekret", "1234", "99999", "six", "mail"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://user:p%2Fw@[::1]:6380/3?ssl_cert_reqs=none&health_check_interval=5",
        "redis://h:6379/?db=1",
        "REDIS://:p@ss@h_1.internal:1",
        "unix:///run/valkey.sock?db=0",
        "unix://user:password@/run/valkey.sock",
    ],
)
def test_what_redis_py_takes_is_taken(url: str) -> None:
    assert Settings.load({}, {"REDIS_URL": url}).redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bücher.de", r"ASCII: write the A-label \(xn--…\)"),
        ("mail..example", "must be a host name, such as"),
        ("-mail.example", "must be a host name, such as"),
        ("mail.example:25", "must be a host name, such as"),
        ("<mail>", "must be a host name, such as"),
        ("[mail.example]", "must be a host name, such as"),
        (f"{'a' * 64}.example", "must be a host name, such as"),
        (".".join(["a" * 63] * 4), "must be a host name, such as"),
    ],
)
def test_a_hostname_that_no_peer_would_take(name: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^environment variable SMTP_PROXY_HOSTNAME: .*{said}"):
        Settings.load({}, {"SMTP_PROXY_HOSTNAME": name})


@pytest.mark.parametrize(
    "name",
    ["localhost", "MX-1.example.com", "xn--bcher-kva.de", "smtp_1", "192.0.2.1", "[192.0.2.1]", "::1", "[IPv6:::1]"],
)
def test_a_hostname_that_is_one(name: str) -> None:
    assert Settings.load({}, {"SMTP_PROXY_HOSTNAME": name}).hostname == name


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load({}, {}).db_port = 1  # type: ignore[misc]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "db_port": st.integers(1, 65535),
            "db_password": st.text(st.characters(exclude_categories=["Cs", "Cc"])),
            "data_dir": st.just(Path("/data")),
            "smtp_accept_only": st.booleans(),
            "smtp_plaintext_port": st.integers(0, 65535),
            "log_format": st.sampled_from(["json", "console"]),
            "login_cache_seconds": st.floats(0, 1e6),
        },
    )
)
def test_settings_travel_through_the_environment(values: dict[str, object]) -> None:
    """What the supervisor hands to a service is what the service reads."""
    settings = Settings.load(values, {})
    assert Settings.load({}, settings.environment()) == settings


@given(st.fixed_dictionaries({}, optional={
    "db_password": st.text(st.characters(exclude_categories=("Cs",)), max_size=40),
    "redis_url": st.text(st.characters(exclude_categories=("Cs",)), max_size=40).map(
        lambda password: f"redis://:{quote(password, safe='')}@h:1/2"
    ),
    "data_dir": st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20),
    "smtp_accept_only": st.booleans(),
    "smtp_plaintext_port": st.integers(0, 65535),
    "login_cache_seconds": st.floats(0, 1e300),
}))  # fmt: skip
def test_settings_travel_through_a_file(values: dict[str, object]) -> None:
    """What the supervisor writes for its services is what they read, secrets included."""
    settings = Settings.load(values, {})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.toml"
        file.write_text(settings.toml(), encoding="utf-8")
        assert Settings.load({}, {CONFIG_FILE_VARIABLE: str(file)}) == settings


@given(st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), st.text(max_size=20), max_size=4))
def test_any_text_is_taken_or_refused_in_our_words(values: dict[str, str]) -> None:
    environ = {environment_name(field): text for field, text in values.items()}
    with contextlib.suppress(ConfigurationError):
        assert Settings.load({}, environ)


def test_every_plain_number_of_time_or_size_says_its_unit() -> None:
    for name, info in Settings.model_fields.items():
        if info.annotation is float:
            assert name.endswith(("_seconds", "_factor", "_jitter")), name


def test_environment_names_are_unique() -> None:
    names = [environment_name(field) for field in Settings.model_fields]
    assert len(names) == len(set(names))


def test_networks_are_a_list_by_commas_or_in_toml(tmp_path: Path) -> None:
    given = Settings.load({"smtp_proxy_protocol_networks": " 10.0.0.0/16, 2001:db8::/56 "}, {})
    assert given.smtp_proxy_protocol_networks == "10.0.0.0/16,2001:db8::/56"
    file = tmp_path / "settings.toml"
    file.write_text('smtp_proxy_protocol_networks = ["10.0.0.0/16", "2001:db8::/56"]')
    assert Settings.load({}, {"SMTP_PROXY_CONFIG": str(file)}) == given
    assert Settings.load({}, given.environment()) == given


@pytest.mark.parametrize("bad", ["10.0.0.1/16", "the load balancer", "10.0.0.0/16;10.1.0.0/16"])
def test_what_is_no_network_is_named(bad: str) -> None:
    with pytest.raises(ConfigurationError, match=r"SMTP_PROXY_PROTOCOL_NETWORKS: .*; write networks such as"):
        Settings.load({}, {"SMTP_PROXY_PROTOCOL_NETWORKS": bad})


ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:smtp-proxy/db-AbCdEf"


def test_a_secret_is_named_by_arn_or_name_and_key() -> None:
    for reference in (ARN, f"{ARN}#password", "smtp-proxy/db", "smtp-proxy/db#a key"):
        assert Settings.load({}, {"DB_SECRET": reference}).db_secret == reference


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"DB_SECRET": "p!ss word"}, "environment variable DB_SECRET: must be the ARN or the name of a secret"),
        ({"DB_SECRET": "arn:aws:s3:::bucket"}, "environment variable DB_SECRET: must be the ARN"),
        ({"DB_SECRET": "#password"}, "environment variable DB_SECRET: must name a secret before the #"),
        ({"DB_SECRET": ARN, "DB_PASSWORD": "hush"}, "DB_SECRET takes the place of DB_PASSWORD: set one"),
        ({"REDIS_SECRET": ARN, "REDIS_URL": "redis://:hush@h"}, "REDIS_SECRET takes the place of a password in REDIS"),
        ({"SMARTHOST_SECRET": ARN, "SMARTHOST_PASSWORD": "hush"}, "SMARTHOST_SECRET takes the place of SMARTHOST_PASS"),
        ({"SECRET_KEY_SECRET": ARN, "SECRET_KEY_FILE": "/k"}, "SECRET_KEY_SECRET takes the place of SECRET_KEY_FILE"),
    ],
)
def test_what_is_wrong_with_a_secret_is_said_without_it(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        Settings.load({}, environ)
    assert "hush" not in str(caught.value)
    assert "p!ss" not in str(caught.value)


def test_certificates_of_the_store_have_a_place() -> None:
    """Outside of every checkout, so that no key gets into version control by accident: REQ-INFRA-TLS-012."""
    store = {"TLS_CERT_SOURCE": "store", "SECRET_KEY_FILE": "/run/key"}
    assert Settings.load({}, store).tls_cert_dir == Path("/var/lib/smtp-proxy/certs")
    assert Settings.load({}, store | {"TLS_CERT_DIR": "/srv/certs"}).tls_cert_dir == Path("/srv/certs")
    assert Settings.load({}, {}).tls_cert_dir is None
    with pytest.raises(ConfigurationError, match="needs SECRET_KEY_FILE or SECRET_KEY_SECRET"):
        Settings.load({}, {"TLS_CERT_SOURCE": "store"})
