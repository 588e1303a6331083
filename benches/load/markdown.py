"""A result as a page of Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_GROUPS = ("server", "postgres", "valkey")
_REACHED = {True: "reached", False: "**not reached**", None: "not measured"}


def page(kind: str, json_name: str, result: Mapping[str, Any]) -> str:
    """Machine, rows, figures to reach, and what was left out."""
    about = result["about"]
    lines = [f"# {about['date'][:10]}, {kind} ([JSON]({json_name}))", "", *_machine(about), ""]
    if result["rows"]:
        lines += [*_rows(result["rows"]), ""]
    for name, seen in result["seen"].items():
        lines.append(f"- {name}: {', '.join(f'{key} {short(value)}' for key, value in seen.items())}")
    lines += ["", *_verdicts(result["verdicts"])]
    lines += [f"\nNot measured: {reason}" for reason in result["skipped"]]
    return "\n".join(lines) + "\n"


def short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _machine(about: Mapping[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield (
        f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, {about['os']}, kernel {about['kernel']}, "
        f"{about['fdatasyncs_per_second']:,} fdatasync/s, "
        f"{about['python_calls_per_cpu_second'] / 1e6:.1f} M method calls of Python per CPU-second, "
        f"load before {about['load_average_before']:.2f}; {versions}."
    )
    yield f"\n{about['method']}."


def _rows(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| | msg/s | spread | CPU-s per 1,000 | server | Postgres | Valkey | p50 ms | p99 ms | handshake p99 ms |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for name, row in rows.items():
        cpu = row["cpu_seconds_per_1000"]
        low, high = row["messages_per_second_spread"]
        cells = [
            name,
            f"{row['messages_per_second']:,.0f}",
            f"{low:,.0f} to {high:,.0f}",
            f"{cpu['total']:.3f}",
            *(f"{cpu[group]:.3f}" if group in cpu else "" for group in _GROUPS),
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['handshake_p99_ms']:.2f}" if row["handshake_p99_ms"] else "",
        ]
        faults = [f"{row['errors']} errors"] if row["errors"] else []
        faults += ["**not all stored**"] if row["all_stored"] is False else []
        yield f"| {'; '.join([cells[0], *faults])} | {' | '.join(cells[1:])} |"


def _verdicts(verdicts: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "| figure (median of ratios within a round) | seen | wanted | |"
    yield "|---|--:|--:|---|"
    for verdict in verdicts:
        seen = "" if verdict["value"] is None else short(verdict["value"])
        yield f"| {verdict['figure']} | {seen} | {verdict['wanted']} | {_REACHED[verdict['reached']]} |"
