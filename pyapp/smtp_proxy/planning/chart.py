"""Lines over time, or over the rate of mail, as SVG and as an HTML page: nothing is fetched when it is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Final

from smtp_proxy.planning.capacity import Plan
from smtp_proxy.planning.simulation import Sample

_WIDTH: Final = 860
_HEIGHT: Final = 200
_LEFT: Final = 70
_RIGHT: Final = 150
_MARGIN: Final = 26  # above and below
# Told apart by colour and by dash, also where colours are not seen.
_STYLES: Final = (("#1f6feb", ""), ("#d1242f", "6 3"), ("#1a7f37", "2 2"), ("#8250df", "8 2 2 2"))
Lines = Mapping[str, Sequence[float]]
# What is below the line, of a place on it and of the last one.
Mark = Callable[[float, float], str]


def svg(title: str, times: Sequence[float], lines: Lines, top: int = 0, mark: Mark | None = None) -> str:
    """One chart; `times` in seconds, or what `mark` makes of them. `top`: where it begins in a taller picture."""
    mark = mark or _moment
    highest = _nice(max((max(values, default=0.0) for values in lines.values()), default=0.0))
    longest = max(times, default=1.0) or 1.0
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - 2 * _MARGIN

    def place(at: float, value: float) -> str:
        return f"{_LEFT + wide * at / longest:.1f},{_MARGIN + high * (1 - value / highest):.1f}"

    name = f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(title)}</text>'
    parts = [f'<g transform="translate(0 {top})">', name]
    for share in (0.0, 0.5, 1.0):
        y = _MARGIN + high * (1 - share)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_LEFT + wide}" stroke="#d0d7de"/>')
        amount = _short(highest * share)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{amount}</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _LEFT + wide * share
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{mark(longest * share, longest)}</text>'
        )
    for number, (name, values) in enumerate(lines.items()):
        colour, dashes = _STYLES[number % len(_STYLES)]
        points = " ".join(place(at, value) for at, value in zip(times, values, strict=True))
        drawn = f'stroke="{colour}" stroke-width="1.5" stroke-dasharray="{dashes}"'
        parts.append(f'<polyline points="{points}" fill="none" {drawn}/>')
        y = _MARGIN + 14 + 16 * number
        parts.append(f'<text x="{_LEFT + wide + 10}" y="{y}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</g>"])


def picture(samples: Sequence[Sample], title: str) -> str:
    """A whole SVG: mail, backlog, tasks and cost, one below the other."""
    times = [sample.at for sample in samples]
    tasks = {name: [float(s.tasks.get(name, 0)) for s in samples] for name in (samples[0].tasks if samples else {})}
    flows = ("offered", "accepted", "refused", "delivered")
    charts: list[tuple[str, Lines]] = [
        ("messages a second", {name: [getattr(s, name) for s in samples] for name in flows}),
        ("backlog, messages", {"backlog": [s.backlog for s in samples]}),
        ("running tasks", tasks),
        ("cost, US dollars an hour", {"cost": [s.dollars_per_hour for s in samples]}),
    ]
    return _one_below_the_other(charts, times, title)


def plan_picture(plans: Mapping[float, Plan], title: str) -> str:
    """A whole SVG of plans by their peaks, messages a minute: tasks, storage and cost."""
    peaks = list(plans)
    made = list(plans.values())
    costs = list(dict.fromkeys(name for plan in made for name in plan.dollars_per_month))
    dearest = sorted(costs, key=lambda name: -max(plan.dollars_per_month.get(name, 0.0) for plan in made))[:3]
    dollars = {name: [plan.dollars_per_month.get(name, 0.0) for plan in made] for name in dearest}
    services = list(dict.fromkeys(name for plan in made for name in plan.tasks))
    charts: list[tuple[str, Lines]] = [
        (
            "tasks; to the right: messages a minute at the peak",
            {name: [float(p.tasks.get(name, 0)) for p in made] for name in services},
        ),
        ("connections to the database", {"connections": [float(plan.database_connections) for plan in made]}),
        ("storage, GiB", {"storage": [plan.storage_gib for plan in made]}),
        ("cost, US dollars a month", {"all of it": [plan.total for plan in made], **dollars}),
    ]
    return _one_below_the_other(charts, peaks, title, lambda peak, _: _short(round(peak)))


def plan_page(plans: Mapping[float, Plan], title: str, notes: Sequence[str]) -> str:
    """The same with what is to be said of it, as HTML."""
    return _page(plan_picture(plans, title), title, notes)


def page(samples: Sequence[Sample], title: str, notes: Sequence[str]) -> str:
    """The picture with what it means, as HTML."""
    return _page(picture(samples, title), title, notes)


# -- below


def _one_below_the_other(
    charts: Sequence[tuple[str, Lines]], times: Sequence[float], title: str, mark: Mark | None = None
) -> str:
    height = 30 + _HEIGHT * len(charts)
    drawn = [svg(name, times, lines, 30 + _HEIGHT * at, mark) for at, (name, lines) in enumerate(charts)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title, quote=True)}">'
    )
    name = f'<text x="{_LEFT}" y="20" font-size="15">{escape(title)}</text>'
    back = f'<rect width="{_WIDTH}" height="{height}" fill="white"/>'
    return "\n".join([head, back, name, *drawn, "</svg>"]) + "\n"


def _page(drawn: str, title: str, notes: Sequence[str]) -> str:
    said = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head>'
        f'<body style="font-family: sans-serif">\n{drawn}<ul>{said}</ul></body></html>\n'
    )


def _nice(value: float) -> float:
    """The next 1, 2 or 5 with zeros."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-12))


def _short(value: float) -> str:
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def _moment(seconds: float, longest: float) -> str:
    if longest < 600:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02} h" if seconds >= 7200 else f"{minutes} min"
