"""terraform/stack.yaml: the settings that both sides of the stack read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

STACK = Path(__file__).resolve().parents[2] / "terraform" / "stack.yaml"

Section = Mapping[str, Any]


class BadSettings(ValueError):
    """stack.yaml cannot be used; the message names the section and the key."""


def require(holds: bool, message: str) -> None:
    """Raises: BadSettings with `message`, which begins with section and key, unless it holds."""
    if not holds:
        raise BadSettings(f"{STACK.name}: {message}")


def require_health(section: str, path: str, interval: int, timeout: int) -> None:
    """Raises: BadSettings where a target group would be refused these; seconds."""
    require(
        path.startswith("/") and timeout < interval,
        f"{section}: health_path must begin with /, and health_timeout_seconds must be less than "
        "health_interval_seconds.",
    )


def load(environment: str, file: Path = STACK) -> dict[str, dict[str, Any]]:
    """Each section's defaults with the environment's keys over them, values replaced whole.

    Raises:
        BadSettings: no such environment, it has a section or key that the defaults have not got, or what RDS refuses.
    """
    stack = yaml.safe_load(file.read_text())
    defaults: dict[str, dict[str, Any]] = stack["defaults"]
    environments: dict[str, dict[str, Section] | None] = stack["environments"]
    if environment not in environments:
        raise BadSettings(f"{file.name}: environment {environment!r} is none of {', '.join(sorted(environments))}")
    override = environments[environment] or {}
    for section, values in override.items():
        if section not in defaults:
            raise BadSettings(f"{file.name}: environments.{environment}.{section} is no section of defaults")
        for key in values:
            if key not in defaults[section]:
                raise BadSettings(
                    f"{file.name}: environments.{environment}.{section}.{key} is not in defaults.{section}"
                )
    found = {section: {**values, **override.get(section, {})} for section, values in defaults.items()}
    if not found["alb"]["enabled"] and (found["api"]["enabled"] or found["dashboard"]["enabled"]):
        raise BadSettings(
            f"{file.name}: api.enabled and dashboard.enabled need alb.enabled: without the load balancer nobody "
            "reaches them."
        )
    if found["rds"]["replica"] is not False:
        raise BadSettings(
            f"{file.name}: rds.replica must be false in {environment}: RDS refuses a read replica of a primary with "
            "manage_master_user_password, which keeps the password out of the state. docs/decisions/0036 says what a "
            "replica would take."
        )
    return found
