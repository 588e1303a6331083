"""Mail over time: how many messages a second are offered at a second since the beginning."""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from smtp_proxy.errors import ConfigurationError

Traffic: TypeAlias = Callable[[float], float]
NAMES: Final = ("steady", "day", "spike")
_DAY_SECONDS: Final = 86_400.0
_NIGHT_SHARE: Final = 0.1
_SPIKE_BEGINS: Final = 600.0


def profile(name: str, per_second: float, *, times: float = 10.0, spike_seconds: float = 900.0) -> Traffic:
    """`steady`; `day`: its peak at noon, a tenth of it at night; `spike`: `times` as much, after 10 minutes.

    Raises ConfigurationError: there is no such profile.
    """
    if name == "steady":
        return lambda _: per_second
    if name == "day":
        return lambda at: per_second * max(_NIGHT_SHARE, math.sin(math.pi * (at % _DAY_SECONDS) / _DAY_SECONDS) ** 2)
    if name == "spike":
        ends = _SPIKE_BEGINS + spike_seconds
        return lambda at: per_second * (times if _SPIKE_BEGINS <= at < ends else 1.0)
    raise ConfigurationError(f"--profile: {name} is none of {', '.join(NAMES)}; a recorded one is --traffic FILE")


def recorded(file: Path) -> tuple[Traffic, float]:
    """Of a CSV file with `seconds,per_second` on each line, and how long it is; each rate holds until the next line.

    Raises ConfigurationError: names the line that is wrong.
    """
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.reader(lines) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"--traffic: can not read {file}: {error}") from None
    if rows and rows[0][0].strip() == "seconds":
        del rows[0]
    times: list[float] = []
    rates: list[float] = []
    for number, row in enumerate(rows, 1):
        try:
            at, rate = map(float, row)
        except ValueError:
            at = rate = math.nan
        if not (math.isfinite(at) and math.isfinite(rate) and rate >= 0 and at > (times[-1] if times else -1.0)):
            raise ConfigurationError(
                f"--traffic: {file}, row {number}: wanted `seconds,per_second`, with seconds that grow: {','.join(row)}"
            )
        times.append(at)
        rates.append(rate)
    if not times:
        raise ConfigurationError(f"--traffic: {file} has no row of `seconds,per_second`")

    def offered(at: float) -> float:
        place = bisect_right(times, at) - 1
        return rates[place] if place >= 0 else 0.0

    return offered, times[-1]
