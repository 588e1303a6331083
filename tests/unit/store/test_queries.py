"""The loader of queries.sql."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.store.queries import QUERIES, parse

names = st.from_regex(r"\A[a-z_]{1,12}\Z")
lines = st.text(st.characters(codec="ascii", exclude_characters=";", exclude_categories=["Cc"]), min_size=1)
statements = st.lists(
    lines.map(str.rstrip).filter(lambda line: line and not line.lstrip().startswith("--")), min_size=1, max_size=4
)


@given(st.dictionaries(names, statements, max_size=5))
def test_written_then_parsed_is_the_same(wanted: dict[str, list[str]]) -> None:
    text = "".join(f"-- name: {name}\n-- why\n\n" + "\n".join(body) + ";\n\n" for name, body in wanted.items())
    assert parse(text) == {name: "\n".join(body).strip() for name, body in wanted.items()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 1;", "before the first name"),
        ("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;", "two statements are named 'a'"),
        ("-- name: a\n-- only words\n", "empty: a"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_our_own_are_whole() -> None:
    assert "claim" in QUERIES
    for name, statement in QUERIES.items():
        assert "--" not in statement, name
        numbers = {int(n) for n in re.findall(r"\$(\d+)", statement)}
        assert numbers == set(range(1, len(numbers) + 1)), f"{name} skips a parameter"
