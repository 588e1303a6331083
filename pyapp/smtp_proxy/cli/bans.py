"""`smtp-proxy bans …`: clients that the SMTP service of this machine turns away."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from smtp_proxy.cli import control
from smtp_proxy.cli.arguments import JsonOption, settings_of
from smtp_proxy.cli.output import make_table, print_json, print_table
from smtp_proxy.errors import InvalidValue

bans_app = typer.Typer(help="Addresses that the SMTP service of this machine turns away.", no_args_is_help=True)

AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="IPv4 or IPv6; of IPv6 its whole network.")]


@bans_app.command("list")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List who is banned, by failed logins or by hand, and for how long still."""
    bans = _asked(context, "bans")
    if as_json:
        print_json(bans)
        return
    table = make_table("address", "seconds left")
    for ban in bans:
        table.add_row(ban["address"], f"{ban['seconds_left']:.0f}")
    print_table(table)


@bans_app.command("add")
def add(
    context: typer.Context,
    address: AddressArgument,
    seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=1, help="For so long; SMTP_LOGIN_BAN_SECONDS without it.")
    ] = None,
) -> None:
    """Turn ADDRESS away: 421 when it connects, and no login in its sessions that stand."""
    lasting = settings_of(context).smtp_login_ban_seconds if seconds is None else seconds
    _asked(context, "ban", address=address, seconds=lasting)
    typer.echo(f"{address} is banned for {lasting:.0f} seconds")


@bans_app.command("lift")
def lift(context: typer.Context, address: AddressArgument) -> None:
    """Let ADDRESS in again, and forget its failed logins."""
    _asked(context, "lift-ban", address=address)
    typer.echo(f"{address} is no longer banned")


def _asked(context: typer.Context, verb: str, **arguments: object) -> list[dict[str, Any]]:
    """The bans that there are after it."""
    path = settings_of(context).control_socket
    return list(control.ask(path, verb, refusal=InvalidValue, **arguments)["bans"])
