"""Results for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benches.load.markdown import short
from benches.load.summary import Verdict

_GROUPS = ("server", "postgres", "valkey", "others")


def show(result: Mapping[str, Any], verdicts: Sequence[Verdict], console: Console) -> None:
    """The machine, the rows, the verdicts."""
    about = result["about"]
    console.print(f"{about['date']}  {about['cpu']}, {about['cores']} cores, {about['os']}, kernel {about['kernel']}")
    console.print(
        f"{about['fdatasyncs_per_second']} fdatasyncs/s; "
        f"{about['python_calls_per_cpu_second'] / 1e6:.1f} M calls of Python a CPU-second; "
        f"{', '.join(f'{k} {v}' for k, v in about['versions'].items())}"
    )
    if result["rows"]:
        console.print(_rows(result["rows"]))
    for reason in result["skipped"]:
        console.print(f"not measured: {reason}")
    for name, seen in result["seen"].items():
        console.print(f"{name}: {', '.join(f'{key} {short(value)}' for key, value in seen.items())}")
    console.print(_verdicts(verdicts))


def _rows(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="medians; CPU-seconds per 1,000 messages; ms from the final dot to 250")
    table.add_column("row")
    for heading in (
        "msg/s",
        "CPU-s",
        "server",
        "postgres",
        "valkey",
        "p50 ms",
        "p99 ms",
        "TLS p99",
        "gen. µs",
        "errors",
        "stored",
    ):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        cpu = row["cpu_seconds_per_1000"]
        table.add_row(
            name,
            f"{row['messages_per_second']:,.0f}",
            f"{cpu['total']:.3f}",
            *(f"{cpu[group]:.3f}" if group in cpu else "" for group in _GROUPS[:3]),
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['handshake_p99_ms']:.2f}" if row["handshake_p99_ms"] else "",
            f"{row['generator_cpu_us']:.0f}",
            str(row["errors"]),
            {True: "all", False: "NOT ALL", None: "-"}[row["all_stored"]],
        )
    return table


def _verdicts(verdicts: Sequence[Verdict]) -> Table:
    table = Table(title="figures to reach (medians of ratios within a round)")
    for heading in ("figure", "seen", "wanted", ""):
        table.add_column(heading)
    for verdict in verdicts:
        words = {True: "reached", False: "NOT reached", None: "not measured"}
        seen = "" if verdict.value is None else short(verdict.value)
        table.add_row(verdict.figure, seen, verdict.wanted, words[verdict.reached])
    return table
