"""`python -m pulumi_cli.program FILE`: runs a Pulumi program, as the executor of the release does.

Its settings are JSON in PULUMI_RUN.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import sys
from pathlib import Path

import pulumi
import pulumi.runtime


async def main(program: str) -> None:
    said = json.loads(os.environ.pop("PULUMI_RUN"))
    for key, value in said["config"].items():
        pulumi.runtime.set_config(key, value)
    pulumi.runtime.configure(pulumi.runtime.Settings(**said["settings"]))

    def run() -> None:
        runpy.run_path(program, run_name="__main__")

    await pulumi.runtime.run_in_stack(run)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(sys.argv[1]).parent))
    asyncio.run(main(sys.argv[1]))
