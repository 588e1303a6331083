"""The loader of queries.sql: statements by name, as in `queries["claim"]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (?P<name>\w+)$")


def parse(text: str) -> dict[str, str]:
    """Split SQL text into its named statements; comment lines are left out, so that they cost nothing on the wire.

    Raises:
        ValueError: a statement without a name, a name used twice, or one without a statement.
    """
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.splitlines():
        named = _NAME.match(line.rstrip())
        if named:
            if named["name"] in found:
                raise ValueError(f"two statements are named {named['name']!r}")
            current = found[named["name"]] = []
        elif line.lstrip().startswith("--") or not line.strip():
            continue
        elif current is None:
            raise ValueError(f"a statement before the first name: {line!r}")
        else:
            current.append(line.rstrip())
    statements = {name: "\n".join(lines).strip().removesuffix(";").rstrip() for name, lines in found.items()}
    if empty := sorted(name for name, statement in statements.items() if not statement):
        raise ValueError(f"named, but empty: {', '.join(empty)}")
    return statements


def _load() -> Mapping[str, str]:
    return MappingProxyType(parse(files(__package__).joinpath("queries.sql").read_text(encoding="utf-8")))


QUERIES: Mapping[str, str] = _load()


def affected(status: str) -> int:
    """The number of rows in a command status such as "UPDATE 3"."""
    return int(status.rsplit(" ", 1)[-1])
