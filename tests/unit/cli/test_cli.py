"""The command line, over the store in memory: what it prints, and the exit codes it leaves with."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import sys
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from store_suite import attempt_for, core_envelope

from smtp_proxy import __version__, cli
from smtp_proxy.cli import output
from smtp_proxy.config import Settings
from smtp_proxy.dev.options import DevOptions
from smtp_proxy.errors import ConfigurationError, InvalidValue, ServiceFailed, StoreUnavailable
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.limits import Placement
from smtp_proxy.store import MemoryStore, Store
from smtp_proxy.telemetry import logs


class Shell:
    """Runs commands and keeps what they wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.store = MemoryStore()
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self._capsys.readouterr()
        code = cli.run(arguments)
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *arguments: str) -> Any:
        assert self(*arguments, "--json") == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell(capsys)

    async def connect(settings: Settings, **_: Any) -> MemoryStore:
        await made.store.ping()
        return made.store

    monkeypatch.setattr(Store, "connect", connect)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    return made


def module(name: str, monkeypatch: pytest.MonkeyPatch, **contents: Any) -> None:
    fake = types.ModuleType(name)
    vars(fake).update(contents)
    monkeypatch.setitem(sys.modules, name, fake)


# -- the process itself


def test_version(shell: Shell) -> None:
    assert shell("--version") == 0
    assert shell.out == f"smtp-proxy {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["serve", "coffee"], ["messages", "list", "--limit", "0"], ["show"]]
)
def test_wrong_usage_is_2(shell: Shell, arguments: list[str]) -> None:
    assert shell(*arguments) == 2
    assert "Traceback" not in shell.err


def test_settings_are_listed_and_secrets_are_not_shown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    rows = {row["setting"]: row for row in shell.json("--set", "SMTP_TLS_PORT=465", "settings")}
    assert set(rows) == set(Settings.model_fields)
    assert (rows["smtp_tls_port"]["value"], rows["smtp_tls_port"]["default"]) == (465, 2465)
    assert rows["hostname"]["environment"] == "SMTP_PROXY_HOSTNAME"
    assert rows["db_password"]["value"] == "***"
    assert shell("settings") == 0
    assert "hunter2" not in shell.out
    assert any(line.split()[:3] == ["db_port", "DB_PORT", "5432"] for line in shell.out.splitlines())


@pytest.mark.parametrize(
    ("pairs", "said"),
    [(["no_such=1"], "no such setting"), (["db_port"], "write KEY=VALUE"), (["db_port=x"], "--set db_port: ")],
)
def test_a_wrong_set_is_2_and_one_line(shell: Shell, pairs: list[str], said: str) -> None:
    assert shell(*(word for pair in pairs for word in ("--set", pair)), "tenant", "list") == 2
    assert said in shell.err
    assert shell.err.startswith("smtp-proxy: ")
    assert len(shell.err.splitlines()) == 1


def test_a_store_that_is_away_is_1_and_one_line(shell: Shell) -> None:
    shell.store.down = True
    assert shell("tenant", "list") == 1
    assert shell.err == "smtp-proxy: The database can not be reached, or can not commit at present.\n"


def test_the_traceback_is_there_for_who_asks(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    shell.store.down = True
    assert shell("tenant", "list") == 1
    assert "Traceback" in shell.err


# -- services


def test_serve_runs_the_service_with_its_settings(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    async def service(settings: Settings) -> None:
        seen.append(settings)

    monkeypatch.setattr(logs, "configure", lambda settings, name: seen.append(name))
    module("smtp_proxy.worker.worker", monkeypatch, run=service)
    assert shell("--set", "db_port=1", "serve", "worker", "--set", "worker_concurrency=3") == 0
    assert seen[0] == "worker"
    assert (seen[1].db_port, seen[1].worker_concurrency) == (1, 3)


@pytest.mark.parametrize(
    ("errors", "code", "said"),
    [
        ([ServiceFailed("the core ended")], 1, "the core ended"),
        ([ServiceFailed("it ended"), ConfigurationError("tls_key_file: no such file")], 2, "tls_key_file"),
        ([ValueError("x"), StoreUnavailable("Postgres is away")], 1, "Postgres is away"),
    ],
)
def test_what_a_service_raises_in_a_group_is_said_in_one_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, errors: list[Exception], code: int, said: str
) -> None:
    async def service(settings: Settings) -> None:
        raise ExceptionGroup("services", errors)

    monkeypatch.setattr(logs, "configure", lambda settings, name: None)
    module("smtp_proxy.ingress.serve", monkeypatch, run=service)
    assert shell("serve", "smtp") == code
    assert shell.err.startswith("smtp-proxy: ")
    assert said in shell.err


def test_an_error_that_is_not_ours_shows_where(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def service(settings: Settings) -> None:
        raise KeyError("x")

    monkeypatch.setattr(logs, "configure", lambda settings, name: None)
    module("smtp_proxy.ingress.serve", monkeypatch, run=service)
    assert shell("serve", "smtp") == 1
    assert "Traceback" in shell.err


def test_what_is_not_installed_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        raise ModuleNotFoundError("No module named 'aiosmtpd'", name="aiosmtpd")

    monkeypatch.setattr(logs, "configure", lambda settings, name: None)
    monkeypatch.setattr(importlib, "import_module", import_module)
    assert shell("serve", "sink") == 2
    assert "aiosmtpd is not installed" in shell.err
    assert "smtp-proxy[dev]" in shell.err


def test_dev_hands_over_what_was_asked(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    seen: list[DevOptions] = []

    async def supervise(options: DevOptions) -> int:
        seen.append(options)
        return 3

    module("smtp_proxy.dev.supervisor", monkeypatch, run=supervise)
    code = shell(
        "--set", "log_level=debug", "dev", "--ready-file", str(tmp_path / "ready"), "--data", str(tmp_path),
        "--smarthost", "[::1]:2525", "--without", "worker, sink", "--without", "api", "--set", "DB_POOL_SIZE=4",
        "--plaintext-port", "0", "--accept-only", "--starttls-port", "1587", "--tls-port", "1465",
        "--sink-port", "1525",
    )  # fmt: skip
    assert code == 3
    assert seen == [
        DevOptions(
            ready_file=tmp_path / "ready",
            data_dir=tmp_path,
            smarthost=("::1", 2525),
            without=frozenset({"worker", "sink", "api"}),
            overrides={"log_level": "debug", "db_pool_size": "4"},
            plaintext_port=0,
            accept_only=True,
            starttls_port=1587,
            tls_port=1465,
            sink_port=1525,
        )
    ]
    shell("dev")
    assert seen[1] == DevOptions()


def test_healthcheck_needs_a_port(shell: Shell) -> None:
    assert shell("healthcheck", "smtp") == 2
    assert "HEALTH_PORT" in shell.err


def test_healthcheck_knows_the_services(shell: Shell) -> None:
    assert shell("--set", "health_port=1", "healthcheck", "smpt") == 2
    assert "smtp" in shell.err
    assert "does not answer" not in shell.err


@pytest.mark.parametrize("url", ["nonsense", "redis://127.0.0.1:99999", "redis://:sekret/word@h:6379"])
def test_a_wrong_redis_url_is_one_line_without_its_password(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert shell("serve", "worker") == 2
    assert shell.err.startswith("smtp-proxy: environment variable REDIS_URL: ")
    assert len(shell.err.splitlines()) == 1
    assert "sekret" not in shell.err


@pytest.mark.parametrize("name", ["gone.pem", "."])
def test_a_certificate_that_can_not_be_read_is_2(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(logs, "configure", lambda settings, name: None)
    monkeypatch.setenv("TLS_CERT_FILE", str(tmp_path / name))
    monkeypatch.setenv("TLS_KEY_FILE", str(tmp_path / name))
    assert shell("serve", "smtp") == 2
    assert shell.err.startswith(f"smtp-proxy: TLS_CERT_FILE: can not read {tmp_path / name}: ")
    assert len(shell.err.splitlines()) == 1


# -- tenants and credentials


def test_tenants(shell: Shell) -> None:
    assert shell("tenant", "create", "acme") == 0
    assert shell.out.startswith("created tenant acme (")
    assert shell("tenant", "create", "acme") == 1
    assert shell("tenant", "create", "Not A Name") == 2
    (row,) = shell.json("tenant", "list")
    assert row["name"] == "acme"
    assert UUID(row["id"]).version == 7
    assert shell("tenant", "list") == 0
    assert "acme" in shell.out


def test_limits_of_a_tenant(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    assert shell("tenant", "show", "acme") == 0
    assert shell.out.count("any number") == 3
    options = ("--messages-per-minute", "600", "--sessions", "5", "--at-limit", "hold")
    assert shell("tenant", "limits", "acme", *options) == 0
    shown = {tuple(line.rsplit(maxsplit=1)) for line in shell.out.splitlines()}
    assert shown >= {("messages per minute", "600"), ("sessions at once", "5"), ("at the limit", "hold")}
    assert shell("tenant", "limits", "acme", "--messages-per-minute", "none", "--recipients-per-minute", "9") == 0
    (tenant,) = shell.json("tenant", "list")
    assert tenant == shell.json("tenant", "show", "acme")
    assert tenant["limits"] == {
        "messages_per_minute": None, "recipients_per_minute": 9, "sessions": 5, "at_limit": "hold",
    }  # fmt: skip
    assert shell("tenant", "list") == 0
    assert "9 recipients/min, 5 sessions; hold" in shell.out


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5", "٣", "2147483648", ""])
def test_what_is_no_limit(shell: Shell, limit: str) -> None:
    shell("tenant", "create", "acme")
    assert shell("tenant", "limits", "acme", f"--messages-per-minute={limit}") == 2
    assert "a whole number from 1 on, or none" in shell.err
    assert shell("tenant", "limits", "nobody", "--sessions", "1") == 1


def test_a_generated_password_is_shown_once_and_works(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    assert shell("credential", "create", "acme", "app") == 0
    first = shell.out.splitlines()[1].removeprefix("password: ")
    assert len(first) == 32
    assert shell("credential", "reset-password", "app") == 0
    second = shell.out.splitlines()[1].removeprefix("password: ")
    assert second != first
    (row,) = shell.json("credential", "list")
    assert (row["username"], row["tenant"], row["disabled_at"]) == ("app", "acme", None)
    assert "argon2" not in shell.out
    assert shell("credential", "list", "--tenant", "acme") == 0
    assert second not in shell.out
    assert shell("credential", "list", "--tenant", "nobody") == 1


def test_a_given_password_is_not_shown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("tenant", "create", "acme")
    monkeypatch.setattr("sys.stdin", io.StringIO("chosen by hand\n"))
    assert shell("credential", "create", "acme", "app", "--password-stdin") == 0
    assert "password" not in shell.out
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert shell("credential", "reset-password", "app", "--password-stdin") == 2
    assert "at least 8" in shell.err


def test_disabling(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app")
    assert shell("credential", "disable", "app") == 0
    (row,) = shell.json("credential", "list")
    assert row["disabled_at"] is not None
    assert shell("credential", "disable", "nobody") == 1
    assert "no" in shell.err


def test_a_new_password_alone_does_not_enable_and_it_is_said(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app")
    assert shell("credential", "reset-password", "app") == 0
    assert shell.err == ""
    shell("credential", "disable", "app")
    assert shell("credential", "reset-password", "app") == 0
    assert len(shell.out.splitlines()) == 2
    assert shell.err == "app stays disabled; `smtp-proxy credential enable app` lets it in again\n"


def test_enabling(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app")
    shell("credential", "disable", "app")
    for _ in range(2):
        assert shell("credential", "enable", "app") == 0
        assert (shell.out, shell.err) == ("enabled credential app\n", "")
        (row,) = shell.json("credential", "list")
        assert row["disabled_at"] is None
    assert shell("credential", "enable", "nobody") == 1


def senders(shell: Shell) -> list[str]:
    (row,) = shell.json("credential", "list")
    return list(row["allowed_senders"])


def test_a_credential_may_send_as_anyone_unless_it_is_said(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app")
    assert senders(shell) == []
    assert shell("credential", "senders", "app") == 0
    assert shell.out == "app may send as: any\n"
    assert shell("credential", "list") == 0
    assert "any" in shell.out.split()


def test_senders_of_a_new_credential(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    assert shell("credential", "create", "acme", "bad", "--sender", "example.com", "--sender", "a b") == 2
    assert shell.err.startswith('smtp-proxy: "a b" is no sender pattern: write user@example.com')
    assert shell.json("credential", "list") == []
    created = shell("credential", "create", "acme", "app", "--sender", "@Example.com", "--sender", "example.com")
    assert (created, senders(shell)) == (0, ["example.com"])


def test_changing_senders(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app", "--sender", "example.com")
    assert shell("credential", "senders", "app", "--add", '"User"@Example.net', "--add", "<>") == 0
    assert shell.out == "app may send as: example.com, user@example.net, <>\n"
    assert shell("credential", "senders", "app", "--remove", "@EXAMPLE.com", "--add", "*.example.com") == 0
    assert senders(shell) == ["user@example.net", "<>", "*.example.com"]
    assert shell("credential", "senders", "app", "--set", "a@b.example", "--set", "c.example") == 0
    assert senders(shell) == ["a@b.example", "c.example"]
    assert shell("credential", "senders", "app", "--any") == 0
    assert senders(shell) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--remove", "example.com"], 2, "no sender would be left"),
        (["--remove", "example.org"], 2, "example.org: not among the allowed senders, which are example.com"),
        (["--set", "user"], 2, '"user" is no sender pattern'),
        (["--add", "*"], 2, '"*" is no sender pattern'),
        (["--any", "--add", "example.org"], 2, "exclude each other"),
        (["--any", "--set", "example.org"], 2, "exclude each other"),
        (["--set", "example.org", "--remove", "example.com"], 2, "exclude each other"),
    ],
)
def test_senders_that_are_not_changed(shell: Shell, arguments: list[str], code: int, said: str) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app", "--sender", "example.com")
    assert shell("credential", "senders", "app", *arguments) == code
    assert said in shell.err
    assert len(shell.err.splitlines()) == 1
    assert senders(shell) == ["example.com"]


@pytest.mark.parametrize("arguments", [[], ["--any"], ["--add", "example.com"], ["--set", "example.com"]])
def test_senders_of_nobody(shell: Shell, arguments: list[str]) -> None:
    assert shell("credential", "senders", "nobody", *arguments) == 1


# -- messages


@pytest.fixture
def mail(shell: Shell) -> list[UUID]:
    """Two messages: one delivered to one of two recipients and deferred for the other, one fresh."""

    async def fill() -> list[UUID]:
        tenant = await shell.store.create_tenant("acme")
        rows = [
            core_envelope(["a@x.example", "b@x.example"], tenant=tenant.id.bytes),
            core_envelope(reverse_path="", id=(UUID(int=(1 << 128) - 1)).bytes),
        ]
        await shell.store.accept(rows, sweep_after_seconds=15)
        ids = [UUID(bytes=row[0]) for row in rows]
        worker = UUID(int=7)
        (job,) = await shell.store.claim(ids[:1], worker, 30)
        await shell.store.record(
            [
                attempt_for(job, worker, Outcome.DELIVERED),
                attempt_for(job, worker, Outcome.DEFERRED, recipient=1, retry_in=60),
            ]
        )
        return ids

    return asyncio.run(fill())


def test_messages_are_listed(shell: Shell, mail: list[UUID]) -> None:
    assert [row["id"] for row in shell.json("messages", "list")] == [str(mail[1]), str(mail[0])]
    assert [row["id"] for row in shell.json("messages", "list", "--tenant", "acme")] == [str(mail[0])]
    assert [row["id"] for row in shell.json("messages", "list", "--state", "delivered")] == [str(mail[0])]
    assert [row["id"] for row in shell.json("messages", "list", "--before", str(mail[1]))] == [str(mail[0])]
    assert shell("messages", "list", "--limit", "10") == 0
    first, second = shell.out.splitlines()[1:]
    assert "<>" in first
    assert "<a@x.example> and 1 more" in second
    assert second.rstrip().endswith("1 delivered, 1 queued")


def test_a_message_is_shown(shell: Shell, mail: list[UUID]) -> None:
    shown = shell.json("messages", "show", str(mail[0]))
    assert [d["state"] for d in shown["deliveries"]] == ["delivered", "queued"]
    assert shown["deliveries"][1]["attempts"][0]["reply_code"] == 451
    assert shell("messages", "show", str(mail[0])) == 0
    assert "451 4.0.0 so it went" in shell.out
    assert "mx.example:25" in shell.out
    assert shell("messages", "show", str(mail[1])) == 0
    assert "outcome" not in shell.out


def test_what_was_asked_for_with_dsn_is_shown(shell: Shell) -> None:
    dsn = (2, "Q+2B1", [(5, "rfc822;a@x.example"), (None, None), (0, None)])
    row = core_envelope(["a@x.example", "b@x.example", "c@x.example"], dsn=dsn)
    asyncio.run(shell.store.accept([row, plain := core_envelope()], sweep_after_seconds=15))
    shown = shell.json("messages", "show", str(UUID(bytes=row[0])))
    assert (shown["ret"], shown["envid"]) == ("hdrs", "Q+2B1")
    assert [(d["notify"], d["orcpt"]) for d in shown["deliveries"]] == [
        (["success", "delay"], "rfc822;a@x.example"),
        (None, None),
        (["never"], None),
    ]
    assert shell("messages", "show", str(UUID(bytes=row[0]))) == 0
    assert (
        "DSN       RET=HDRS ENVID=Q+2B1; <a@x.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@x.example; "
        "<c@x.example> NOTIFY=NEVER\n"
    ) in shell.out
    assert shell("messages", "show", str(UUID(bytes=plain[0]))) == 0
    assert "DSN" not in shell.out


def test_messages_that_cannot_be_shown(shell: Shell) -> None:
    assert shell("messages", "show", str(UUID(int=1))) == 1
    assert shell("messages", "show", "latest") == 2
    assert shell("messages", "list", "--state", "lost") == 2
    assert "queued, sending, delivered, refused" in shell.err


def test_held_messages_are_released(shell: Shell, mail: list[UUID]) -> None:
    async def hold() -> list[UUID]:
        tenant = await shell.store.tenant_by_name("acme")
        rows = [core_envelope(tenant=tenant.id.bytes) for _ in range(3)]
        held = {row[0]: Placement(held=True) for row in rows}
        await shell.store.accept(rows, sweep_after_seconds=15, placements=held)
        return [UUID(bytes=row[0]) for row in rows]

    held = asyncio.run(hold())
    assert {row["id"] for row in shell.json("messages", "list", "--state", "held")} == set(map(str, held))
    assert shell("messages", "release", str(held[0])) == 0
    assert shell.out == "released 1 message\n"
    assert shell("messages", "release", str(held[0]), str(held[1])) == 1
    assert shell.out == "released 1 message\n"
    assert f"not held: {held[0]}" in shell.err
    assert shell("messages", "release", "--tenant", "acme") == 0
    assert shell.out == "released 1 message\n"
    assert shell("messages", "release", "--tenant", "acme") == 0
    assert shell.out == "released 0 messages\n"
    for wrong in ((), (str(held[0]), "--tenant", "acme"), ("latest",)):
        assert shell("messages", "release", *wrong) == 2


# -- arguments


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("mx.example:25", ("mx.example", 25)), ("[::1]:2525", ("::1", 2525)), ("10.0.0.1:1", ("10.0.0.1", 1))],
)
def test_addresses(text: str, parsed: tuple[str, int]) -> None:
    assert cli.parse_address(text) == parsed


@pytest.mark.parametrize("text", ["", "mx.example", ":25", "mx:0", "mx:65536", "mx:²", "mx:25x"])
def test_not_addresses(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write HOST:PORT"):
        cli.parse_address(text)


def test_states() -> None:
    assert cli.parse_state("Queued") is DeliveryState.QUEUED
    with pytest.raises(InvalidValue):
        cli.parse_state("1")
    assert cli.describe_states([DeliveryState.QUEUED] * 3) == "queued"
    assert cli.describe_states([]) == ""


def test_times_are_utc_and_say_so() -> None:
    assert output.when(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) + timedelta(milliseconds=1)) == "2026-01-02 03:04:05Z"
    assert output.when(None) == ""
