"""The charts of docs/CAPACITY.md that are simulated, and their commands: `make charts` draws them anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from smtp_proxy.cli import run

DRAWN: Final = Path(__file__).resolve().parents[1] / "docs/charts"
SCALE_IN: Final = ("--traffic", str(DRAWN / "fall.csv"), "--session-seconds", "900")
_INTERNET_TASKS: Final = [f"{service}.max_tasks=400" for service in ("submission", "submissions", "worker")]
_INTERNET: Final = [*_INTERNET_TASKS, "rds.instance_class=db.m7g.16xlarge"]
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "steady": ("--profile", "steady"),
    "spike": ("--profile", "spike"),
    "scale-in": SCALE_IN,
    "internet": (
        *("--profile", "steady", "--per-minute", "10000000", "--minutes", "180"),
        *(part for change in _INTERNET for part in ("--set", change)),
    ),
}


def main() -> None:
    for name, options in COMMANDS.items():
        if run(["simulate", *options, "--chart", str(DRAWN / f"{name}.svg")]):
            sys.exit(1)


if __name__ == "__main__":
    main()
