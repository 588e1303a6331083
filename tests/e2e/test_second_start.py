"""Ctrl-C stops all of it, and a second start finds what was there."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from fix_dev import Dev, until
from senders import Senders


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def send(dev: Dev, total: int) -> None:
    await Senders(dev.ready["smtp"]["plaintext_port"], total, connections=1).run()
    until(lambda: len(dev.sink()) == total, 20, dev.tail)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_second_start_finds_everything(make_dev: Callable[..., Dev], number: signal.Signals) -> None:
    dev = make_dev("--plaintext-port", "0").start()
    await send(dev, 3)
    first = dev.ready
    assert dev.stop(number) == 0, dev.tail()
    assert not dev.ready_file.exists()
    assert [name for name, pid in first["pids"].items() if alive(pid)] == []

    second = dev.start().ready
    same = ("smtp", "user", "password", "sink", "database", "redis_url", "ca_file", "data_dir")
    assert {key: second[key] for key in same} == {key: first[key] for key in same}
    assert sorted(message["subject"] for message in dev.sink()) == ["message 0", "message 1", "message 2"]


def test_what_is_secret_is_the_owners_alone(dev: Dev) -> None:
    secret = ["secrets.json", "password", "settings.toml", "tls/ca-key.pem", "tls/server-key.pem", "valkey/valkey.conf"]
    for file in [dev.ready_file, *(dev.data / name for name in secret)]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    secrets = [dev.ready["password"], dev.ready["database"]["DB_PASSWORD"], dev.ready["redis_url"]]
    for name, pid in dev.ready["pids"].items():
        seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert not [secret for secret in secrets if secret.encode() in seen], name


def test_two_do_not_share_a_data_directory(dev: Dev, tmp_path: Path) -> None:
    second = Dev(tmp_path)
    second.data = dev.data
    with pytest.raises(AssertionError):
        second.start()
    assert second.process is not None
    assert second.process.wait(10) == 2
    assert "another `smtp-proxy dev` runs on" in second.tail()
    assert all(alive(pid) for pid in dev.reread()["pids"].values())


async def test_after_a_crash_of_the_supervisor_the_next_start_takes_over(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev("--plaintext-port", "0").start()
    await send(dev, 2)
    first = dev.ready["pids"]
    assert dev.process is not None
    os.kill(dev.process.pid, signal.SIGKILL)
    dev.process.wait()
    dev.ready_file.unlink()

    second = dev.start().ready["pids"]
    assert not [name for name, pid in first.items() if alive(pid)]
    assert not set(first.values()) & set(second.values())
    assert len(dev.sink()) == 2


def test_a_service_that_can_not_be_started_ends_it_all(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev("--set", "smarthost_ca_file=/nonexistent/ca.pem", "--smarthost", "mail.example.com:25")
    with pytest.raises(AssertionError):
        dev.start()
    assert dev.process is not None
    assert dev.process.wait(30) == 1
    assert "/nonexistent/ca.pem" in dev.tail()
    assert "worker could not be started" in dev.tail()
    assert not dev.ready_file.exists()


async def test_an_unusual_data_directory_and_a_disabled_credential(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev("--plaintext-port", "0")
    dev.data = dev.data.with_name("a \"quoted\" 'folder' ü")
    dev.start()
    dev.command("credential", "disable", dev.ready["user"])
    assert dev.stop() == 0, dev.tail()

    dev.ready_file.write_text("of a run that was killed")
    dev.start()
    assert "it is enabled again" in dev.tail()
    await send(dev, 1)


def test_a_database_whose_password_is_lost_is_left_alone(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev().start()
    assert dev.stop() == 0
    (dev.data / "secrets.json").write_text('{"db_password": "another", "redis_password": "x"}')
    with pytest.raises(AssertionError):
        dev.start()
    assert dev.process is not None
    assert dev.process.wait(30) == 2
    assert "postgres turns us away" in dev.tail()
    # Only the refused login is counted: a probe that came too early hears "FATAL: the database system is starting up".
    assert dev.tail().count("FATAL:  password authentication failed") == 1
