"""Certificates of the fleet, and what their issuer remembers: a part of `Store`. Keys come and go sealed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from smtp_proxy.model.certificate import (
    AcmeAccount,
    CertificateOrder,
    CertificateState,
    StoredCertificate,
)
from smtp_proxy.sealing import Sealed
from smtp_proxy.store.accounts import present
from smtp_proxy.store.listen import CERTIFICATE_ORDERS_CHANNEL, listen
from smtp_proxy.store.queries import QUERIES

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import asyncpg

    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings
    from smtp_proxy.store.pool import Connection


@dataclass(frozen=True, slots=True)
class OrderAttempt:
    """How an attempt to get a certificate ended; `error` None: it is there."""

    name: str
    error: str | None = None
    next_try_at: datetime | None = None
    alerted_at: datetime | None = None


class FleetCertificates:
    """A part of `Store`, which brings the connections."""

    _settings: Settings
    _clock: Clock

    def _connection(self, doing: str) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError

    # -- certificates

    async def add_fleet_certificate(self, certificate: StoredCertificate) -> None:
        """Make it the current one of its name; the one before is `replaced` in the same transaction.

        Raises AlreadyExists: another process did the same at the same time.
        """
        c = certificate
        values = (c.id, c.name, list(c.names), c.chain, c.sealed.data, c.sealed.key_id, c.not_before, c.not_after)
        async with self._connection(f"storing certificate {c.name}") as connection, connection.transaction():
            before = await connection.fetch(QUERIES["retire_certificate"], c.name)
            created = c.created_at or self._clock.now()
            await connection.execute(QUERIES["add_certificate_of_fleet"], *values, c.directory, created)
            for row in before:
                await connection.execute(QUERIES["name_successor"], row["id"], c.id)

    async def list_fleet_certificates(
        self, name: str | None = None, *, current_only: bool = True
    ) -> list[StoredCertificate]:
        """By name, the youngest first."""
        async with self._connection("listing certificates") as connection:
            rows = await connection.fetch(QUERIES["list_certificates_of_fleet"], name, current_only)
        return [_certificate(row) for row in rows]

    async def set_fleet_certificate_state(self, certificate_id: UUID, state: CertificateState) -> None:
        """Such as revoked or removed: then no replica serves it. Raises NotFound."""
        async with self._connection("changing a certificate") as connection:
            row = await connection.fetchrow(QUERIES["set_certificate_state"], certificate_id, state)
        present(row, f"certificate {certificate_id}")

    async def set_renewal_time(
        self, certificate_id: UUID, renew_at: datetime | None, ask_again_at: datetime | None
    ) -> None:
        """As the CA suggests (RFC 9773 4.2; None: it does not), and when to ask it again."""
        async with self._connection("storing a time of renewal") as connection:
            await connection.execute(QUERIES["set_renewal_time"], certificate_id, renew_at, ask_again_at)

    async def forget_fleet_certificates(self, before: datetime) -> None:
        """Delete those that are no longer current and ended before."""
        async with self._connection("forgetting certificates") as connection:
            await connection.execute(QUERIES["forget_certificates"], before)

    async def reseal_fleet_certificate(self, certificate: StoredCertificate, sealed: Sealed) -> bool:
        """Put another seal in place of the one that it has; False: it has another one by now, or is gone."""
        return await self._reseal("reseal_certificate", certificate.id, certificate.sealed, sealed)

    # -- accounts at CAs

    async def list_acme_accounts(self) -> list[AcmeAccount]:
        """By directory."""
        async with self._connection("listing ACME accounts") as connection:
            rows = await connection.fetch(QUERIES["list_acme_accounts"])
        return [AcmeAccount(r["id"], r["directory"], r["kid"], _sealed(r)) for r in rows]

    async def add_acme_account(self, account: AcmeAccount) -> None:
        """In place of another one of that directory."""
        values = (account.id, account.directory, account.kid, account.sealed.data, account.sealed.key_id)
        async with self._connection("storing an ACME account") as connection:
            await connection.execute(QUERIES["add_acme_account"], *values)

    async def reseal_acme_account(self, account: AcmeAccount, sealed: Sealed) -> bool:
        """As `reseal_fleet_certificate`."""
        return await self._reseal("reseal_acme_account", account.id, account.sealed, sealed)

    # -- challenges

    async def put_acme_challenge(self, token: str, key_authorization: str, life: timedelta) -> None:
        """On return any replica can answer it (RFC 8555 8.3)."""
        async with self._connection("storing an ACME challenge") as connection:
            await connection.execute(QUERIES["put_acme_challenge"], token, key_authorization, life)

    async def acme_challenge(self, token: str) -> str | None:
        """The key authorization; None: no such token, or it has expired."""
        async with self._connection("answering an ACME challenge") as connection:
            found: str | None = await connection.fetchval(QUERIES["acme_challenge"], token)
        return found

    async def remove_acme_challenge(self, token: str) -> None:
        """With all that have expired."""
        async with self._connection("removing an ACME challenge") as connection:
            await connection.execute(QUERIES["remove_acme_challenge"], token)

    # -- what is wanted

    async def list_certificate_orders(self) -> list[CertificateOrder]:
        """By name."""
        async with self._connection("listing certificate orders") as connection:
            rows = await connection.fetch(QUERIES["list_certificate_orders"])
        return [_order(row) for row in rows]

    async def put_certificate_order(self, order: CertificateOrder) -> None:
        """Declare it, or declare it anew; how attempts went is kept while the names are the same."""
        values = (order.name, list(order.names), order.challenge, order.declared_by)
        async with self._connection(f"declaring certificate {order.name}") as connection:
            await connection.execute(QUERIES["put_certificate_order"], *values)

    async def remove_certificate_order(self, name: str) -> None:
        """It is no longer renewed; what is there serves on. Raises NotFound."""
        async with self._connection(f"undeclaring certificate {name}") as connection:
            present(await connection.fetchrow(QUERIES["remove_certificate_order"], name), f"certificate {name}")

    async def ask_for_certificate(self, name: str) -> None:
        """Have it issued anew now, whenever it is due. Raises NotFound: it is not declared."""
        async with self._connection(f"asking for certificate {name}") as connection:
            row = await connection.fetchrow(QUERIES["ask_for_certificate"], name, self._clock.now())
        present(row, f"declared certificate {name}")

    async def begin_certificate_attempt(self, order: CertificateOrder, next_try_at: datetime) -> None:
        """Count an attempt before the CA is asked, so that one that is broken off counts as failed.

        The operator's wish in `order` is done with; a younger one is not.
        """
        async with self._connection("beginning an attempt for a certificate") as connection:
            await connection.execute(QUERIES["begin_certificate_attempt"], order.name, next_try_at, order.asked_at)

    async def record_certificate_attempt(self, attempt: OrderAttempt) -> None:
        """Write down how the attempt that was begun ended."""
        a = attempt
        values = (a.name, a.error is not None, a.next_try_at, a.error, a.alerted_at)
        async with self._connection("recording an attempt for a certificate") as connection:
            await connection.execute(QUERIES["record_certificate_attempt"], *values)

    async def listen_certificate_orders(self, callback: Callable[[], None]) -> None:
        """Call back when operators may want something. Runs until cancelled; reconnects by itself."""
        await listen(self._settings, CERTIFICATE_ORDERS_CHANNEL, callback)

    async def _reseal(self, query: str, row_id: UUID, old: Sealed, new: Sealed) -> bool:
        async with self._connection("sealing a key anew") as connection:
            row = await connection.fetchrow(QUERIES[query], row_id, old.data, new.key_id, new.data)
        return row is not None


def _certificate(row: asyncpg.Record) -> StoredCertificate:
    return StoredCertificate(
        row["id"],
        row["name"],
        tuple(row["names"]),
        row["chain"],
        _sealed(row),
        row["not_before"],
        row["not_after"],
        row["directory"],
        row["renew_at"],
        row["ask_again_at"],
        row["state"],
        row["replaced_by"],
        row["created_at"],
    )


def _order(row: asyncpg.Record) -> CertificateOrder:
    return CertificateOrder(
        row["name"],
        tuple(row["names"]),
        row["challenge"],
        row["declared_by"],
        row["attempts"],
        row["next_try_at"],
        row["asked_at"],
        row["last_error"],
        row["alerted_at"],
    )


def _sealed(row: asyncpg.Record) -> Sealed:
    return Sealed(row["secret_key_id"], row["sealed_key"])
