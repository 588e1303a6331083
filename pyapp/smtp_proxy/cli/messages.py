"""`smtp-proxy messages …`: accepted mail and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import typer

from smtp_proxy.cli.arguments import JsonOption
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.output import make_table, print_json, print_table, when
from smtp_proxy.errors import InvalidValue, NotFound
from smtp_proxy.model.attempt import Kind
from smtp_proxy.model.change import Change
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.message import Message, MessageSummary
from smtp_proxy.store import Store

# Messages released between two words about it.
_TELL_EVERY = 10_000

messages_app = typer.Typer(help="Accepted mail and what became of it.", no_args_is_help=True)


@messages_app.command("list")
def messages_list(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only of this tenant.")] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", help="Of some recipient: queued, sending, delivered, refused, held, cancelled."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    before: Annotated[str | None, typer.Option(metavar="ID", help="Only older ones than this.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List messages, newest first."""
    wanted_state = parse_state(state) if state is not None else None
    wanted_before = parse_id(before) if before is not None else None

    async def work(store: Store) -> list[MessageSummary]:
        owner = (await store.tenant_by_name(tenant)).id if tenant is not None else None
        return await store.list_messages(tenant_id=owner, state=wanted_state, limit=limit, before=wanted_before)

    found = with_store(context, work)
    if as_json:
        print_json([asdict(summary) for summary in found])
        return
    table = make_table("id", "received", "from", "to", "bytes", "lane", "state")
    for summary in found:
        first, more = summary.recipients[0] if summary.recipients else "", len(summary.recipients) - 1
        table.add_row(
            str(summary.id),
            when(summary.received_at),
            f"<{summary.reverse_path}>",
            f"<{first}>" + (f" and {more} more" if more > 0 else ""),
            str(summary.size_bytes),
            summary.lane.name.lower(),
            describe_states(summary.states),
        )
    print_table(table)


@messages_app.command("show")
def messages_show(
    context: typer.Context, message_id: Annotated[str, typer.Argument(metavar="ID")], as_json: JsonOption = False
) -> None:
    """Show one message: its recipients, and each attempt to deliver it."""
    wanted = parse_id(message_id)

    async def work(store: Store) -> Message:
        return await store.message(wanted)

    message = with_store(context, work)
    if as_json:
        print_json(as_dict(message))
    else:
        _print_message(message)


@messages_app.command("release")
def messages_release(
    context: typer.Context,
    message_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="All of this tenant.")] = None,
) -> None:
    """Let held mail leave: some messages, or all that is held of a tenant now, oldest first."""
    if bool(message_ids) == (tenant is not None):
        raise InvalidValue("name either messages or --tenant NAME")
    wanted = [parse_id(text) for text in message_ids or ()]

    if tenant is not None:
        _tell_released(with_store(context, lambda store: _release_all(store, tenant)))
        return
    released = with_store(context, lambda store: store.release_held(wanted))
    _tell_released(len(released))
    if left := [str(message_id) for message_id in wanted if message_id not in released]:
        raise NotFound(f"not held: {', '.join(left)}")


@messages_app.command("hold")
def messages_hold(
    context: typer.Context,
    message_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="All of this tenant.")] = None,
) -> None:
    """Keep queued mail until it is released: some messages, or all that a tenant has in the queue now."""
    _change(context, Change.HOLD, message_ids, tenant)


@messages_app.command("cancel")
def messages_cancel(
    context: typer.Context,
    message_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="All of this tenant.")] = None,
) -> None:
    """Never deliver what is queued or held: some messages, or all that a tenant has now. It can not be undone."""
    _change(context, Change.CANCEL, message_ids, tenant)


# -- below


_DONE = {Change.HOLD: "held", Change.CANCEL: "cancelled"}
_NOT = {Change.HOLD: "not queued", Change.CANCEL: "neither queued nor held"}


def _change(context: typer.Context, change: Change, message_ids: Sequence[str] | None, tenant: str | None) -> None:
    if bool(message_ids) == (tenant is not None):
        raise InvalidValue("name either messages or --tenant NAME")
    wanted = [parse_id(text) for text in message_ids or ()]

    if tenant is not None:
        count, in_hand = with_store(context, lambda store: _change_all(store, change, tenant))
        _tell(_DONE[change], count)
        tell_in_hand(_DONE[change], in_hand)
        return

    async def work(store: Store) -> tuple[list[UUID], int]:
        return await store.change(change, wanted), await store.in_hand(envelope_ids=wanted)

    changed, in_hand = with_store(context, work)
    _tell(_DONE[change], len(changed))
    tell_in_hand(_DONE[change], in_hand)
    if left := [str(message_id) for message_id in wanted if message_id not in changed]:
        raise NotFound(f"{_NOT[change]}: {', '.join(left)}")


async def _change_all(store: Store, change: Change, tenant: str) -> tuple[int, int]:
    """How many messages were changed, and how many a worker had in hand: at the start, or at the end if more."""
    owner = (await store.tenant_by_name(tenant)).id
    before = await store.in_hand(tenant_id=owner)
    changed = sum([count async for count in store.change_all(change, owner)])
    return changed, max(before, await store.in_hand(tenant_id=owner))


def tell_in_hand(done: str, count: int) -> None:
    """What an operator's command has left alone, on stderr; `done` is what it did to the others."""
    if count:
        messages = "1 message is" if count == 1 else f"{count} messages are"
        typer.echo(
            f"{messages} in a worker's hand, and what is under way of that was not {done}: "
            "should it be deferred, it is tried again; run this again in some minutes",
            err=True,
        )


def parse_state(text: str) -> DeliveryState:
    """Raises InvalidValue, naming the states there are."""
    try:
        return DeliveryState[text.upper()]
    except KeyError:
        raise InvalidValue(f"{text}: use one of {', '.join(s.name.lower() for s in DeliveryState)}") from None


def parse_id(text: str) -> UUID:
    """Raises InvalidValue."""
    try:
        return UUID(text)
    except ValueError:
        raise InvalidValue(f"{text}: not a message id; they look like 019aba2c-8f1e-7c3a-9d3e-0242ac120002") from None


def describe_states(states: Sequence[DeliveryState]) -> str:
    """`delivered`, or `2 delivered, 1 queued` where recipients differ."""
    names = [state.name.lower() for state in states]
    kinds = sorted(set(names))
    return kinds[0] if len(kinds) == 1 else ", ".join(f"{names.count(kind)} {kind}" for kind in kinds)


def as_dict(message: Message) -> dict[str, Any]:
    """All of it; NOTIFY as a list of words."""
    found = asdict(message)
    for delivery in found["deliveries"]:
        if (notify := delivery["notify"]) is not None:
            delivery["notify"] = notify.keywords.lower().split(",")
    return found


def describe_dsn(message: Message) -> str:
    """What was asked for with RFC 3461, as the client said it; empty for most mail."""
    words = [f"RET={message.ret.name}"] if message.ret is not None else []
    words += [f"ENVID={message.envid}"] if message.envid is not None else []
    of_recipients = []
    for d in message.deliveries:
        asked = [f"NOTIFY={d.notify.keywords}"] if d.notify is not None else []
        asked += [f"ORCPT={d.orcpt}"] if d.orcpt is not None else []
        of_recipients += [f"<{d.recipient}> {' '.join(asked)}"] if asked else []
    return "; ".join([*([" ".join(words)] if words else []), *of_recipients])


async def _release_all(store: Store, tenant: str) -> int:
    """Returns how many messages; says so on stderr as it goes, so that it can be broken off and begun again."""
    total, told = 0, 0
    async for count in store.release_all_held((await store.tenant_by_name(tenant)).id):
        total += count
        if total - told >= _TELL_EVERY:
            told = total
            typer.echo(f"released {total} so far", err=True)
    return total


def _tell_released(count: int) -> None:
    _tell("released", count)


def _tell(done: str, count: int) -> None:
    typer.echo(f"{done} {count} {'message' if count == 1 else 'messages'}")


def _print_message(message: Message) -> None:
    summary = message.summary
    typer.echo(f"message   {summary.id}")
    typer.echo(f"received  {when(summary.received_at)} from {summary.client_address} ({summary.helo}), ", nl=False)
    typer.echo(" ".join(("TLS", summary.tls_suite or "")).rstrip() if summary.tls else "without TLS")
    typer.echo(f"from      <{summary.reverse_path}>, {summary.size_bytes} bytes")
    typer.echo(f"lane      {summary.lane.name.lower()}")
    if asked := describe_dsn(message):
        typer.echo(f"DSN       {asked}")
    table = make_table("to", "state", "attempts", "next attempt", "finished")
    for d in message.deliveries:
        waits = when(d.next_attempt_at) if d.state is DeliveryState.QUEUED else ""
        table.add_row(f"<{d.recipient}>", d.state.name.lower(), str(d.attempt_count), waits, when(d.finished_at))
    print_table(table)
    attempts = make_table("attempt", "to", "at", "took", "outcome", "kind", "server", "reply")
    for d in message.deliveries:
        for a in d.attempts:
            took = f"{(a.finished_at - a.started_at).total_seconds():.3f} s" if a.finished_at is not None else ""
            reply = " ".join(part for part in (str(a.reply_code or ""), a.enhanced_code, a.reply_text) if part)
            outcome = a.outcome.name.lower()
            kind = "" if a.kind in (Kind.UNKNOWN, Kind.ACCEPTED) else a.kind.name.lower()
            attempts.add_row(
                str(a.number), f"<{d.recipient}>", when(a.started_at), took, outcome, kind, a.remote, reply
            )
    if attempts.row_count:
        print_table(attempts)
