"""Certificates of the fleet in the store in memory, with the same rules as in `Store`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from smtp_proxy.clock import Clock
from smtp_proxy.errors import NotFound
from smtp_proxy.model.certificate import AcmeAccount, CertificateOrder, CertificateState, StoredCertificate
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.certificates import OrderAttempt


class MemoryCertificates:
    """A part of MemoryStore."""

    _clock: Clock
    certificate_callbacks: list[Callable[[], None]]

    def __init__(self) -> None:
        self._fleet: dict[UUID, StoredCertificate] = {}
        self._acme_accounts: dict[str, AcmeAccount] = {}
        self._challenges: dict[str, tuple[str, datetime]] = {}
        self._orders: dict[str, CertificateOrder] = {}
        self._order_callbacks: list[Callable[[], None]] = []

    def _reachable(self) -> None:
        raise NotImplementedError

    # -- certificates

    async def add_fleet_certificate(self, certificate: StoredCertificate) -> None:
        self._reachable()
        for old in [c for c in self._fleet.values() if (c.name, c.state) == (certificate.name, "current")]:
            self._fleet[old.id] = replace(old, state="replaced", replaced_by=certificate.id)
        created = certificate.created_at or self._clock.now()
        self._fleet[certificate.id] = replace(certificate, created_at=created)
        self._tell_certificates()

    async def list_fleet_certificates(
        self, name: str | None = None, *, current_only: bool = True
    ) -> list[StoredCertificate]:
        self._reachable()
        wanted = [c for c in self._fleet.values() if name in (None, c.name)]
        wanted = [c for c in wanted if c.state == "current" or not current_only]
        wanted.sort(key=lambda c: (c.created_at, c.id), reverse=True)
        return sorted(wanted, key=lambda c: c.name)

    async def set_fleet_certificate_state(self, certificate_id: UUID, state: CertificateState) -> None:
        self._reachable()
        if certificate_id not in self._fleet:
            raise NotFound
        self._fleet[certificate_id] = replace(self._fleet[certificate_id], state=state)
        self._tell_certificates()

    async def set_renewal_time(
        self, certificate_id: UUID, renew_at: datetime | None, ask_again_at: datetime | None
    ) -> None:
        self._reachable()
        self._fleet[certificate_id] = replace(self._fleet[certificate_id], renew_at=renew_at, ask_again_at=ask_again_at)

    async def forget_fleet_certificates(self, before: datetime) -> None:
        self._reachable()
        young = {c.replaced_by for c in self._fleet.values() if c.not_after >= before}
        for c in list(self._fleet.values()):
            if c.state != "current" and c.not_after < before and c.id not in young:
                del self._fleet[c.id]

    async def reseal_fleet_certificate(self, certificate: StoredCertificate, sealed: Sealed) -> bool:
        self._reachable()
        kept = self._fleet.get(certificate.id)
        if kept is None or kept.sealed.data != certificate.sealed.data:
            return False
        self._fleet[kept.id] = replace(kept, sealed=sealed)
        self._tell_certificates()
        return True

    # -- accounts at CAs

    async def list_acme_accounts(self) -> list[AcmeAccount]:
        self._reachable()
        return [self._acme_accounts[directory] for directory in sorted(self._acme_accounts)]

    async def add_acme_account(self, account: AcmeAccount) -> None:
        self._reachable()
        self._acme_accounts[account.directory] = account

    async def reseal_acme_account(self, account: AcmeAccount, sealed: Sealed) -> bool:
        self._reachable()
        kept = self._acme_accounts.get(account.directory)
        if kept is None or kept != account:
            return False
        self._acme_accounts[kept.directory] = replace(kept, sealed=sealed)
        return True

    # -- challenges

    async def put_acme_challenge(self, token: str, key_authorization: str, life: timedelta) -> None:
        self._reachable()
        self._challenges[token] = (key_authorization, self._clock.now() + life)

    async def acme_challenge(self, token: str) -> str | None:
        self._reachable()
        found = self._challenges.get(token)
        return found[0] if found is not None and found[1] > self._clock.now() else None

    async def remove_acme_challenge(self, token: str) -> None:
        self._reachable()
        now = self._clock.now()
        self._challenges = {t: kept for t, kept in self._challenges.items() if t != token and kept[1] > now}

    # -- what is wanted

    async def list_certificate_orders(self) -> list[CertificateOrder]:
        self._reachable()
        return [self._orders[name] for name in sorted(self._orders)]

    async def put_certificate_order(self, order: CertificateOrder) -> None:
        self._reachable()
        kept = self._orders.get(order.name)
        fresh = CertificateOrder(order.name, order.names, order.challenge, order.declared_by)
        if kept is None:
            self._orders[order.name] = fresh
            self._tell_orders()
            return
        again = replace(kept, names=order.names, challenge=order.challenge, declared_by=order.declared_by)
        if kept.names != order.names:
            again = replace(again, attempts=0, next_try_at=None)
        self._orders[order.name] = again

    async def remove_certificate_order(self, name: str) -> None:
        self._reachable()
        if self._orders.pop(name, None) is None:
            raise NotFound
        self._tell_orders()

    async def ask_for_certificate(self, name: str) -> None:
        self._reachable()
        if name not in self._orders:
            raise NotFound
        self._orders[name] = replace(self._orders[name], asked_at=self._clock.now())
        self._tell_orders()

    async def begin_certificate_attempt(self, order: CertificateOrder, next_try_at: datetime) -> None:
        self._reachable()
        kept = self._orders.get(order.name)
        if kept is not None:
            self._orders[kept.name] = replace(
                kept,
                attempts=kept.attempts + 1,
                next_try_at=next_try_at,
                last_error="under way, or it was broken off",
                asked_at=None if kept.asked_at == order.asked_at else kept.asked_at,
            )

    async def record_certificate_attempt(self, attempt: OrderAttempt) -> None:
        self._reachable()
        kept = self._orders.get(attempt.name)
        if kept is not None:
            self._orders[kept.name] = replace(
                kept,
                attempts=0 if attempt.error is None else kept.attempts,
                next_try_at=attempt.next_try_at,
                last_error=attempt.error,
                alerted_at=attempt.alerted_at,
            )

    async def listen_certificate_orders(self, callback: Callable[[], None]) -> None:
        self._order_callbacks.append(callback)
        try:
            callback()
            await asyncio.Event().wait()
        finally:
            self._order_callbacks.remove(callback)

    def _tell_certificates(self) -> None:
        for callback in self.certificate_callbacks:
            callback()

    def _tell_orders(self) -> None:
        for callback in self._order_callbacks:
            callback()
