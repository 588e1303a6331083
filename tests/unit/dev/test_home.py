"""The data directory: kept secrets, private files, and one run at a time."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from smtp_proxy.dev.home import Home
from smtp_proxy.errors import ConfigurationError


def opened(path: Path) -> Home:
    home = Home(path)
    home.open()
    return home


def test_secrets_are_generated_once(tmp_path: Path) -> None:
    home = opened(tmp_path / "new" / "data")
    secrets = home.secrets()
    assert len({secrets.db_password, secrets.redis_password}) == 2
    assert min(len(secrets.db_password), len(secrets.redis_password)) >= 32
    assert (secrets.db_password + secrets.redis_password).isalnum(), "'-' in front would be an option to redis-cli"
    assert home.secrets() == secrets
    assert secrets.db_password not in repr(secrets)
    assert stat.S_IMODE((home.path / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(ConfigurationError, match=r"another `smtp-proxy dev` runs on .*--data"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    home = opened(tmp_path)
    (tmp_path / "ports.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"ports\.json can not be read.*delete it"):
        home.read_json("ports.json")


def test_a_directory_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"SMTP_PROXY_DATA_DIR: can not use .*file/data"):
        opened(tmp_path / "file" / "data")


def test_writing_leaves_no_part_behind(tmp_path: Path) -> None:
    home = opened(tmp_path)
    home.write("a", "x")
    home.write("a", "y")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "lock"]
    with pytest.raises(ConfigurationError, match="missing/a can not be written"):
        home.write("missing/a", "x")


def test_a_lost_password_of_a_database_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    home = opened(tmp_path)
    secrets = home.secrets()
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("18\n")
    assert home.secrets() == secrets
    for damage in ('{"redis_password": "x"}', "{}", "[]"):
        (tmp_path / "secrets.json").write_text(damage)
        with pytest.raises(ConfigurationError, match=r"secrets\.json has no db_password.*restore it"):
            home.secrets()
        assert (tmp_path / "secrets.json").read_text() == damage
