"""Priority lanes on the command line: which mail of whom goes first."""

from __future__ import annotations

from typing import Annotated

import typer

from smtp_proxy.cli.connected import with_store
from smtp_proxy.errors import InvalidValue
from smtp_proxy.model.lane import Lane

_OF_TENANT = "tenant"


def parse_lane(text: str, what: str) -> Lane:
    """By its name, in any case of letters. Raises InvalidValue."""
    try:
        return Lane[text.upper()]
    except KeyError:
        raise InvalidValue(f"{what} {text}: use one of {', '.join(lane.name.lower() for lane in Lane)}") from None


def credential_lane(
    context: typer.Context,
    username: Annotated[str, typer.Argument(metavar="USERNAME")],
    lane: Annotated[str, typer.Argument(metavar="LANE", help="transactional, bulk, or tenant: as its tenant's mail.")],
) -> None:
    """Say which lane this login's mail goes in, from the next message on; a message may ask for another."""
    wanted = None if lane.lower() == _OF_TENANT else parse_lane(lane, "LANE")
    with_store(context, lambda store: store.set_credential_lane(username, wanted))
    typer.echo(f"{username}: {lane.lower() if wanted is not None else 'as its tenant'}")
