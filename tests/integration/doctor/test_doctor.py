"""`smtp-proxy doctor` on real Postgres, Valkey, listeners, certificates and DNS."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from certificates import Authority
from dns_server import DnsServer
from fix_ingress import House, MakeHouse
from fix_postgres import PostgresServer
from fix_valkey import ValkeyCluster, ValkeyServer

from smtp_proxy.config import Settings
from smtp_proxy.doctor import CHECK_NAMES, Finding, Level, Surroundings, postgres
from smtp_proxy.doctor.run import examine
from smtp_proxy.sealing import read_keys
from smtp_proxy.store import Store
from smtp_proxy.tenants import domains

pytestmark = pytest.mark.integration


async def look(name: str, settings: Settings, **around: Any) -> list[Finding]:
    return (await examine(settings, Surroundings(**around), {name}))[name]


def bad(findings: list[Finding], level: Level = Level.FAILED) -> list[Finding]:
    found = [finding for finding in findings if finding.level is level]
    assert all(finding.next_step for finding in found)
    return found


def with_(settings: Settings, **more: Any) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings.model_validate({**given, **more})


# -- Postgres


async def test_a_good_postgres(db_settings: Settings) -> None:
    findings = await look("postgres", db_settings, processes=2)
    assert bad(findings) == bad(findings, Level.WARNING) == []
    assert any("the schema fits" in finding.what for finding in findings)
    assert any("2 processes take 24 of" in finding.what for finding in findings)


async def test_more_processes_than_connections(db_settings: Settings) -> None:
    (finding,) = bad(await look("postgres", db_settings, processes=20))
    assert finding.what.startswith("20 processes take 240 connections")
    assert "DB_POOL_SIZE" in finding.next_step


async def test_a_schema_that_is_missing(postgres: PostgresServer) -> None:
    (finding,) = bad(await look("postgres", postgres.settings(await postgres.new_database(migrated=False))))
    assert "the database lacks" in finding.what
    assert "migrate --pre-only" in finding.next_step


async def test_a_postgres_that_only_reads_or_forgets(db_settings: Settings, postgres: PostgresServer) -> None:
    name = db_settings.db_name
    await postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await postgres.sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    said = " ".join(finding.what for finding in bad(await look("postgres", db_settings)))
    assert "only reads" in said
    assert "synchronous_commit or fsync is off" in said


async def test_a_postgres_that_is_not_there_or_turns_us_away(db_settings: Settings) -> None:
    (finding,) = bad(await look("postgres", with_(db_settings, db_port=9)))
    assert "DB_HOST" in finding.next_step
    (finding,) = bad(await look("postgres", with_(db_settings, db_name="no_such")))
    assert "DB_NAME" in finding.next_step


def test_behind_a_pooler_only_direct_connections_count() -> None:
    settings = Settings.load({"db_pooler": "transaction", "db_direct_port": "5432"}, {})
    facts = postgres.Facts("17", 100, 3, 10, only_reads=False, commits_are_flushed=True, tables_of_others=[])
    (finding,) = postgres.budget(settings, facts, 20)
    assert finding.level is Level.OK
    assert "20 processes take 80 of 97" in finding.what
    assert [f.level for f in postgres.budget(settings, facts, None)] == [Level.SKIPPED]


# -- Redis


async def test_one_valkey(valkey: ValkeyServer) -> None:
    findings = await look("redis", Settings.load({"redis_url": valkey.url}, {}))
    assert bad(findings) == []
    (finding,) = bad(findings, Level.WARNING)
    assert "appendonly is off" in finding.what


async def test_an_eviction_policy_that_throws_the_stream_away(valkey: ValkeyServer) -> None:
    valkey.command(b"CONFIG", b"SET", b"maxmemory-policy", b"allkeys-lru")
    try:
        (finding,) = bad(await look("redis", Settings.load({"redis_url": valkey.url}, {})))
    finally:
        valkey.command(b"CONFIG", b"SET", b"maxmemory-policy", b"noeviction")
    assert "allkeys-lru" in finding.what


async def test_a_cluster_and_one_that_lost_slots(valkey_cluster: ValkeyCluster) -> None:
    url = f"redis://127.0.0.1:{valkey_cluster.nodes[0].port}"
    settings = Settings.load({"redis_url": url, "redis_cluster": True}, {})
    findings = await look("redis", settings)
    assert bad(findings) == []
    assert any("all 16384 slots" in finding.what for finding in findings)
    (finding,) = bad(await look("redis", with_(settings, redis_cluster=False)))
    assert finding.next_step == "set REDIS_CLUSTER=true"
    node = valkey_cluster.nodes[0]
    node.command(b"CLUSTER", b"DELSLOTS", b"0")
    try:
        (finding,) = bad(await look("redis", settings))
    finally:
        node.command(b"CLUSTER", b"ADDSLOTS", b"0")
    assert "16383 are assigned" in finding.what


async def test_a_redis_that_is_not_there() -> None:
    (finding,) = bad(await look("redis", Settings.load({"redis_url": "redis://127.0.0.1:9"}, {})))
    assert "REDIS_URL" in finding.next_step


# -- listeners


async def listening(make_house: MakeHouse, **settings: Any) -> tuple[House, dict[str, Any]]:
    house = await make_house(**settings)
    await house.start()
    return house, {"starttls": house.addresses["starttls"], "implicit": house.addresses["tls"]}


@pytest.fixture
def named(authority: Authority, tmp_path: Path) -> dict[str, Any]:
    """A certificate for the name of the house, good for long."""
    file = authority.issue("mx.example.com", days=40)
    return {"tls_cert_file": file, "tls_key_file": file}


async def test_good_listeners(make_house: MakeHouse, named: dict[str, Any], authority: Authority) -> None:
    house, where = await listening(make_house, **named)
    findings = await look("listeners", house.settings, ca_file=authority.ca_file, **where)
    assert bad(findings) == bad(findings, Level.WARNING) == []
    said = "\n".join(finding.what for finding in findings)
    for listener in ("submission (STARTTLS)", "submissions (TLS)"):
        assert f"{listener} at " in said
    assert said.count("names no server (no SNI)") == 2
    assert said.count("the certificate's chain verifies") == 2
    assert said.count("the certificate's name mx.example.com verifies") == 2


async def test_a_certificate_that_nobody_knows_and_that_ends_soon(make_house: MakeHouse, authority: Authority) -> None:
    house, where = await listening(make_house)  # for localhost, good for a day
    findings = await look("listeners", house.settings, **where)
    said = "\n".join(finding.what for finding in bad(findings))
    assert said.count("the certificate's chain does not verify") == 2
    assert said.count("is good for 1.0 days") == 2
    findings = await look("listeners", house.settings, ca_file=authority.ca_file, **where)
    assert "\n".join(f.what for f in bad(findings)).count("name mx.example.com does not verify") == 2


async def test_with_proxy_protocol(make_house: MakeHouse, named: dict[str, Any], authority: Authority) -> None:
    house, where = await listening(make_house, smtp_proxy_protocol_networks="127.0.0.0/8", **named)
    findings = await look("listeners", house.settings, ca_file=authority.ca_file, **where)
    assert bad(findings) == []
    assert sum("PROXY v2: 127.0.0.1 is trusted" in finding.what for finding in findings) == 2
    assert await house.has_counted("proxy_headers_total", 8)
    told = with_(house.settings, smtp_proxy_protocol_networks="10.0.0.0/8", smtp_proxy_protocol_timeout_seconds=1)
    findings = await look("listeners", told, ca_file=authority.ca_file, **where)
    assert len(bad(findings)) == 2
    assert "SMTP_PROXY_PROTOCOL_NETWORKS" in bad(findings)[0].next_step


async def test_nobody_listens() -> None:
    settings = Settings.load({"smtp_starttls_port": 9, "smtp_tls_port": 9}, {})
    assert len(bad(await look("listeners", settings))) == 2


# -- DNS


async def test_the_hostname() -> None:
    async with DnsServer().running() as server:
        server.add("mx.example.com", "A", "192.0.2.1")
        settings = Settings.load({"hostname": "mx.example.com", "dns_servers": f"127.0.0.1:{server.port}"}, {})
        (finding,) = await look("hostname", settings)
        assert (finding.level, finding.what) == (Level.OK, "mx.example.com is 192.0.2.1")
        (finding,) = bad(await look("hostname", with_(settings, hostname="nowhere.example.com")))
        assert "has no address" in finding.what
        server.failing.add("mx.example.com")
        (finding,) = bad(await look("hostname", with_(settings)))
        assert "DNS_SERVERS" in finding.next_step
    (finding,) = await look("hostname", Settings())
    assert finding.level is Level.WARNING


async def test_domains_of_tenants(db_settings: Settings, tmp_path: Path) -> None:
    key_file = tmp_path / "keys"
    key_file.write_text("one:" + "A" * 43 + "=\n")
    async with DnsServer().running() as server:
        settings = with_(db_settings, dns_servers=f"127.0.0.1:{server.port}")
        (finding,) = await look("domains", settings)
        assert finding.level is Level.SKIPPED
        store = await Store.connect(settings)
        await store.create_tenant("acme")
        now = datetime.now(UTC)
        domain = await domains.add_domain(
            store, read_keys(key_file), "acme", "acme.example", domains.ALGORITHMS, now, -1.0
        )
        await store.close()
        server.add("acme.example", "A", "192.0.2.1")
        findings = await look("domains", settings)
        assert [f.level for f in findings] == [Level.WARNING, Level.FAILED, Level.FAILED, Level.WARNING]
        assert "domains records acme.example" in findings[1].next_step
        server.add("acme.example", "TXT", '"v=spf1 include:spf.example -all"')
        server.add("_dmarc.acme.example", "TXT", '"v=DMARC1; p=none"')
        for record in domains.records(domain, now, 0):
            strings = " ".join(f'"{record.text[n : n + 255]}"' for n in range(0, len(record.text), 255))
            server.add(record.name, "TXT", strings)
        server.ttl = 0
        assert {f.level for f in await look("domains", settings)} == {Level.OK}
        server.add("acme.example", "TXT", '"v=spf1 -all"', '"v=spf1 ~all"')
        (finding,) = bad(await look("domains", settings))
        assert "2 SPF records" in finding.what


# -- ways out


async def test_the_smarthost(make_house: MakeHouse, named: dict[str, Any], authority: Authority) -> None:
    file = authority.issue("127.0.0.1")
    house, where = await listening(make_house, tls_cert_file=file, tls_key_file=file)
    given = {"smarthost_host": where["starttls"][0], "smarthost_ca_file": authority.ca_file}
    for port, tls in ((where["starttls"][1], "starttls"), (where["implicit"][1], "implicit")):
        settings = Settings.load({**given, "smarthost_port": port, "smarthost_tls": tls, "smarthost_username": "u"}, {})
        (finding,) = await look("smarthost", settings)
        assert (finding.level, "with a certificate that verifies" in finding.what) == (Level.OK, True)
    (finding,) = bad(await look("smarthost", with_(settings, smarthost_ca_file=None)))
    assert "SMARTHOST_CA_FILE" in finding.next_step
    del house


async def test_port_25_is_tried_where_asked(make_house: MakeHouse) -> None:
    _, where = await listening(make_house)
    assert [f.level for f in await look("port-25", Settings())] == [Level.SKIPPED]
    assert [f.level for f in await look("port-25", Settings(), port_25_host=where["starttls"])] == [Level.OK]
    (finding,) = bad(await look("port-25", Settings(), port_25_host=("127.0.0.1", 9)))
    assert "ask AWS to lift the restriction" in finding.next_step


ACCOUNT = {
    "EnforcementStatus": "HEALTHY",
    "ProductionAccessEnabled": True,
    "SendingEnabled": True,
    "SendQuota": {"Max24HourSend": 50_000, "MaxSendRate": 14, "SentLast24Hours": 100},
}
SANDBOX = {**ACCOUNT, "ProductionAccessEnabled": False, "SendQuota": {"Max24HourSend": 200, "MaxSendRate": 1}}


@pytest.mark.parametrize(
    ("account", "levels"),
    [
        (ACCOUNT, [Level.OK, Level.OK]),
        (SANDBOX, [Level.WARNING, Level.OK, Level.WARNING]),
        ({**ACCOUNT, "SendingEnabled": False, "EnforcementStatus": "SHUTDOWN"}, None),
        (None, [Level.FAILED]),
    ],
)
async def test_ses(
    account: dict[str, Any] | None, levels: list[Level] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")

    async def answer(_request: web.Request) -> web.Response:
        if account is None:
            return web.json_response(
                {"message": "no"}, status=403, headers={"x-amzn-ErrorType": "AccessDeniedException"}
            )
        return web.json_response(account)

    app = web.Application()
    app.router.add_get("/v2/email/account", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    file = tmp_path / "routes.toml"
    file.write_text(
        'default = "ses"\n[routes.ses]\nkind = "ses"\n[routes.ses.ses]\nregion = "eu-central-1"\n'
        f'endpoint_url = "http://127.0.0.1:{port}"\n'
    )
    try:
        findings = await look("ses", Settings.load({"routes_file": file}, {}))
    finally:
        await runner.cleanup()
    if levels is None:
        assert "sending is paused" in bad(findings)[0].what
        assert "under review: SHUTDOWN" in bad(findings, Level.WARNING)[0].what
    else:
        assert [finding.level for finding in findings] == levels
    assert [f.level for f in await look("ses", Settings())] == [Level.SKIPPED]


# -- the command


async def test_the_command_and_its_exit_codes(valkey: ValkeyServer) -> None:
    code, rows = await command("--only", "redis,settings", "--json", redis_url=valkey.url)
    assert code == 0  # a warning alone
    assert {row["level"] for row in rows} == {"ok", "warning"}
    assert rows[0] == {"check": "settings", "level": "ok", "what": "all settings can be read", "next_step": ""}
    assert (await command("--only", "redis", "--strict", "--json", redis_url=valkey.url))[0] == 1
    assert (await command("--only", "limits", "--lb-idle", "100", "--json"))[0] == 1
    code, rows = await command("--skip", ",".join(name for name in CHECK_NAMES if name != "limits"), "--json")
    assert (code, {row["check"] for row in rows}) == (0, {"settings", "limits"})
    assert (await command("--only", "no-such"))[0] == 2


async def command(*arguments: str, **settings: str) -> tuple[int, Any]:
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "smtp_proxy", *given, "doctor", *arguments, stdout=-1, stderr=-1
    )
    out, _ = await process.communicate()
    return int(process.returncode or 0), json.loads(out) if out.startswith(b"[") else None
