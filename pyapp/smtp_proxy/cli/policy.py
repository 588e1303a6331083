"""`smtp-proxy tenant policy`: what a tenant wants to become of its mail."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from smtp_proxy.cli.arguments import JsonOption, settings_of
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.lanes import parse_lane
from smtp_proxy.cli.output import print_json
from smtp_proxy.config import Settings
from smtp_proxy.errors import InvalidValue
from smtp_proxy.model.policy import OnUnknown, Reports
from smtp_proxy.store import Store

# Postgres' integer.
_SECONDS_MAX = 2**31 - 1


def tenant_policy(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    on_unknown: Annotated[
        OnUnknown | None,
        typer.Option(help="A message was sent and no answer came: it is sent again, or held for an operator."),
    ] = None,
    idempotency_seconds: Annotated[
        str | None,
        typer.Option(metavar="SECONDS|none", help="A Message-ID or X-Idempotency-Key is taken once in so long."),
    ] = None,
    max_age_seconds: Annotated[
        str | None,
        typer.Option(metavar="SECONDS|none", help="What is not delivered after so long is given up."),
    ] = None,
    reports: Annotated[
        Reports | None,
        typer.Option(help="Senders hear of failures and long delays, of what they asked for (NOTIFY), or nothing."),
    ] = None,
    suppress_hard_bounces: Annotated[
        bool | None,
        typer.Option(
            "--suppress-hard-bounces/--no-suppress-hard-bounces",
            help="An address that is refused for good gets no more mail of this tenant.",
        ),
    ] = None,
    retention_days: Annotated[
        str | None, typer.Option(metavar="DAYS|none", help="Mail is kept so long; none: as RETENTION_DAYS says.")
    ] = None,
    keep_bodies: Annotated[
        bool | None, typer.Option(help="Without: no content is kept once the last recipient is settled.")
    ] = None,
    lane: Annotated[
        str | None,
        typer.Option(
            metavar="LANE",
            help="transactional; bulk: leaves behind all that is transactional. A credential, a message may differ.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Change what becomes of a tenant's mail; what is not named stays. Without options: show it."""
    changes: dict[str, Any] = {}
    if on_unknown is not None:
        changes["on_unknown"] = on_unknown
    if idempotency_seconds is not None:
        changes["idempotency_seconds"] = parse_whole(idempotency_seconds, "--idempotency-seconds")

    if max_age_seconds is not None:
        changes["max_age_seconds"] = parse_whole(max_age_seconds, "--max-age-seconds")
    if reports is not None:
        changes["reports"] = reports
    if suppress_hard_bounces is not None:
        changes["suppress_hard_bounces"] = suppress_hard_bounces

    if lane is not None:
        changes["lane"] = parse_lane(lane, "--lane")

    kept = _kept(retention_days, keep_bodies)

    async def work(store: Store) -> dict[str, Any]:
        policy, retention = await store.tenant_policy(name), await store.tenant_retention(name)
        if changes:
            policy = await store.set_tenant_policy(name, replace(policy, **changes))
        if kept:
            retention = replace(retention, **kept)
            await store.set_retention(retention)
        return {
            **asdict(policy),
            "lane": policy.lane.name.lower(),
            "retention_days": retention.days,
            "keep_bodies": retention.keep_bodies,
        }

    policy = with_store(context, work)
    if as_json:
        print_json(policy)
        return
    settings = settings_of(context)
    for setting, value in policy.items():
        typer.echo(f"{setting.replace('_', ' '):<21}  {_in_words(setting, value, settings)}")


def _in_words(setting: str, value: Any, settings: Settings) -> str:
    """`none` where it means that, else what applies instead."""
    if setting == "retention_days":
        return _days(value) if value is not None else f"default ({_days(settings.retention_days)})"
    if setting == "max_age_seconds" and value is None:
        return f"default ({settings.retry_give_up_seconds:g})"
    return "none" if value is None else str(value)


def _days(days: int) -> str:
    """0: what RETENTION_DAYS means by it."""
    return f"{days} {'day' if days == 1 else 'days'}" if days else "kept until dropped by hand"


def _kept(retention_days: str | None, keep_bodies: bool | None) -> dict[str, Any]:
    kept: dict[str, Any] = {} if keep_bodies is None else {"keep_bodies": keep_bodies}
    if retention_days is not None:
        kept["days"] = parse_whole(retention_days, "--retention-days")
    return kept


def parse_whole(text: str, option: str) -> int | None:
    """A whole number from 1 on, or `none`. Raises InvalidValue."""
    if text.lower() == "none":
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _SECONDS_MAX):
        raise InvalidValue(f"{option} {text}: use a whole number from 1 on, or none")
    return int(text)
