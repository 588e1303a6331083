"""Certificates of the fleet, and what their issuer remembers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from smtp_proxy.errors import NotFound
from smtp_proxy.model.certificate import AcmeAccount, CertificateOrder, StoredCertificate
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.certificates import OrderAttempt
from smtp_proxy.store.ids import new_id
from store_suite.rows import Stores

NOW = datetime(2020, 2, 29, 12, tzinfo=UTC)


def certificate(name: str = "mx", *, days: float = 90, age: float = 0) -> StoredCertificate:
    ends, seal = NOW + timedelta(days=days), Sealed("k1", b"sealed")
    made = NOW - timedelta(days=age)
    return StoredCertificate(
        new_id(made), name, (f"{name}.example.com",), "PEM", seal, made, ends, "https://ca", created_at=made
    )


class CertificateSuite:
    async def test_one_certificate_of_a_name_is_current(self, stores: Stores) -> None:
        store = stores.store
        old, new, other = certificate(age=1), certificate(), certificate("other")
        for each in (old, other, new):
            await store.add_fleet_certificate(each)
        assert await store.list_fleet_certificates() == [new, other]
        replaced = replace(old, state="replaced", replaced_by=new.id)
        assert await store.list_fleet_certificates("mx", current_only=False) == [new, replaced]
        await store.set_fleet_certificate_state(new.id, "revoked")
        assert await store.list_fleet_certificates() == [other]
        with pytest.raises(NotFound):
            await store.set_fleet_certificate_state(new_id(NOW), "revoked")

    async def test_replicas_are_told_of_a_certificate(self, stores: Stores) -> None:
        """REQ-INFRA-TLS-005: whoever serves hears of a new one."""
        store, told = stores.store, asyncio.Event()
        task = asyncio.create_task(store.listen_certificates(told.set))
        try:
            async with asyncio.timeout(5):
                await told.wait()
                told.clear()
                await store.add_fleet_certificate(certificate())
                await told.wait()
        finally:
            task.cancel()

    async def test_the_renewal_time_is_kept_and_old_ones_are_forgotten(self, stores: Stores) -> None:
        store = stores.store
        old, new = certificate(days=-40, age=100), certificate()
        await store.add_fleet_certificate(old)
        await store.add_fleet_certificate(new)
        await store.set_renewal_time(new.id, NOW, NOW + timedelta(days=2))
        (kept,) = await store.list_fleet_certificates()
        assert (kept.renew_at, kept.ask_again_at) == (NOW, NOW + timedelta(days=2))
        await store.forget_fleet_certificates(NOW - timedelta(days=50))
        assert len(await store.list_fleet_certificates(current_only=False)) == 2
        await store.forget_fleet_certificates(NOW - timedelta(days=30))
        assert await store.list_fleet_certificates(current_only=False) == [kept]

    async def test_certificate_keys_are_sealed_anew(self, stores: Stores) -> None:
        store, cert = stores.store, certificate()
        account = AcmeAccount(new_id(NOW), "https://ca/directory", "https://ca/acct/1", Sealed("k1", b"sealed"))
        await store.add_fleet_certificate(cert)
        await store.add_acme_account(account)
        other = Sealed("k2", b"another")
        assert await store.reseal_fleet_certificate(cert, other)
        assert await store.reseal_acme_account(account, other)
        assert not await store.reseal_fleet_certificate(cert, Sealed("k3", b"late"))
        assert not await store.reseal_acme_account(account, Sealed("k3", b"late"))
        assert await store.list_fleet_certificates() == [replace(cert, sealed=other)]
        assert await store.list_acme_accounts() == [replace(account, sealed=other)]

    async def test_an_account_is_replaced(self, stores: Stores) -> None:
        store = stores.store
        for kid in ("https://ca/acct/1", "https://ca/acct/2"):
            await store.add_acme_account(AcmeAccount(new_id(NOW), "https://ca/directory", kid, Sealed("k", b"x")))
        assert [a.kid for a in await store.list_acme_accounts()] == ["https://ca/acct/2"]

    async def test_challenges_expire(self, stores: Stores) -> None:
        store = stores.store
        await store.put_acme_challenge("late", "late.key", timedelta(0))
        await store.put_acme_challenge("one", "one.key", timedelta(days=1))
        assert [await store.acme_challenge(token) for token in ("late", "one", "none")] == [None, "one.key", None]
        await store.remove_acme_challenge("one")
        assert await store.acme_challenge("one") is None

    async def test_attempts_for_a_certificate(self, stores: Stores) -> None:
        """What failed is tried later, and nobody forgets how often."""
        store, order = stores.store, CertificateOrder("mx", ("mx.example.com",), "dns-01", "file")
        await store.put_certificate_order(order)
        later = NOW + timedelta(hours=1)
        failed = OrderAttempt("mx", "the CA is away", later, NOW)
        for _ in range(2):
            await store.begin_certificate_attempt(order, later)
            await store.record_certificate_attempt(failed)
        await store.put_certificate_order(order)  # as at each start
        (kept,) = await store.list_certificate_orders()
        assert kept == replace(order, attempts=2, next_try_at=later, last_error="the CA is away", alerted_at=NOW)
        await store.put_certificate_order(replace(order, names=("mx.example.com", "mail.example.com")))
        (kept,) = await store.list_certificate_orders()
        assert (kept.attempts, kept.next_try_at) == (0, None)
        await store.begin_certificate_attempt(kept, later)
        (begun,) = await store.list_certificate_orders()
        assert (begun.attempts, begun.next_try_at) == (1, later), "one that is broken off is one that failed"
        await store.record_certificate_attempt(OrderAttempt("mx"))
        (kept,) = await store.list_certificate_orders()
        assert (kept.attempts, kept.next_try_at, kept.last_error, kept.alerted_at) == (0, None, None, None)

    async def test_an_operator_asks_for_a_certificate(self, stores: Stores) -> None:
        store, told = stores.store, asyncio.Event()
        await store.put_certificate_order(CertificateOrder("mx", ("mx.example.com",)))
        task = asyncio.create_task(store.listen_certificate_orders(told.set))
        try:
            async with asyncio.timeout(5):
                await told.wait()
                told.clear()
                await store.ask_for_certificate("mx")
                await told.wait()
        finally:
            task.cancel()
        (order,) = await store.list_certificate_orders()
        assert order.asked_at is not None
        for other in (None, order.asked_at - timedelta(hours=1), order.asked_at + timedelta(hours=1)):
            await store.begin_certificate_attempt(replace(order, asked_at=other), NOW)
            assert (await store.list_certificate_orders())[0].asked_at == order.asked_at, "a wish of another time"
        await store.begin_certificate_attempt(order, NOW)
        assert (await store.list_certificate_orders())[0].asked_at is None, "by whichever clock"
        for call in (store.ask_for_certificate, store.remove_certificate_order):
            with pytest.raises(NotFound):
                await call("other")
        await store.remove_certificate_order("mx")
        assert await store.list_certificate_orders() == []
