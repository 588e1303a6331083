"""The command as a process, on a real Postgres: from an empty database to a credential that logs in."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from certificates import Authority
from fix_postgres import free_port

import smtp_proxy
from smtp_proxy.clock import SystemClock
from smtp_proxy.store import Store
from smtp_proxy.tenants import LoginChecker

if TYPE_CHECKING:
    from fix_postgres import PostgresServer

pytestmark = pytest.mark.integration

PYAPP = Path(smtp_proxy.__file__).parent.parent


class Command:
    """`python -m smtp_proxy` with the settings of one database in the environment."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PYAPP), **environment}

    async def __call__(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "smtp_proxy", *arguments],
            env=self._environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    async def started(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "smtp_proxy", *arguments, env=self._environment, stderr=asyncio.subprocess.DEVNULL
        )


async def test_from_an_empty_database_to_a_login(postgres: PostgresServer) -> None:
    settings = postgres.settings(await postgres.new_database(migrated=False))
    command = Command(settings.environment())

    early = await command("tenant", "list")
    assert (early.returncode, "smtp-proxy migrate" in early.stderr) == (2, True)
    assert "Traceback" not in early.stderr

    migrated = await command("migrate")
    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert "applied 0001_pre_spine" in migrated.stdout
    assert (await command("migrate")).stdout == "the schema is up to date\n"

    assert (await command("tenant", "create", "acme")).returncode == 0
    created = await command("credential", "create", "acme", "app")
    password = created.stdout.splitlines()[1].removeprefix("password: ")
    given = await command("credential", "create", "acme", "batch", "--password-stdin", given="chosen by hand\n")
    assert given.returncode == 0
    office = await command("credential", "create", "acme", "office", "--network", "198.51.100.7/24")
    assert (office.returncode, "write 198.51.100.0/24" in office.stderr) == (2, True)
    office = await command("credential", "create", "acme", "office", "--network", "198.51.100.0/24")
    assert office.returncode == 0
    changed = await command("credential", "networks", "office", "2001:db8::/48", "192.0.2.7")
    assert changed.stdout == "office may log in from 192.0.2.7/32, 2001:db8::/48\n"
    assert (await command("credential", "networks", "office")).stdout == changed.stdout
    assert "192.0.2.7/32" in (await command("credential", "list", "--json")).stdout
    anywhere = await command("credential", "networks", "office", "--anywhere")
    assert anywhere.stdout == "office may log in from every address\n"
    assert (await command("credential", "networks", "nobody")).returncode == 1
    twice = await command("credential", "create", "acme", "app")
    assert (twice.returncode, twice.stderr) == (1, "smtp-proxy: creating credential app: it exists already\n")

    store = await Store.connect(settings)
    logins = LoginChecker(store, settings, SystemClock())
    assert [bool(v) for v in await logins.check_many([("app", password, ""), ("batch", "chosen by hand", "")])] == [
        True,
        True,
    ]
    assert (await command("credential", "disable", "app")).returncode == 0
    logins.forget()
    assert await logins.check("app", password) is False
    assert (await command("credential", "enable", "app")).stderr == ""
    logins.forget()
    assert await logins.check("app", password)
    assert (await command("credential", "disable", "app")).returncode == 0
    logins.close()
    await store.close()

    listed = json.loads((await command("credential", "list", "--json")).stdout)
    assert [(row["username"], bool(row["disabled_at"])) for row in listed] == [
        ("app", True),
        ("batch", False),
        ("office", False),
    ]


async def test_an_enabled_login_of_a_disabled_tenant_stays_refused_and_it_is_said(postgres: PostgresServer) -> None:
    settings = postgres.settings(await postgres.new_database())
    command = Command(settings.environment())
    await command("tenant", "create", "acme")
    await command("credential", "create", "acme", "app")
    await postgres.sql("UPDATE tenants SET disabled_at = now()", database=settings.db_name)
    enabled = await command("credential", "enable", "app")
    assert (enabled.returncode, enabled.stdout) == (0, "enabled credential app\n")
    assert enabled.stderr == "app is refused all the same: its tenant is disabled\n"


@pytest.mark.parametrize(("service", "another"), [("smtp", "worker"), ("worker", "smtp"), ("sink", "smtp")])
async def test_a_service_is_well_by_its_own_name_only(
    postgres: PostgresServer, tmp_path: Path, service: str, another: str
) -> None:
    file = Authority(tmp_path).issue("localhost")
    settings = postgres.settings(
        await postgres.new_database(), health_port=free_port(), redis_url=f"redis://127.0.0.1:{free_port()}",
        data_dir=tmp_path, tls_cert_file=file, tls_key_file=file,
        smtp_starttls_port=0, smtp_tls_port=0, sink_port=0, sink_http_port=0,
    )  # fmt: skip
    command = Command(settings.environment())
    process = await command.started("serve", service)
    try:
        async with asyncio.timeout(30):
            while (answer := await command("healthcheck", service)).returncode != 0:
                assert process.returncode is None
        assert answer.stdout.startswith(f'{service}: {{"service": "{service}", "ready": true, ')
        wrong = await command("healthcheck", another)
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert f"answers {service}, not {another}" in wrong.stderr
    finally:
        process.terminate()
        assert await process.wait() == 0


async def test_no_postgres_is_one_line(postgres: PostgresServer) -> None:
    command = Command({**postgres.settings().environment(), "DB_PORT": "1"})
    answer = await command("tenant", "list")
    assert answer.returncode == 1
    assert answer.stderr.startswith(
        "smtp-proxy: connecting to Postgres at 127.0.0.1:1: the database can not be reached"
    )
    assert len(answer.stderr.splitlines()) == 1


async def test_a_port_in_use_is_named_by_its_setting(postgres: PostgresServer, tmp_path: Path) -> None:
    file = Authority(tmp_path).issue("localhost")
    settings = postgres.settings(
        await postgres.new_database(), smtp_starttls_port=postgres.port, tls_cert_file=file, tls_key_file=file
    )
    answer = await Command(settings.environment())("serve", "smtp", "--set", "smtp_tls_port=0")
    assert answer.returncode == 2
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("smtp-proxy: SMTP_HOST, SMTP_STARTTLS_PORT: ")
    assert str(postgres.port) in last


async def test_the_certificates_of_a_running_service(postgres: PostgresServer, tmp_path: Path) -> None:
    """REQ-INFRA-TLS-005: by command, with reasons and exit codes."""
    authority, store = Authority(tmp_path), tmp_path / "certs"
    authority.pair(store / "a.example", "a.example", "localhost")
    authority.pair(store / "b.example", "*.b.example")
    settings = postgres.settings(
        await postgres.new_database(), redis_url=f"redis://127.0.0.1:{free_port()}", data_dir=tmp_path,
        tls_cert_dir=store, tls_watch_seconds=0, tls_default_name="b.example", smtp_starttls_port=0, smtp_tls_port=0,
    )  # fmt: skip
    command = Command(settings.environment())
    absent = await command("certs", "list")
    assert (absent.returncode, absent.stdout) == (1, "")
    assert absent.stderr.startswith(f"smtp-proxy: there is no control socket at {tmp_path}/control/smtp.sock; is ")
    process = await command.started("serve", "smtp")
    try:
        async with asyncio.timeout(30):
            while (listed := await command("certs", "list", "--json")).returncode != 0:
                assert process.returncode is None
        found = json.loads(listed.stdout)["certificates"]
        assert [(each["names"], each["default"]) for each in found] == [
            (["*.b.example"], True),
            (["a.example", "localhost"], False),
        ]
        shown = [json.loads((await command("certs", "show", "a.example", "--json")).stdout)["served"]]
        authority.pair(store / "a.example", "a.example", "localhost")
        shown.append(json.loads((await command("certs", "show", "a.example", "--json")).stdout)["served"])
        assert shown == [True, False], "not before the reload"
        authority.pair(store / "c.example", "c.example")
        reloaded = await command("certs", "reload")
        assert (reloaded.returncode, reloaded.stdout.splitlines()[-1]) == (0, "reloaded: 3")
        assert "c.example" in reloaded.stdout
        authority.pair(store / "c.example", "c.example", days=-1)
        refused = await command("certs", "reload")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"smtp-proxy: TLS_CERT_DIR: {store}/c.example/fullchain.pem" in refused.stderr
        assert "expired on" in refused.stderr
        again = await command("certs", "reload", "--json")
        assert (again.returncode, json.loads(again.stdout)["ok"]) == (2, False)
    finally:
        process.terminate()
        assert await process.wait() == 0
    assert not list((tmp_path / "control").iterdir())


async def test_the_certificates_of_clients(postgres: PostgresServer, tmp_path: Path) -> None:
    command = Command(postgres.settings(await postgres.new_database()).environment())
    await command("tenant", "create", "acme")
    await command("credential", "create", "acme", "app")
    file = Authority(tmp_path).issue("app.example")
    added = await command("credential", "certificate", "add", "app", "--file", str(file))
    assert added.returncode == 0, added.stderr
    identity, _, rest = added.stdout.partition(" ")
    assert (identity.startswith("sha256:"), rest) == (True, "logs in as app\n")
    assert (await command("credential", "certificate", "add", "app", "dns:App.Example")).returncode == 0
    rows = json.loads((await command("credential", "certificate", "list", "app", "--json")).stdout)
    assert [(row["identity"], row["username"]) for row in rows] == [("dns:app.example", "app"), (identity, "app")]
    assert "dns:app.example" in (await command("credential", "certificate", "list")).stdout
    for arguments, code, said in (
        (("add", "app", "dns:app.example"), 1, "exists already"),
        (("add", "nobody", "dns:x.example"), 1, "there is no credential nobody"),
        (("add", "app"), 2, "either IDENTITY or --file"),
        (("add", "app", "app.example"), 2, "is no identity of a certificate"),
        (("add", "app", "--file", str(tmp_path / "missing")), 2, "can not read"),
        (("remove", "app", "dns:x.example"), 1, "there is no certificate dns:x.example of app"),
    ):
        answer = await command("credential", "certificate", *arguments)
        assert (answer.returncode, said in answer.stderr) == (code, True), answer.stderr
    assert (await command("credential", "certificate", "remove", "app", identity)).returncode == 0
    assert len(json.loads((await command("credential", "certificate", "list", "--json")).stdout)) == 1
