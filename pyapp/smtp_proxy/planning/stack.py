"""The numbers of `terraform/stack.yaml` that say how much there is of what, and when there is more of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from smtp_proxy.errors import ConfigurationError

SMTP: Final = ("submission", "submissions")
# Of each task that has a pool: notifications and locks (docs/decisions/0036).
DIRECT_CONNECTIONS: Final = 2
# In a checkout; the installed package has no IaC beside it.
DEFAULT_FILE: Final = Path(__file__).resolve().parents[3] / "terraform" / "stack.yaml"


@dataclass(frozen=True, slots=True)
class Service:
    """Tasks of one kind."""

    name: str
    vcpu: float
    memory_gib: float
    min_tasks: int
    max_tasks: int
    per_task: float  # connections, or messages of the backlog, that a task is to have at most; 0: no such policy
    sessions: int = 0  # SMTP_MAX_CONNECTIONS: beyond it a task answers 421; 0: it accepts no mail
    pool: int = 0  # DB_POOL_SIZE; 0: it asks no database
    backlog: bool = False  # it scales by what waits for it: a worker

    @property
    def connections(self) -> int:
        """To the database, of one task at most: its pool, and those past a pooler."""
        return self.pool + DIRECT_CONNECTIONS if self.pool else 0


@dataclass(frozen=True, slots=True)
class Scaling:
    """Times in seconds; see stack.yaml."""

    metric_period: int
    metric_delay: int
    task_start: int
    cpu_out_percent: float
    cpu_out_minutes: int
    cpu_out_tasks: int
    cpu_in_percent: float
    cpu_in_minutes: int
    cpu_in_tasks: int
    in_target_share: float  # of `per_task`, which those that are left may have before a task is taken away
    in_busy_percent: float  # of a worker's deliveries at once, likewise
    out_cooldown: int
    in_cooldown: int
    worker_in_cooldown: int


@dataclass(frozen=True, slots=True)
class Stack:
    """One environment."""

    services: dict[str, Service]
    scaling: Scaling
    ready_depth_high: float
    ready_depth_low: float
    drain_seconds: int  # from deregistration to SIGKILL
    database_class: str
    database_multi_az: bool
    database_connections: int
    database_storage_gib: float  # to begin with, and at most: RDS enlarges it by itself
    database_storage_most_gib: float
    cache_class: str
    cache_engine: str
    cache_groups: int
    cache_nodes: int  # of all groups, with their replicas
    nat_gateways: int
    interface_endpoints: int  # network interfaces of them: each has one in each zone
    alb: bool
    api_requests_per_task: float  # a minute, which the API scales by

    @property
    def web_per_minute(self) -> float:
        """What the fewest tasks of the API bear as it scales; 0: it is off, or has no load balancer."""
        if not self.alb or "api" not in self.services:
            return 0.0
        return self.services["api"].min_tasks * self.api_requests_per_task

    @property
    def smtp(self) -> list[Service]:
        """Those that accept mail and are on."""
        return [self.services[name] for name in SMTP if name in self.services]


def load(file: Path | None, environment: str, changes: list[str] | None = None) -> Stack:
    """Read one environment, with `changes` as SECTION.KEY=VALUE laid over it.

    Raises:
        ConfigurationError: names the file, the section or the key, and says what would do.
    """
    path = file or DEFAULT_FILE
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"--stack: can not read {path}: {error.strerror}; it is terraform/stack.yaml of a checkout"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--stack: {path} is no YAML: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("defaults"), dict):
        raise ConfigurationError(f"--stack: {path} has no `defaults`: it is not the stack's file")
    environments = document.get("environments") or {}
    if environment not in environments:
        raise ConfigurationError(f"--environment: {environment} is none of {', '.join(sorted(environments))}")
    sections = {name: dict(section) for name, section in document["defaults"].items() if isinstance(section, dict)}
    try:
        for name, section in (environments[environment] or {}).items():
            sections.setdefault(name, {}).update(section)
        for change in changes or []:
            _lay_over(sections, change)
        return _stack(sections)
    except KeyError as error:
        raise ConfigurationError(f"--stack: {path} has no {error.args[0]}") from None
    except (TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"--stack: {path}: {error}") from None


# -- below


def _lay_over(sections: dict[str, dict[str, Any]], change: str) -> None:
    where, equals, text = change.partition("=")
    section, _, key = where.partition(".")
    if not equals or key not in sections.get(section, {}):
        raise ConfigurationError(f"--set: {change!r} is not SECTION.KEY=VALUE of a key that stack.yaml has")
    sections[section][key] = yaml.safe_load(text)


def _enabled(sections: dict[str, dict[str, Any]]) -> list[str]:
    found = [name for name in (*SMTP, "worker", "certs", "api", "dashboard") if sections[name]["enabled"]]
    if "worker" not in found or not set(SMTP) & set(found):
        raise ValueError("nothing to reckon with: worker, and submission or submissions, must be enabled")
    return found


def _stack(sections: dict[str, dict[str, Any]]) -> Stack:
    rds, cache, pressure = sections["rds"], sections["elasticache"], sections["pressure"]
    storage, storage_most = _number(rds, "allocated_storage"), _number(rds, "max_allocated_storage")
    if not 0 < storage <= storage_most:
        raise ValueError(
            f"rds: allocated_storage {storage:g} and max_allocated_storage {storage_most:g} do not go together"
        )
    return Stack(
        services={name: _service(name, sections[name]) for name in _enabled(sections)},
        scaling=_scaling(sections["scaling"]),
        ready_depth_high=_number(pressure, "ready_depth_high"),
        ready_depth_low=_number(pressure, "ready_depth_low"),
        drain_seconds=int(
            _number(sections["nlb"], "deregistration_delay_seconds") + _number(sections["ecs"], "stop_timeout_seconds")
        ),
        database_class=str(rds["instance_class"]),
        database_multi_az=bool(rds["multi_az"]),
        database_connections=int(_number(rds, "max_connections")),
        database_storage_gib=storage,
        database_storage_most_gib=storage_most,
        cache_class=str(cache["node_type"]),
        cache_engine=str(cache["engine"]),
        cache_groups=int(_number(cache, "node_groups")),
        cache_nodes=int(_number(cache, "node_groups") * (1 + _number(cache, "replicas_per_node_group"))),
        nat_gateways=len(sections["vpc"]["nat_zones"]),
        interface_endpoints=len(sections["vpc"]["endpoints"]) * len(sections["general"]["zones"]),
        alb=bool(sections["alb"]["enabled"]),
        api_requests_per_task=_positive(sections["api"], "requests_per_task"),
    )


def _service(name: str, section: dict[str, Any]) -> Service:
    per_task = next((section[key] for key in ("connections_per_task", "backlog_per_task") if key in section), 0)
    least, most = int(_number(section, "min_tasks")), int(_number(section, "max_tasks"))
    if not 0 < least <= most:
        raise ValueError(f"{name}: min_tasks {least} and max_tasks {most} do not go together")
    sessions, pool = (
        int(_number(section, key)) if key in section else 0 for key in ("smtp_max_connections", "db_pool_size")
    )
    vcpu, gib = _number(section, "cpu") / 1024, _number(section, "memory") / 1024
    return Service(name, vcpu, gib, least, most, float(per_task), sessions, pool, "backlog_per_task" in section)


def _scaling(section: dict[str, Any]) -> Scaling:
    seconds = ("metric_period", "metric_delay", "task_start", "out_cooldown", "in_cooldown", "worker_in_cooldown")
    plain = ("cpu_out_percent", "cpu_in_percent", "in_target_share", "in_busy_percent")
    counts = ("cpu_out_minutes", "cpu_out_tasks", "cpu_in_minutes", "cpu_in_tasks")
    values: dict[str, Any] = {name: int(_number(section, f"{name}_seconds")) for name in seconds}
    values |= {name: _number(section, name) for name in plain}
    values |= {name: int(_number(section, name)) for name in counts}
    return Scaling(**values)


def _positive(section: dict[str, Any], key: str) -> float:
    value = _number(section, key)
    if not value:
        raise ValueError(f"{key}: 0 is not more than 0")
    return value


def _number(section: dict[str, Any], key: str) -> float:
    value = section[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{key}: {value!r} is no number of 0 or more")
    return float(value)
