"""Figures beside pytest-benchmark's table of times, which knows neither messages nor bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_FIGURES = pytest.StashKey[list[str]]()

Note = Callable[..., None]


@pytest.fixture
def note(request: pytest.FixtureRequest, benchmark) -> Note:  # type: ignore[no-untyped-def]
    """Keep figures of this bench: for the last lines on the screen, and as `extra_info` in the JSON."""

    def keep(**figures: float) -> None:
        benchmark.extra_info.update(figures)
        words = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
        request.config.stash.setdefault(_FIGURES, []).append(f"{request.node.name}: {words}")

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(_FIGURES, []):
        terminalreporter.write_line(line)
