"""Whether time-outs fit each other, the load balancer's and ECS's, and descriptors what is to be open. Pure."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from smtp_proxy.aws.protection import AGENT_VARIABLE
from smtp_proxy.config import environment_name
from smtp_proxy.doctor.finding import Finding, failed, ok, warning

if TYPE_CHECKING:
    from smtp_proxy.config import Settings

_STOP_SECONDS: Final = 120.0  # Fargate's greatest stopTimeout
# For the database, Redis, health, files and the interpreter.
_OWN_DESCRIPTORS: Final = 256
# What `delivery.smtp` leaves of them beside connections that are idle.
_NOT_IDLE: Final = 0.75
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


def examine_descriptors(settings: Settings, descriptors: float) -> list[Finding]:
    """Whether `descriptors` (RLIMIT_NOFILE of a process, inf: unbounded) are enough for either service."""
    wanted = {
        "SMTP_MAX_CONNECTIONS": (settings.smtp_max_connections, settings.smtp_max_connections + _OWN_DESCRIPTORS),
        "WORKER_CONCURRENCY": (
            settings.worker_concurrency,
            math.ceil((settings.worker_concurrency + _OWN_DESCRIPTORS) / _NOT_IDLE),
        ),
    }
    return [_enough(variable, value, least, descriptors) for variable, (value, least) in wanted.items()]


def _enough(variable: str, value: int, least: int, descriptors: float) -> Finding:
    if descriptors >= least:
        return ok(f"{descriptors:g} descriptors are enough for {variable} ({value})")
    return warning(
        f"a process may have {descriptors:g} descriptors open, and {variable} ({value}) needs {least}",
        f"raise the limit to {least} (ulimit -n; nofile of the task; LimitNOFILE of systemd), or lower {variable}",
    )


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
