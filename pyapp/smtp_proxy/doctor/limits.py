"""Whether time-outs fit each other, the load balancer's and ECS's. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from smtp_proxy.aws.protection import AGENT_VARIABLE
from smtp_proxy.config import environment_name
from smtp_proxy.doctor.finding import Finding, failed, ok, warning

if TYPE_CHECKING:
    from smtp_proxy.config import Settings

_STOP_SECONDS: Final = 120.0  # Fargate's greatest stopTimeout
_IDLE: Final = ("smtp_command_timeout_seconds", "smtp_data_timeout_seconds")


def examine(
    settings: Settings, load_balancer_idle_seconds: float, environ: Mapping[str, str] = os.environ
) -> list[Finding]:
    """All that is to be said of them."""
    return [
        *_idle(settings, load_balancer_idle_seconds),
        *_stopping(settings),
        *_protection(settings, environ),
    ]


def _idle(settings: Settings, load_balancer: float) -> Iterator[Finding]:
    for name in _IDLE:
        seconds, variable = getattr(settings, name), environment_name(name)
        if seconds >= load_balancer:
            yield failed(
                f"{variable} is {seconds:g} s, and the load balancer drops idle connections after {load_balancer:g} s "
                "without a word to either side",
                f"raise the listener's tcp.idle_timeout.seconds above {seconds:g}, or lower {variable}; "
                "--lb-idle says what the listener has",
            )
        else:
            yield ok(f"{variable} ({seconds:g} s) is shorter than the load balancer's patience ({load_balancer:g} s)")


def _stopping(settings: Settings) -> Iterator[Finding]:
    total = settings.shutdown_delay_seconds + settings.shutdown_timeout_seconds
    if total > _STOP_SECONDS:
        yield failed(
            f"SHUTDOWN_DELAY_SECONDS and SHUTDOWN_TIMEOUT_SECONDS are {total:g} s together, and Fargate kills at 120 s",
            "lower one of them, so that they are 118 together at most",
        )
    else:
        yield ok(f"a stop takes {total:g} s at most, and Fargate gives 120 s (stopTimeout)")


def _protection(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    held = settings.task_protection != "off" and bool(environ.get(AGENT_VARIABLE))
    if held and settings.smtp_session_max_seconds == 0:
        yield warning(
            "SMTP_SESSION_MAX_SECONDS is 0: one client that never leaves keeps its task from scaling in, and "
            f"deployments waiting, for {settings.task_protection_max_minutes} minutes at a time "
            "(TASK_PROTECTION_MAX_MINUTES)",
            "set SMTP_SESSION_MAX_SECONDS, to 3600 for instance; where deployments must not wait as long, lower "
            "TASK_PROTECTION_MAX_MINUTES",
        )
