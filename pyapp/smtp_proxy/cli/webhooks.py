"""`smtp-proxy webhooks …`: where tenants hear of their mail."""

from __future__ import annotations

import contextlib
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from smtp_proxy.aws.logins import sealing_keys
from smtp_proxy.cli.arguments import JsonOption, settings_of
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.output import make_table, print_json, print_table, when
from smtp_proxy.config import Settings
from smtp_proxy.errors import InvalidValue, NotFound, ServiceFailed
from smtp_proxy.model.webhook import EVENTS_COUNTED, Event, Webhook
from smtp_proxy.sealing import Sealed
from smtp_proxy.store import Store
from smtp_proxy.store.ids import new_id
from smtp_proxy.worker.webhook_post import Poster, check_url

# Events replayed between two words about it.
_TELL_EVERY = 100_000
_NOTHING = UUID(int=0)  # RFC 9562 5.9

webhooks_app = typer.Typer(help="Where tenants hear of their mail.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `webhooks list` shows it.")]


@webhooks_app.command("add")
def webhooks_add(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL")],
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose mail.")],
    event: Annotated[
        list[str] | None, typer.Option("--event", help=f"One of {', '.join(Event)}; may be given again. None: all.")
    ] = None,
) -> None:
    """Tell this endpoint what becomes of a tenant's mail. The secret that signs is shown once, now."""
    settings = settings_of(context)
    keys, secret, now = sealing_keys(settings), secrets.token_urlsafe(32), datetime.now(UTC)
    check_url(url, https_only=settings.webhook_https_only)
    wanted = _events(event or [])

    async def work(store: Store) -> Webhook:
        owner = await store.tenant_by_name(tenant)
        webhook = Webhook(new_id(now), owner.id, url, wanted, Sealed("", b""), now)
        sealed = keys.seal(secret.encode(), webhook.context)
        webhook = Webhook(webhook.id, owner.id, url, wanted, sealed, now)
        await store.add_webhook(webhook)
        return webhook

    webhook = with_store(context, work)
    typer.echo(f"added webhook {webhook.id} of tenant {tenant}")
    typer.echo(f"secret: {secret}")


@webhooks_app.command("list")
def webhooks_list(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only of this tenant.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List webhooks and how they fare, without anything secret."""

    async def work(store: Store) -> list[dict[str, Any]]:
        names = {t.id: t.name for t in await store.list_tenants()}
        owner = (await store.tenant_by_name(tenant)).id if tenant is not None else None
        webhooks = await store.list_webhooks(owner)
        counts = await store.event_counts([w.id for w in webhooks])
        return [
            {
                "id": w.id,
                "tenant": names.get(w.tenant_id, str(w.tenant_id)),
                "url": w.url,
                "events": w.events,
                "waiting": counts.get(w.id, (0, 0))[0],
                "given_up": counts.get(w.id, (0, 0))[1],
                "failing_since": w.failing_since,
                "paused_until": w.paused_until,
                "disabled_at": w.disabled_at,
                "last_error": w.last_error,
            }
            for w in webhooks
        ]

    rows = with_store(context, work)
    if as_json:
        print_json(rows)
        return
    table = make_table("id", "tenant", "URL", "events", "waiting", "given up", "state", "last error")
    for row in rows:
        cells = (str(row["id"]), row["tenant"], row["url"], ", ".join(row["events"]) or "all")
        table.add_row(*cells, _counted(row["waiting"]), _counted(row["given_up"]), _state(row), row["last_error"])
    print_table(table)


@webhooks_app.command("remove")
def webhooks_remove(context: typer.Context, webhook: IdArgument) -> None:
    """Tell it nothing more, and forget what it was to be told."""
    with_store(context, lambda store: store.remove_webhook(_id(webhook)))
    typer.echo(f"removed webhook {webhook}")


@webhooks_app.command("enable")
def webhooks_enable(context: typer.Context, webhook: IdArgument) -> None:
    """Go on with one that was paused or switched off; what waits for it has its whole time anew."""

    async def work(store: Store) -> None:
        await store.enable_webhook((await _one(store, webhook)).id)

    with_store(context, work)
    typer.echo(f"enabled webhook {webhook}")


@webhooks_app.command("test")
def webhooks_test(context: typer.Context, webhook: IdArgument) -> None:
    """Post a signed test event now, from here, and say what came of it."""
    settings = settings_of(context)

    async def work(store: Store) -> str:
        return await _post_test(settings, await _one(store, webhook))

    error = with_store(context, work)
    if error:
        raise ServiceFailed(f"the test event was not taken: {error}")
    typer.echo("the test event was taken")


@webhooks_app.command("replay")
def webhooks_replay(
    context: typer.Context,
    webhook: IdArgument,
    since: Annotated[datetime | None, typer.Option(help="What occurred from then on, UTC.")] = None,
    message: Annotated[str | None, typer.Option(metavar="ID", help="Of this message alone.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what was taken before.")] = False,
) -> None:
    """Tell again what was given up, the oldest messages first. It can be broken off and begun again."""

    async def work(store: Store) -> int:
        found = await _one(store, webhook)
        total, told = 0, 0
        async for count in store.replay_events(
            found.id,
            since=since.replace(tzinfo=UTC) if since is not None else None,
            envelope_id=_id(message) if message is not None else None,
            everything=everything,
        ):
            total += count
            if total - told >= _TELL_EVERY:
                told = total
                typer.echo(f"{total} events so far", err=True)
        return total

    typer.echo(f"{with_store(context, work)} events are told again")


# -- below


async def _post_test(settings: Settings, webhook: Webhook) -> str:
    secret = sealing_keys(settings).open(webhook.sealed, webhook.context)
    now, poster = datetime.now(UTC), Poster(settings)
    payload = {"id": f"test-{webhook.id}", "event": "test", "occurred_at": now.isoformat()}
    try:
        return await poster.post(webhook.url, secret, payload["id"], payload, int(now.timestamp()))
    finally:
        await poster.close()


def _events(given: list[str]) -> tuple[str, ...]:
    known = {event.value for event in Event}
    if wrong := [name for name in given if name not in known]:
        raise InvalidValue(f"--event {wrong[0]}: there are {', '.join(Event)}")
    return tuple(dict.fromkeys(given))


async def _one(store: Store, text: str) -> Webhook:
    wanted = _id(text)
    for webhook in await store.list_webhooks():
        if webhook.id == wanted:
            return webhook
    raise NotFound(f"there is no webhook {text}; see `smtp-proxy webhooks list`")


def _id(text: str) -> UUID:
    with contextlib.suppress(ValueError):
        if (parsed := UUID(text)) != _NOTHING:
            return parsed
    raise InvalidValue(f"{text!r} is no id; see `smtp-proxy webhooks list` or `messages list`")


def _counted(number: int) -> str:
    return f"{number} or more" if number >= EVENTS_COUNTED else str(number)


def _state(row: dict[str, Any]) -> str:
    if row["disabled_at"] is not None:
        return f"switched off {when(row['disabled_at'])}"
    if row["failing_since"] is not None:
        return f"failing since {when(row['failing_since'])}"
    return "well"
