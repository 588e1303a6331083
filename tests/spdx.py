"""SPDX licence expressions (SPDX 2.3 annex D), as far as packages use them: AND, OR, WITH, brackets, and `/` for OR."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet


class NotSpdx(ValueError):
    """It is no expression."""


def accepted_with(expression: str, allowed: AbstractSet[str]) -> frozenset[str] | None:
    """The allowed licences by which the expression is met; None: it is not."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    met, rest = _any_of(tokens, allowed)
    if rest:
        raise NotSpdx(expression)
    return met


def _any_of(tokens: list[str], allowed: AbstractSet[str]) -> tuple[frozenset[str] | None, list[str]]:
    met, rest = _all_of(tokens, allowed)
    while rest[:1] == ["OR"]:
        other, rest = _all_of(rest[1:], allowed)
        met = met if met is not None else other
    return met, rest


def _all_of(tokens: list[str], allowed: AbstractSet[str]) -> tuple[frozenset[str] | None, list[str]]:
    met, rest = _one(tokens, allowed)
    while rest[:1] == ["AND"]:
        other, rest = _one(rest[1:], allowed)
        met = None if met is None or other is None else met | other
    return met, rest


def _one(tokens: list[str], allowed: AbstractSet[str]) -> tuple[frozenset[str] | None, list[str]]:
    match tokens:
        case ["(", *inner]:
            met, rest = _any_of(inner, allowed)
            if rest[:1] != [")"]:
                raise NotSpdx(" ".join(tokens))
            return met, rest[1:]
        case [name, "WITH", exception, *rest] if name not in ("OR", "AND", ")"):
            licence = f"{name} WITH {exception}"
        case [licence, *rest] if licence not in ("OR", "AND", "WITH", ")"):
            pass
        case _:
            raise NotSpdx(" ".join(tokens))
    return (frozenset([licence]) if licence in allowed else None), rest
