"""What one message costs in CPU-seconds, as recorded benchmarks say."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from smtp_proxy.errors import ConfigurationError

_SHIPPED: Final = Path(__file__).with_name("costs.toml")
_LARGE_KIB: Final = 64.0
_ROW: Final = "ours delivering fast"


@dataclass(frozen=True, slots=True)
class MessageCosts:
    """CPU-seconds of one message, by who spends them."""

    source: str
    measured_per_second: float  # beyond, they are extrapolated
    server: float
    postgres_accept: float
    postgres_deliver: float
    valkey: float
    worker: float


def read_costs(size_kib: float = 1.0, results: Path | None = None, cpu_factor: float = 1.0) -> MessageCosts:
    """The shipped ones, or with what a result of `make bench-e2e` says; for messages of this size.

    What grows with the size grows evenly between 1 and 64 KiB, and so on beyond. `cpu_factor`: how many times as fast
    a vCPU there is as one of the machine that was measured.

    Raises ConfigurationError: `results` is no such file.
    """
    shipped = tomllib.loads(_SHIPPED.read_text(encoding="utf-8"))
    small, large = shipped["per_1000_of_1_kib"], shipped["per_1000_of_64_kib"]
    source = f"benchmarks of {shipped['recorded']}"
    if results is not None:
        small, source = {**small, **_recorded(results)}, results.name
    share = max(0.0, size_kib - 1) / (_LARGE_KIB - 1)

    def grown(name: str) -> float:
        growth = max(0.0, float(large[name]) - float(shipped["per_1000_of_1_kib"][name]))
        return float(small[name]) + share * growth

    more = grown("postgres_accept") - small["postgres_accept"]
    costs = MessageCosts(
        source,
        float(shipped["measured_per_second"]),
        server=grown("server"),
        postgres_accept=grown("postgres_accept"),
        postgres_deliver=max(0.0, small["postgres_whole"] - small["postgres_accept"]),
        valkey=float(small["valkey"]),
        # It reads what the server wrote, and sends it on.
        worker=float(small["worker"]) + more,
    )
    names = ("server", "postgres_accept", "postgres_deliver", "valkey", "worker")
    return replace(costs, **{name: getattr(costs, name) / 1000 / cpu_factor for name in names})


def _recorded(file: Path) -> dict[str, float]:
    try:
        row: Any = json.loads(file.read_text(encoding="utf-8"))["rows"][_ROW]
        spent = row["cpu_seconds_per_1000"]
        whole = {"server": spent["server"], "postgres_whole": spent["postgres"], "valkey": spent["valkey"]}
        return {**whole, "worker": spent.get("worker", spent["total"] - sum(whole.values()))}
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"--results: {file} is no result of `make bench-e2e` (benches/results/…-e2e.json)"
        ) from None
