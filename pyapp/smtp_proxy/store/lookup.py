"""Rows as nouns."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from smtp_proxy.model.attempt import Kind, Outcome
from smtp_proxy.model.dsn import Notify, Ret, optional
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.limits import AtLimit, TenantLimits
from smtp_proxy.model.message import AttemptRecord, Delivery, Message, MessageSummary
from smtp_proxy.model.policy import OnUnknown, Reports, TenantPolicy
from smtp_proxy.model.tenant import CertificateIdentity, Credential, Tenant
from smtp_proxy.model.tls import suite_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg


def tenant(row: asyncpg.Record) -> Tenant:
    # What a later release may do at the limit, this one can not: then the client keeps its mail.
    known = row["at_limit"] in set(AtLimit)
    at_limit = AtLimit(row["at_limit"]) if known else AtLimit.REJECT
    limits = TenantLimits(row["messages_per_minute"], row["recipients_per_minute"], row["max_sessions"], at_limit)
    return Tenant(row["id"], row["name"], row["created_at"], row["disabled_at"], limits)


def policy(row: asyncpg.Record) -> TenantPolicy:
    # What a later release may do, this one can not: then nothing is sent twice.
    on_unknown = OnUnknown(row["on_unknown"]) if row["on_unknown"] in set(OnUnknown) else OnUnknown.HOLD
    # Likewise, it reports all.
    reports = Reports(row["reports"]) if row["reports"] in set(Reports) else Reports.ALL
    known = {field.name: row[field.name] for field in fields(TenantPolicy)}
    return TenantPolicy(**{**known, "on_unknown": on_unknown, "reports": reports, "lane": Lane(row["lane"])})


def credential(row: asyncpg.Record) -> Credential:
    lists = {name: tuple(row[name]) for name in ("allowed_senders", "allowed_networks")}
    lane = None if row["lane"] is None else Lane(row["lane"])
    return Credential(**{**dict(row), **lists, "lane": lane})


def certificate_identity(row: asyncpg.Record) -> CertificateIdentity:
    return CertificateIdentity(**dict(row))


def summary(
    row: asyncpg.Record, recipients: Iterable[str] | None, states: Iterable[int] | None, lane: int | None
) -> MessageSummary:
    return MessageSummary(
        id=row["id"],
        tenant_id=row["tenant_id"],
        credential_id=row["credential_id"],
        reverse_path=row["reverse_path"],
        size_bytes=row["size_bytes"],
        received_at=row["received_at"],
        helo=row["helo"],
        client_address=row["client_address"],
        tls=row["tls"],
        recipients=tuple(recipients or ()),
        states=tuple(DeliveryState(state) for state in states or ()),
        tls_suite=suite_name(row["tls_suite"]),
        lane=Lane(lane or 0),
    )


def message(row: asyncpg.Record, deliveries: Sequence[asyncpg.Record], attempts: Sequence[asyncpg.Record]) -> Message:
    by_recipient: dict[int, list[AttemptRecord]] = {}
    for attempt in attempts:
        by_recipient.setdefault(attempt["recipient_number"], []).append(_attempt(attempt))
    return Message(
        summary(
            row,
            [d["recipient"] for d in deliveries],
            [d["state"] for d in deliveries],
            min((d["lane"] for d in deliveries), default=None),
        ),
        tuple(_delivery(d, by_recipient.get(d["recipient_number"], [])) for d in deliveries),
        ret=optional(Ret, row["dsn_ret"]),
        envid=row["dsn_envid"],
    )


def _delivery(row: asyncpg.Record, attempts: Sequence[AttemptRecord]) -> Delivery:
    return Delivery(
        number=row["recipient_number"],
        recipient=row["recipient"],
        state=DeliveryState(row["state"]),
        attempt_count=row["attempt_count"],
        next_attempt_at=row["next_attempt_at"],
        claimed_by=row["claimed_by"],
        finished_at=row["finished_at"],
        attempts=tuple(attempts),
        notify=optional(Notify, row["dsn_notify"]),
        orcpt=row["dsn_orcpt"],
        route=row["route"],
        waits_for=row["waits_for"],
    )


def _attempt(row: asyncpg.Record) -> AttemptRecord:
    return AttemptRecord(
        number=row["attempt_number"],
        outcome=Outcome(row["outcome"]),
        reply_code=row["reply_code"],
        enhanced_code=row["enhanced_code"],
        reply_text=row["reply_text"],
        remote=row["remote"],
        worker_id=row["worker_id"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        kind=Kind(row["kind"]),
    )
