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
    """Answer `healthcheck [--alive] SERVICE`, which containers ask often, where all is well. False: not answered."""
    match arguments:
        case ["healthcheck", "--alive", service]:
            ask = readiness.ask_alive
        case ["healthcheck", service]:
            ask = readiness.ask_service
        case _:
            return False
    try:
        settings = Settings.load()
    except ConfigurationError:
        return False
    well, text = ask(settings, service) if settings.health_port else (False, "")
    if well:
        sys.stdout.write(f"{text}\n")
    return well


if __name__ == "__main__":
    main()
