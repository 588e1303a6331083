"""How answers look: tables for people, JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from smtp_proxy.telemetry import logs


def make_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Without a terminal each row is one line, whatever its length, so that it can be searched and cut."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=10_000)
    console.print(table)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(logs.plain(value), indent=2, ensure_ascii=False))


def when(moment: Any) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S") + "Z"


def masked(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return logs.REDACTED if value.get_secret_value() else ""
    return "" if value is None else str(value) if isinstance(value, Path) else value
