"""Logins by client certificate: whose it is, for how long that is remembered, and what its identities are called."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network

import pytest
from ingress_fakes import settle

from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import InvalidValue
from smtp_proxy.model.tenant import Identity
from smtp_proxy.store.memory import MemoryStore
from smtp_proxy.tenants.certificates import CertificateChecker, choose
from smtp_proxy.tenants.names import certificate_identity

FINGERPRINT = "ab" * 32


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def usernames_by_certificate(self, identities: Sequence[str]) -> dict[str, str]:
        self.asked += 1
        await self.open.wait()
        return await super().usernames_by_certificate(identities)


@pytest.fixture
async def store() -> CountingStore:
    made = CountingStore()
    tenant = await made.create_tenant("acme")
    for username in ("app", "batch"):
        await made.create_credential(tenant.id, username, "hash")
    await made.add_certificate("app", f"sha256:{FINGERPRINT}")
    return made


@pytest.fixture
def checker(store: CountingStore) -> CertificateChecker:
    return CertificateChecker(store, Settings.load({}, {}), SystemClock())


def username(verdict: object) -> object:
    return verdict.username if isinstance(verdict, Identity) else verdict


async def test_found_once_and_remembered(store: CountingStore, checker: CertificateChecker) -> None:
    assert checker.cached("", FINGERPRINT) is None
    assert username(await checker.check("", FINGERPRINT, [])) == "app"
    assert username(checker.cached("", FINGERPRINT)) == "app"
    assert username(await checker.check("", FINGERPRINT, [])) == "app"
    assert store.asked == 1
    checker.forget()
    assert checker.cached("", FINGERPRINT) is None


async def test_the_identity_asked_for_must_be_its_own(checker: CertificateChecker) -> None:
    assert username(await checker.check("app", FINGERPRINT, [])) == "app"
    assert await checker.check("batch", FINGERPRINT, []) is False
    assert await checker.check("", "00" * 32, ["dns:app.example"]) is False


async def test_a_disabled_credential_is_refused(store: CountingStore, checker: CertificateChecker) -> None:
    await store.disable_credential("app")
    assert await checker.check("", FINGERPRINT, []) is False


async def test_what_a_credential_may_holds_for_its_certificate_too(
    store: CountingStore, checker: CertificateChecker
) -> None:
    await store.set_allowed_networks("app", [ip_network("198.51.100.0/24")])
    await store.set_allowed_senders("app", ["example.com"])
    for _ in range(2):  # found out, and remembered
        assert await checker.check("", FINGERPRINT, [], "192.0.2.1") is False
        verdict = await checker.check("", FINGERPRINT, [], "198.51.100.7")
        assert isinstance(verdict, Identity)
        assert verdict.senders == ("example.com",)
    assert checker.cached("", FINGERPRINT, "192.0.2.1") is False
    assert store.asked == 1


async def test_without_the_store_nobody_knows(store: CountingStore, checker: CertificateChecker) -> None:
    store.down = True
    assert await checker.check("", FINGERPRINT, []) is None
    store.down = False
    assert username(await checker.check("", FINGERPRINT, [])) == "app"


async def test_many_at_once_are_one_question(store: CountingStore, checker: CertificateChecker) -> None:
    store.open.clear()
    checks = [asyncio.create_task(checker.check("", FINGERPRINT, [])) for _ in range(50)]
    await asyncio.sleep(0)
    checks.pop().cancel()
    store.open.set()
    assert {username(verdict) for verdict in await asyncio.gather(*checks)} == {"app"}
    assert store.asked == 1


async def test_what_was_found_out_before_a_change_is_not_kept(
    store: CountingStore, checker: CertificateChecker
) -> None:
    store.open.clear()
    check = asyncio.create_task(checker.check("", FINGERPRINT, []))
    await settle()
    checker.forget()
    store.open.set()
    await check
    assert checker.cached("", FINGERPRINT) is None


@pytest.mark.parametrize(
    ("owners", "asked", "expected"),
    [
        ({}, "", None),
        ({}, "app", None),
        ({"dns:a": "app"}, "", "app"),
        ({"dns:a": "app", "dns:b": "app"}, "", "app"),
        ({"dns:a": "app", "dns:b": "batch"}, "", None),
        ({"dns:a": "app", "dns:b": "batch"}, "batch", "batch"),
        ({"dns:a": "app", f"sha256:{FINGERPRINT}": "batch"}, "", "batch"),
        ({"dns:a": "app", f"sha256:{FINGERPRINT}": "batch"}, "app", "app"),
        ({"dns:a": "app"}, "batch", None),
    ],
)
def test_whom_it_stands_for(owners: dict[str, str], asked: str, expected: str | None) -> None:
    assert choose(owners, FINGERPRINT, asked) == expected


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        (f"sha256:{FINGERPRINT}", f"sha256:{FINGERPRINT}"),
        ("SHA256:" + ":".join(["AB"] * 32), f"sha256:{FINGERPRINT}"),
        ("dns:App.Example", "dns:app.example"),
        ("email:App@Acme.Example", "email:App@acme.example"),
        ("uri:spiffe://acme/App", "uri:spiffe://acme/App"),
        ("ip:2001:DB8::0001", "ip:2001:db8::1"),
        ("cn:The App", "cn:The App"),
    ],
)
def test_identities_are_written_as_they_are_compared(text: str, identity: str) -> None:
    assert certificate_identity(text) == identity


@pytest.mark.parametrize(
    "text", ["", "app.example", "sha256:abcd", "dns:", "ip:x", "user:x", "cn:a\nb", "sha1:" + "a" * 40]
)
def test_what_is_none_is_told(text: str) -> None:
    with pytest.raises(InvalidValue):
        certificate_identity(text)
