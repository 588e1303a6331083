"""`python -m smtp_proxy` and the command `smtp-proxy`."""

from __future__ import annotations

import sys

from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.telemetry import readiness


def main() -> None:
    """Run the command line and leave with its exit code."""
    if _is_well(sys.argv[1:]):
        sys.exit(0)
    # Loading all commands takes over a second of CPU.
    from smtp_proxy.cli import run  # noqa: PLC0415

    sys.exit(run(sys.argv[1:]))


def _is_well(arguments: list[str]) -> bool:
    """Answer `healthcheck SERVICE`, which containers ask every few seconds, where all is well. False: not answered."""
    if len(arguments) != 2 or arguments[0] != "healthcheck":
        return False
    try:
        settings = Settings.load()
    except ConfigurationError:
        return False
    ready, text = readiness.ask_service(settings, arguments[1]) if settings.health_port else (False, "")
    if ready:
        sys.stdout.write(f"{text}\n")
    return ready


if __name__ == "__main__":
    main()
