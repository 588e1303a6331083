"""`smtp-proxy messages dead` and `… replay`: what was refused or given up, and another try for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import typer

from smtp_proxy.cli.arguments import JsonOption
from smtp_proxy.cli.connected import with_store
from smtp_proxy.cli.messages import parse_id
from smtp_proxy.cli.output import make_table, print_json, print_table, when
from smtp_proxy.errors import InvalidValue, NotFound
from smtp_proxy.model.attempt import Kind
from smtp_proxy.model.mailbox import mailbox_key
from smtp_proxy.model.outcome import DeadLetter
from smtp_proxy.store import Store

# Dead letters that the first statement looks at; later ones look at more.
_BATCH = 500

TenantOption = Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only of this tenant.")]
KindOption = Annotated[
    str | None, typer.Option(metavar="KIND", help="Only whose last attempt was of this kind, such as block or quota.")
]


def messages_dead(
    context: typer.Context,
    tenant: TenantOption = None,
    kind: KindOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many recipients.")] = 50,
    before: Annotated[str | None, typer.Option(metavar="ID", help="Only older messages than this.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters: recipients that were refused or given up, newest message first."""
    wanted_kind = parse_kind(kind)
    wanted_before = parse_id(before) if before is not None else None

    async def work(store: Store) -> list[DeadLetter]:
        owner = (await store.tenant_by_name(tenant)).id if tenant is not None else None
        return await store.dead_letters(tenant_id=owner, kind=wanted_kind, before=wanted_before, limit=limit)

    found = with_store(context, work)
    if as_json:
        print_json([asdict(letter) | {"kind": letter.kind.name.lower()} for letter in found])
        return
    table = make_table("id", "to", "from", "finished", "attempts", "kind", "reply")
    for letter in found:
        reply = " ".join(p for p in (str(letter.reply_code or ""), letter.enhanced_code, letter.reply_text) if p)
        table.add_row(
            str(letter.envelope_id),
            f"<{letter.recipient}>",
            f"<{letter.reverse_path}>",
            when(letter.finished_at),
            str(letter.attempt_count),
            letter.kind.name.lower(),
            reply,
        )
    print_table(table)


def messages_replay(
    context: typer.Context,
    message_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...")] = None,
    recipient: Annotated[
        list[str] | None, typer.Option("--recipient", metavar="ADDRESS", help="Only to these; may be given again.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="All dead letters of this tenant.")
    ] = None,
    kind: KindOption = None,
) -> None:
    """Try dead letters again, as if they had come now. What was tried before stays on record."""
    if bool(message_ids) == (tenant is not None) or (kind is not None and tenant is None):
        raise InvalidValue("name either messages or --tenant NAME, which may have --kind; --recipient goes with both")
    wanted_kind = parse_kind(kind)
    wanted = [parse_id(text) for text in message_ids or ()]
    if tenant is not None:
        count = with_store(context, lambda store: _replay_all(store, tenant, wanted_kind, recipient or ()))
        _tell(count)
        return
    replayed = with_store(context, lambda store: store.replay(wanted, recipient or ()))
    _tell(len(replayed))
    if left := [str(message_id) for message_id in wanted if message_id not in replayed]:
        raise NotFound(f"no dead letters, or no body kept: {', '.join(left)}")


def parse_kind(text: str | None) -> Kind | None:
    """Raises InvalidValue, naming the kinds there are."""
    if text is None:
        return None
    try:
        return Kind[text.upper()]
    except KeyError:
        raise InvalidValue(f"{text}: use one of {', '.join(kind.name.lower() for kind in Kind)}") from None


async def _replay_all(store: Store, tenant: str, kind: Kind | None, recipients: Sequence[str]) -> int:
    """Newest first, a batch at a time, so that it can be broken off; returns how many messages."""
    owner = (await store.tenant_by_name(tenant)).id
    only = {mailbox_key(address) for address in recipients}
    total = 0
    async for letters in store.dead_letter_pages(tenant_id=owner, kind=kind, page=_BATCH):
        by_message: dict[UUID, list[str]] = {}
        for letter in letters:
            if not only or mailbox_key(letter.recipient) in only:
                by_message.setdefault(letter.envelope_id, []).append(letter.recipient)
        if kind is None:
            total += len(await store.replay(list(by_message), recipients))
        else:
            for envelope_id, addresses in by_message.items():
                total += len(await store.replay([envelope_id], addresses))
    return total


def _tell(count: int) -> None:
    typer.echo(f"replayed {count} {'message' if count == 1 else 'messages'}")
