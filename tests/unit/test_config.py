"""Settings: where they come from, and what is said when one is wrong."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

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
        ({"ingress_ready_depth_low": "60000"}, {}, r"ingress_ready_depth_low must not be above"),
        ({"tls_cert_file": "/x"}, {}, r"tls_cert_file and tls_key_file go together"),
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
    "redis_url": st.text(st.characters(exclude_categories=("Cs",)), max_size=40),
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
