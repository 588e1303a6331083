"""Sections submission … dashboard, scaling, pressure and ecs of stack.yaml, and what Fargate takes of them.

A part of `ecs`, the twin of terraform/modules/ecs/variables.tf, which refuses the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from .settings import require

# MiB by CPU units: "Task CPU and memory", Amazon ECS developer guide; larger ones are of no use to these services.
FARGATE: Mapping[int, Sequence[int]] = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4096 + 1, 1024)),
    1024: tuple(range(2048, 8192 + 1, 1024)),
    2048: tuple(range(4096, 16384 + 1, 1024)),
    4096: tuple(range(8192, 30720 + 1, 1024)),
}
# In the order in which they are named everywhere.
SERVICES = ("submission", "submissions", "worker", "certs", "api", "dashboard")


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """One service: CPU units, MiB, tasks, and what scaling aims at; None: not by this."""

    enabled: bool
    command: Sequence[str]
    cpu: int
    memory: int
    min_tasks: int
    max_tasks: int
    connections_per_task: int | None = None
    smtp_max_connections: int | None = None
    db_pool_size: int | None = None
    backlog_per_task: int | None = None
    requests_per_task: int | None = None
    latency_p95_seconds: float | None = None
    spot: bool = False

    def __post_init__(self) -> None:
        """Raises: BadSettings, where terraform/modules/ecs/variables.tf refuses the same."""
        require(
            self.memory in FARGATE.get(self.cpu, ()),
            f"cpu {self.cpu} and memory {self.memory} of `{' '.join(self.command)}` are no pair that Fargate takes: "
            "see FARGATE in ecs_settings.py.",
        )
        require(
            1 <= self.min_tasks <= self.max_tasks,
            f"min_tasks and max_tasks of `{' '.join(self.command)}`: at least 1, and no more than the maximum.",
        )


@dataclass(frozen=True, kw_only=True)
class MigrateSettings:
    """Section migrate: CPU units, MiB."""

    command: Sequence[str]
    cpu: int
    memory: int


class Prewarm(TypedDict):
    """At these times a service has so many tasks at least."""

    service: str
    cron: str
    min_tasks: int


@dataclass(frozen=True, kw_only=True)
class ScalingSettings:
    """Section scaling: seconds, minutes, percent of CPU, tasks, and a share of what a service aims at."""

    metric_period_seconds: int
    metric_delay_seconds: int
    task_start_seconds: int
    cpu_out_percent: int
    cpu_out_minutes: int
    cpu_out_tasks: int
    cpu_in_percent: int
    cpu_in_minutes: int
    cpu_in_tasks: int
    in_target_share: float
    in_busy_percent: int
    out_cooldown_seconds: int
    in_cooldown_seconds: int
    worker_in_cooldown_seconds: int
    predictive: bool
    prewarm: Mapping[str, Prewarm]

    def __post_init__(self) -> None:
        """Raises: BadSettings, where terraform/modules/ecs/variables.tf refuses the same."""
        require(
            self.metric_period_seconds == 60,
            "scaling.metric_period_seconds must be 60: ECS and the application send their metrics once a minute.",
        )
        require(
            not self.predictive,
            "scaling.predictive must be false: the AWS provider 5.100 has no predictive policies. docs/decisions/0037 "
            "says how one is made beside the stack.",
        )
        require(
            0 < self.cpu_in_percent < self.cpu_out_percent <= 100,
            "scaling.cpu_in_percent must be below scaling.cpu_out_percent, or tasks come and go.",
        )
        require(
            0 < self.in_target_share <= 1,
            "scaling.in_target_share must be above 0 and at most 1: beyond the aim CPU would take away the tasks that "
            "target tracking adds.",
        )
        require(
            0 < self.in_busy_percent <= 100,
            "scaling.in_busy_percent must be above 0 and at most 100: beyond it workers would go that all have as much "
            "as they can do.",
        )
        require(
            all(each["cron"].startswith("cron(") for each in self.prewarm.values()),
            'scaling.prewarm: cron must be such as "cron(45 7 ? * MON-FRI *)", in UTC.',
        )


@dataclass(frozen=True, kw_only=True)
class PressureSettings:
    """Section pressure: messages."""

    ready_depth_high: int
    ready_depth_low: int

    def __post_init__(self) -> None:
        """Raises: BadSettings, where terraform/modules/ecs/variables.tf refuses the same."""
        require(
            0 <= self.ready_depth_low <= self.ready_depth_high,
            "pressure.ready_depth_low must not be above pressure.ready_depth_high.",
        )


@dataclass(frozen=True, kw_only=True)
class EcsSettings:
    """Section ecs: seconds, minutes, days, percent, counts."""

    platform_version: str
    container_insights: bool
    log_retention_days: int
    image_keep_count: int
    stop_timeout_seconds: int
    deployment_minimum_percent: int
    deployment_maximum_percent: int
    health_check_interval_seconds: int
    health_check_timeout_seconds: int
    health_check_retries: int
    health_check_start_seconds: int
    health_check_grace_seconds: int
    session_max_seconds: int
    protection_minutes: int
    nofile: int
    secret_recovery_days: int

    def __post_init__(self) -> None:
        """Raises: BadSettings, where terraform/modules/ecs/variables.tf refuses the same."""
        require(
            self.container_insights,
            "ecs.container_insights must be true: services scale by the count of their tasks, which nothing else "
            "sends.",
        )
        require(
            115 <= self.stop_timeout_seconds <= 120,
            "ecs.stop_timeout_seconds must be 115 to 120: Fargate gives no more, and the services drain for 110.",
        )
        require(
            self.health_check_timeout_seconds < self.health_check_interval_seconds
            and self.health_check_timeout_seconds > 4,
            "ecs.health_check_timeout_seconds must be more than the 4 s that `smtp-proxy healthcheck` waits, and less "
            "than ecs.health_check_interval_seconds.",
        )
        require(
            self.session_max_seconds > 0 and 1 <= self.protection_minutes <= 2880,
            "ecs.session_max_seconds must be more than 0, and ecs.protection_minutes 1 to 2880: a session without an "
            "end protects its task without an end.",
        )


def services_of(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, ServiceSettings]:
    """The services that are switched on, of all settings. Raises: BadSettings."""
    found = {name: ServiceSettings(**settings[name]) for name in SERVICES}
    return {name: each for name, each in found.items() if each.enabled}
