"""`python -m infra_graph.diagram FILE`: production as a drawing for readers, docs/aws.svg (`make diagram`).

Where things stand is written here; what stands there, and each arrow with its ports, is read from the graph, which is
the program's own: an arrow is a pair of security-group rules. Of ports between the same two there is one arrow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

from infra_graph.canonical import Resource
from infra_graph.reading import S3, WORLD, Flow, Member, Stack, read

WIDTH, HEIGHT = 1200, 900
INK, PALE, LINE, OFF = "#1f2328", "#f6f8fa", "#d0d7de", "#8c959f"


class Place(NamedTuple):
    """A box: left, top, width, height; and what stands there, where the graph has no name for it."""

    x: int
    y: int
    wide: int
    high: int
    title: str


WORLD_PLACE = Place(20, 90, 130, 540, "Internet")
NAT = Place(265, 345, 150, 80, "NAT gateways")
TASKS = ("smtp", "certs", "worker", "api", "dashboard")
# By security group.
PLACES = {
    "nlb": Place(265, 90, 150, 225, "Network load balancer"),
    "alb": Place(265, 455, 150, 175, "Application load balancer"),
    "smtp": Place(540, 90, 220, 135, "Accepting mail"),
    "certs": Place(540, 245, 220, 75, "Certificates"),
    "worker": Place(540, 340, 220, 90, "Delivering"),
    "api": Place(540, 450, 220, 75, "API"),
    "dashboard": Place(540, 555, 220, 75, "Dashboard"),
    "database": Place(950, 90, 200, 200, "Database"),
    "cache": Place(950, 330, 200, 130, "Cache"),
    "endpoints": Place(540, 690, 220, 75, "Interface endpoints"),
}
S3_PLACE = Place(950, 690, 200, 75, "S3")
KEPT = Place(950, 510, 200, 140, "Buckets and secrets")
FRAMES = (
    (Place(250, 60, 180, 585, "public subnets"), "#ddf4ff"),
    (Place(525, 60, 250, 720, "private subnets"), "#dafbe1"),
    (Place(935, 60, 230, 415, "database subnets"), "#fff8c5"),
)
# Told apart by colour, and by the port that is written beside each.
COLOURS = {"database": "#0969da", "cache": "#bc4c00", "endpoints": "#57606a", S3: "#57606a", WORLD: "#8250df"}
ENTERING = "#1a7f37"


class NoPlace(Exception):
    """A security group that this drawing does not know: give it a place in PLACES."""


def draw(resources: Iterable[Resource]) -> str:
    """A whole SVG. Raises: NoPlace."""
    stack = read(resources)
    unknown = sorted(stack.members.keys() - PLACES.keys())
    if unknown:
        raise NoPlace(f"tests/infra_graph/diagram.py: PLACES has no {', '.join(unknown)}")
    parts = [*_head(), *_frames(stack), *_arrows(stack), *_boxes(stack), *_modules(stack), "</svg>"]
    return "\n".join(parts) + "\n"


# -- text and boxes


def _text(x: float, y: float, said: str, look: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {look}>{escape(said)}</text>'.replace(" >", ">")


def _rect(place: Place, look: str) -> str:
    return f'<rect x="{place.x}" y="{place.y}" width="{place.wide}" height="{place.high}" rx="6" {look}/>'


def _head() -> Iterator[str]:
    about = "The AWS stack of production: what there is, and who reaches whom by which port"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}" role="img" aria-label="{about}">'
    )
    yield "<!-- Made from the graph by `make diagram`; changes made here are lost. -->"
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    yield _text(20, 30, about, 'font-size="16" font-weight="bold"')
    yield _text(20, 48, "An arrow is open for these TCP ports and no others. Dashed: switched off in stack.yaml.")


def _frames(stack: Stack) -> Iterator[str]:
    for place, colour in FRAMES:
        yield _rect(place, f'fill="{colour}" fill-opacity="0.5" stroke="{LINE}"')
        yield _text(place.x + 10, place.y + 18, f"{place.title}, {stack.zones} zones", f'fill="{OFF}"')


def _boxes(stack: Stack) -> Iterator[str]:
    yield _rect(WORLD_PLACE, f'fill="{PALE}" stroke="{INK}"')
    yield _text(WORLD_PLACE.x + 12, WORLD_PLACE.y + 22, WORLD_PLACE.title, 'font-weight="bold"')
    yield from _lines(WORLD_PLACE, 40, ("applications,", "the certificate", "authority,", "smarthosts, MX"))
    yield from _box(NAT, [Member("vpc", f"{stack.nat_gateways} NAT gateways", ("all that leaves",))])
    for group, members in stack.members.items():
        yield from _box(PLACES[group], members)
    yield from _box(S3_PLACE, [Member("vpc", "S3", ("gateway endpoint",))])
    kept = [*(f"bucket: {name}" for name in stack.buckets), *(f"secret: {name}" for name in stack.secrets)]
    yield from _box(KEPT, [Member("ecs", KEPT.title, tuple(kept))])


def _box(place: Place, members: Sequence[Member]) -> Iterator[str]:
    """One box for a security group, with all who stand in it."""
    if not members:
        yield _rect(place, f'fill="white" stroke="{OFF}" stroke-dasharray="5 4"')
        for number, line in enumerate([*wrap(place.title, place.wide // 8), "switched off"]):
            yield _text(place.x + 12, place.y + 22 + 17 * number, line, f'fill="{OFF}"')
        return
    yield _rect(place, f'fill="white" stroke="{INK}"')
    yield _text(
        place.x + place.wide - 8,
        place.y + place.high - 8,
        members[0].module,
        f'text-anchor="end" font-size="10" fill="{OFF}"',
    )
    top = 22
    for member in members:
        for line in wrap(member.title, place.wide // 8):
            yield _text(place.x + 12, place.y + top, line, 'font-weight="bold"')
            top += 17
        lines = [part for line in member.lines for part in wrap(line, (place.wide - 20) // 6)]
        if len(member.lines) > 3 and place.high < 100:
            lines = wrap(", ".join(member.lines), (place.wide - 20) // 6)
        yield from _lines(place, top, lines)
        top += 17 * len(lines) + 8


def _lines(place: Place, top: int, lines: Sequence[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield _text(place.x + 12, place.y + top + 17 * number, line, 'font-size="11"')


def _modules(stack: Stack) -> Iterator[str]:
    """A box for each module, with what it has of what is counted."""
    wide = (WIDTH - 40) // len(stack.modules)
    for number, (name, said) in enumerate(stack.modules.items()):
        place = Place(20 + number * wide, 800, wide - 8, 90, name)
        yield _rect(place, f'fill="{PALE}" stroke="{LINE}"')
        yield _text(place.x + 8, place.y + 16, name, 'font-weight="bold"')
        for line, words in enumerate(wrap(said, (wide - 16) // 5)):
            yield _text(place.x + 8, place.y + 31 + 12 * line, words, 'font-size="9"')


# -- arrows


class Arrow(NamedTuple):
    points: tuple[tuple[float, float], ...]
    said: str
    at: tuple[float, float]  # where that is written
    colour: str
    off: bool


def _arrows(stack: Stack) -> Iterator[str]:
    for arrow in (*_from_everyone(stack), *_between(stack)):
        points = " ".join(f"{x:g},{y:g}" for x, y in arrow.points)
        dashes = ' stroke-dasharray="5 4"' if arrow.off else ""
        colour = OFF if arrow.off else arrow.colour
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"{dashes}/>'
        yield _tip(arrow.points[-2], arrow.points[-1], colour)
        look = f'font-size="11" fill="{colour}" stroke="white" stroke-width="3" paint-order="stroke"'
        yield _text(*arrow.at, arrow.said, look)


def _tip(before: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    across, down = end[0] - before[0], end[1] - before[1]
    length = (across**2 + down**2) ** 0.5 or 1.0
    ax, ay = across / length, down / length
    left = f"{end[0] - 8 * ax - 4 * ay:.1f},{end[1] - 8 * ay + 4 * ax:.1f}"
    right = f"{end[0] - 8 * ax + 4 * ay:.1f},{end[1] - 8 * ay - 4 * ax:.1f}"
    return f'<polygon points="{end[0]:g},{end[1]:g} {left} {right}" fill="{colour}"/>'


def _shared(stack: Stack, target: str) -> list[Flow]:
    """Flows of all tasks to one target, by the same ports: drawn once, from the frame; else none."""
    flows = [flow for flow in stack.flows if flow.target == target]
    alike = len({flow.ports for flow in flows}) == 1
    return flows if {flow.source for flow in flows} == set(TASKS) and alike else []


def _from_everyone(stack: Stack) -> Iterator[Arrow]:
    below, frame = PLACES["endpoints"], FRAMES[1][0]
    middle = S3_PLACE.y + S3_PLACE.high / 2
    ways = {
        "endpoints": (((below.x + 30, below.y - 45), (below.x + 30, below.y)), (below.x + 38, below.y - 20)),
        S3: (((frame.x + frame.wide, middle), (S3_PLACE.x, middle)), (frame.x + frame.wide + 8, middle - 6)),
    }
    for target, (points, at) in ways.items():
        for flow in _shared(stack, target)[:1]:
            yield Arrow(points, f"{_ports(flow)} from every service", at, COLOURS[target], False)


def _between(stack: Stack) -> Iterator[Arrow]:
    shared = {flow for target in ("endpoints", S3) for flow in _shared(stack, target)}
    for flow in stack.flows:
        if flow not in shared:
            off = not all(name in (WORLD, S3) or stack.members[name] for name in (flow.source, flow.target))
            yield _routed(flow, off, [each for each in stack.flows if each not in shared])


def _routed(flow: Flow, off: bool, flows: list[Flow]) -> Arrow:
    if WORLD in (flow.source, flow.target):
        return _with_world(flow, off, flows)
    source, target = PLACES[flow.source], _place(flow.target)
    leaving = [each for each in flows if each.source == flow.source and each.target != WORLD]
    reaching = [each for each in flows if each.target == flow.target]
    if source.x == target.x:  # one above the other
        x = source.x + source.wide * 0.8
        ends = (source.y, target.y + target.high) if source.y > target.y else (source.y + source.high, target.y)
        return Arrow(((x, ends[0]), (x, ends[1])), _ports(flow), (x + 6, sum(ends) / 2 + 4), ENTERING, off)
    start = (source.x + source.wide, _slot(source, flow, leaving))
    end = (target.x, _slot(target, flow, reaching))
    if source.x < target.x < 900:  # from a load balancer: level, at the height of what it reaches
        y = target.y + target.high / 2
        start, end = (start[0], y), (end[0], y)
    colour = COLOURS.get(flow.target, ENTERING)
    return Arrow((start, end), _ports(flow), (start[0] + 8, start[1] - 4 + (end[1] - start[1]) * 0.04), colour, off)


def _with_world(flow: Flow, off: bool, flows: list[Flow]) -> Arrow:
    """Into a load balancer; or out of a task, through a NAT gateway."""
    edge = WORLD_PLACE.x + WORLD_PLACE.wide
    if flow.source == WORLD:
        place = PLACES[flow.target]
        y = place.y + 60
        return Arrow(((edge, y), (place.x, y)), _ports(flow), (edge + 6, y - 5), ENTERING, off)
    place = PLACES[flow.source]
    number = [each.source for each in flows if each.target == WORLD].index(flow.source)
    y = NAT.y + 22 + 30 * number
    x = NAT.x + NAT.wide
    start = (place.x, min(max(y, place.y + 55), place.y + place.high - 12))
    points = (start, (x + 60 - 25 * number, start[1]), (x + 60 - 25 * number, y), (x, y), (edge, y))
    return Arrow(points, _ports(flow), (edge + 6, y - 5), COLOURS[WORLD], off)


def _place(group: str) -> Place:
    return {S3: S3_PLACE, WORLD: WORLD_PLACE}.get(group) or PLACES[group]


def _slot(place: Place, flow: Flow, others: list[Flow]) -> float:
    """Where along an edge: those that share it stand apart."""
    ordered = sorted(others, key=lambda each: (_place(each.target).y, _place(each.source).y))
    return place.y + place.high * (ordered.index(flow) + 1) / (len(ordered) + 1)


def _ports(flow: Flow) -> str:
    return ", ".join(map(str, flow.ports))


if __name__ == "__main__":
    from fix_infra import ROOT, pulumi_side

    Path(sys.argv[1]).write_text(draw(pulumi_side(ROOT, "production")))
