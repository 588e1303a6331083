"""`smtp-proxy doctor`: whether this deployment is as it must be."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from smtp_proxy.cli.arguments import JsonOption, parse_address, settings_of
from smtp_proxy.cli.output import make_table, print_json, print_table
from smtp_proxy.doctor import CHECK_NAMES, Finding, Level, Surroundings
from smtp_proxy.doctor.surroundings import NLB_IDLE_SECONDS
from smtp_proxy.errors import InvalidValue

_STYLES = {Level.OK: "green", Level.SKIPPED: "dim", Level.WARNING: "yellow", Level.FAILED: "red"}
_NAMES = ", ".join(("settings", *CHECK_NAMES))
NamesOption = Annotated[list[str] | None, typer.Option("--only", metavar="A,B", help=f"Only these: {_NAMES}.")]


def doctor(
    context: typer.Context,
    only: NamesOption = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", metavar="A,B", help="All but these.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings too make the exit code 1.")] = False,
    starttls: Annotated[
        str | None, typer.Option("--submission", metavar="HOST:PORT", help="Where 587 is; by default this machine.")
    ] = None,
    implicit: Annotated[
        str | None, typer.Option("--submissions", metavar="HOST:PORT", help="Where 465 is; by default this machine.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The CA of our certificates, if it is one of your own.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many services run side by side at most, all kinds together.")
    ] = None,
    lb_idle: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="The load balancer's TCP idle time-out.")
    ] = NLB_IDLE_SECONDS,
    port_25: Annotated[
        str | None, typer.Option("--port-25", metavar="HOST:PORT", help="Try port 25 there, even without MX routes.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look whether this deployment is as it must be; exit code 1 when something is not, 0 with warnings alone."""
    names = _chosen(only, skip)
    around = Surroundings(
        starttls=None if starttls is None else parse_address(starttls),
        implicit=None if implicit is None else parse_address(implicit),
        ca_file=ca_file,
        processes=processes,
        load_balancer_idle_seconds=lb_idle,
        port_25_host=None if port_25 is None else parse_address(port_25),
    )
    settings = settings_of(context)  # what is wrong with them ends the command, exit code 2
    found = {"settings": [Finding(Level.OK, "all settings can be read")]} if "settings" in names else {}
    examine = importlib.import_module("smtp_proxy.doctor.run").examine  # slow to load
    found |= asyncio.run(examine(settings, around, names))
    _print(found, as_json=as_json)
    bad = {Level.FAILED, Level.WARNING} if strict else {Level.FAILED}
    raise typer.Exit(1 if any(finding.level in bad for _, finding in _flat(found)) else 0)


def _chosen(only: list[str] | None, skip: list[str] | None) -> set[str]:
    """Raises InvalidValue: there is no such check."""
    known = {"settings", *CHECK_NAMES}
    wanted, unwanted = _names(only) or known, _names(skip)
    if unknown := sorted((wanted | unwanted) - known):
        raise InvalidValue(f"{', '.join(unknown)}: there is no such check; there are {_NAMES}")
    return wanted - unwanted


def _names(options: list[str] | None) -> set[str]:
    return {name.strip() for option in options or () for name in option.split(",") if name.strip()}


def _flat(found: dict[str, list[Finding]]) -> Iterable[tuple[str, Finding]]:
    return ((name, finding) for name, findings in found.items() for finding in findings)


def _print(found: dict[str, list[Finding]], *, as_json: bool) -> None:
    if as_json:
        rows: list[dict[str, Any]] = [
            {"check": name, "level": finding.level.value, "what": finding.what, "next_step": finding.next_step}
            for name, finding in _flat(found)
        ]
        print_json(rows)
        return
    table = make_table("check", "", "what was found", "next step")
    for name, finding in _flat(found):
        table.add_row(name, finding.level.value, finding.what, finding.next_step, style=_STYLES[finding.level])
    print_table(table)
