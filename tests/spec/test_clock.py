"""No module of tests reads the clock as it is imported: the last of them run long after that.

What it calls may read it, which is not seen here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("tests", "client/tests", "benches")
# Of datetime, date and time; a name that is called by itself was imported from there.
READS = {
    *("now", "utcnow", "today", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
    *("gmtime", "localtime", "ctime", "strftime", "process_time", "clock_gettime", "clock_gettime_ns"),
}
LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The node and those in it that run with the module: a function's decorators and defaults, not its body."""
    yield node
    inner = [ast.iter_child_nodes(node)]
    if isinstance(node, LATER):
        inner = [node.args.defaults, [each for each in node.args.kw_defaults if each is not None]]
        inner += [] if isinstance(node, ast.Lambda) else [node.decorator_list]
    for each in inner:
        for child in each:
            yield from at_import(child)


def read_at_import(source: str) -> list[int]:
    """The lines in which the clock is read while the module is imported."""
    calls = (node.func for node in at_import(ast.parse(source)) if isinstance(node, ast.Call))
    return [f.lineno for f in calls if (f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "")) in READS]


def test_none_reads_the_clock_at_import() -> None:
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 300
    found = {str(file.relative_to(ROOT)): read_at_import(file.read_text()) for file in files}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "NOW = datetime.now(UTC)",
        "NOW = datetime.now(UTC).replace(microsecond=0)",
        "class A:\n began = time.monotonic()",
        "def key(since=datetime.now(UTC)): ...",
        "def key(*, since=time()): ...",
        "key = lambda since=time.time(): since",
        "@pytest.mark.parametrize('day', [date.today()])\nasync def test(day): ...",
        "if True:\n for each in (time.time(),):\n  pass",
    ],
)
def test_what_is_read_at_import_is_seen(source: str) -> None:
    assert read_at_import(source)


@pytest.mark.parametrize(
    "source",
    [
        "def now():\n return datetime.now(UTC)",
        "class A:\n def __init__(self):\n  self.began = time.monotonic()",
        "later = lambda: datetime.now(UTC)",
        "since = field(default_factory=time.monotonic)",
    ],
)
def test_what_is_read_later_may_be(source: str) -> None:
    assert read_at_import(source) == []
