"""docs/REQUIREMENTS.md and the tests agree: what is said to be met is cited, what is cited is said to be met."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ID = re.compile(r"REQ-INFRA-([A-Z]+)-(\d{3})")
ROW = re.compile(r"^\| (REQ-INFRA-[A-Z]+-)(\d{3})(?: … (\d{3}))? \| [^|]+ \| (Yes|Partial|Not yet) \| ([^|]*)\|$")


def table() -> dict[str, str]:
    """Every id and what is said of it."""
    found: dict[str, str] = {}
    for line in (ROOT / "docs/REQUIREMENTS.md").read_text().splitlines():
        if "REQ-INFRA-" in line:
            row = ROW.match(line)
            assert row, f"not a row: {line}"
            for number in range(int(row[2]), int(row[3] or row[2]) + 1):
                name = f"{row[1]}{number:03}"
                assert name not in found, f"{name} is there twice"
                found[name] = row[4]
    return found


def files_of_tests() -> Iterator[Path]:
    for folder in ("tests", "client/tests", "core_rs/proto/tests", "core_rs/server/tests"):
        for suffix in ("*.py", "*.rs", "*.smtp"):
            yield from (ROOT / folder).rglob(suffix)


def cited() -> set[str]:
    return {found[0] for file in files_of_tests() if file != Path(__file__) for found in ID.finditer(file.read_text())}


def test_the_table_is_whole() -> None:
    """As many as SPEC-INFRA-001 has in each group, without gaps."""
    counts = {"TLS": 15, "DOCKER": 13, "CLIENT": 12, "ECS": 14, "SCALE": 13}
    wanted = {f"REQ-INFRA-{group}-{n:03}" for group, count in counts.items() for n in range(1, count + 1)}
    assert set(table()) == wanted


def test_what_is_met_is_cited_by_a_test() -> None:
    met = {name for name, state in table().items() if state != "Not yet"}
    assert met - cited() == set()


def test_what_is_cited_is_met() -> None:
    assert {name: table().get(name) for name in cited() if table().get(name) in (None, "Not yet")} == {}
