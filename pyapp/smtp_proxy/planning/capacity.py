"""How much of the stack a load needs, what that costs, and what can not be had: `smtp-proxy plan`.

Steady state: of every resource as much as its peak rate needs at the share of it that may be used, and a zone's loss or
an hour's growth has room. What varies over time is `simulation`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from smtp_proxy.planning.balancers import Carried, alb_units, nlb_units
from smtp_proxy.planning.prices import HOURS_PER_MONTH, DatabaseClass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smtp_proxy.planning.message_costs import MessageCosts
    from smtp_proxy.planning.prices import Prices
    from smtp_proxy.planning.stack import Service, Stack

# Of a vCPU at the peak: what the CPU alarm scales out at (REQ-INFRA-SCALE-008).
_BUSY: Final = 0.7
# Connections to the database for administration, migrations and checks (docs/decisions/0036).
ADMINISTRATION: Final = 90
# MiB of a task that accepts mail: the process with what it has of mail (SMTP_MAX_IN_FLIGHT_BYTES, 256), and what one
# session can make it hold beside that (docs/RUNBOOK.md, "Under attack: what limits what").
_PROCESS_MIB: Final = 300 + 256
_SESSION_MIB: Final = 60 / 1024
# Service Quotas of Fargate, "Fargate On-Demand vCPU resource count", in each region; and what AWS gives new accounts.
FARGATE_QUOTA, FARGATE_QUOTA_NEW = "L-3032A538", 6
_SECONDS_PER_MONTH: Final = HOURS_PER_MONTH * 3600
# gp3 of RDS for PostgreSQL has four volumes from this size on (RDS user guide, "gp3 storage"): MiB and writes a second
# below it, and from it on. More can be provisioned, and costs; the stack does not.
_STRIPED_GIB: Final = 400.0
_ONE_VOLUME, _FOUR_VOLUMES = (125.0, 3_000.0), (500.0, 12_000.0)
_LARGEST_GIB: Final = 65_536.0
# RDS enlarges storage of which a tenth is left.
_FREE: Final = 0.1
# KiB written of a message: body and rows, to the log and, as much, to pages of 8 KiB; and at most so many flushes of
# the log, one when it is accepted and one when its delivery is recorded, which messages of a batch share.
_WRITES_PER_KIB: Final = 2.2
_WRITES_KIB: Final = 4.0
_PAGE_KIB: Final = 8.0
_FLUSHES: Final = 2.0
# A row of an envelope, a delivery and an attempt with their indexes, beside the body.
_ROW_KIB: Final = 1.5


@dataclass(frozen=True, slots=True)
class Load:
    """What shall be borne. Rates are messages a second."""

    peak: float
    average: float
    size_kib: float = 8.0
    recipients: float = 1.0
    session_seconds: float = 2.0
    delivery_seconds: float = 0.1
    retention_days: float = 30.0
    # Of the API and the dashboard together, requests a second, each on a connection of its own.
    web_peak: float = 0.0
    web_average: float = 0.0
    web_kib: float = 8.0  # with the answer
    web_seconds: float = 1.0  # for which a connection is there

    def at(self, peak: float) -> Load:
        """The same mail at another peak, messages a second."""
        return replace(self, peak=peak, average=self.average * peak / self.peak if self.peak else 0.0)


@dataclass(slots=True)
class Plan:
    """What the load needs; `problems` are what makes it impossible, `warnings` what stack.yaml does not give it."""

    tasks: dict[str, int] = field(default_factory=dict)
    stream_shards: int = 1
    database: str = ""
    database_connections: int = 0
    storage_gib: float = 0.0
    fargate_vcpu: float = 0.0  # of all services at max_tasks, and while the largest is deployed
    fargate_vcpu_deploying: float = 0.0
    dollars_per_month: dict[str, float] = field(default_factory=dict)
    spec: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def total(self) -> float:
        return sum(self.dollars_per_month.values())


def plan(load: Load, stack: Stack, costs: MessageCosts, prices: Prices, worker_concurrency: int = 128) -> Plan:
    """Pure. `stack` says how large a task is, and is judged by what comes out."""
    made = Plan()
    for service in stack.smtp:
        made.tasks[service.name] = _smtp_tasks(load, service, costs, 1 / len(stack.smtp))
    made.tasks["worker"] = _worker_tasks(load, stack.services["worker"], costs, worker_concurrency)
    for name in ("certs", "api", "dashboard"):
        if name in stack.services:
            made.tasks[name] = stack.services[name].min_tasks
    if "api" in made.tasks:
        by_requests = round(load.web_peak * 60 / stack.api_requests_per_task, 6)  # 2,000 / 60 * 60 are 2,000
        made.tasks["api"] = max(made.tasks["api"], math.ceil(by_requests))
    made.stream_shards = max(1, math.ceil(load.peak * costs.valkey / _BUSY))
    _judge_tasks(made, stack)
    _judge_sessions(made, stack)
    _choose_database(made, load, stack, costs, prices)
    _judge_extrapolation(made, load, costs)
    made.fargate_vcpu, made.fargate_vcpu_deploying = fargate_vcpu(stack)
    made.storage_gib = load.average * 86_400 * load.retention_days * (load.size_kib + _ROW_KIB) / 2**20
    _judge_storage(made, load, stack)
    _judge_writes(made, load, stack)
    made.dollars_per_month = _costs(made, load, stack, prices)
    made.spec = spec_formulas(load)
    return made


def spec_formulas(load: Load) -> dict[str, str]:
    """SPEC-INFRA-001's own ("Capacity Formula"), with this load in them."""
    connections = load.peak * load.session_seconds
    return {
        "SMTP tasks: peak x session time / 2,500 connections": f"{connections / 2500:.2f}, at least 2",
        "database connections: 40 tasks x 25": "1,000 of 1,200, which a class of 4 GiB has not got",
    }


# -- below


def _smtp_tasks(load: Load, service: Service, costs: MessageCosts, share: float) -> int:
    by_cpu = load.peak * share * costs.server / (service.vcpu * _BUSY)
    by_connections = load.peak * share * load.session_seconds / service.per_task
    return max(service.min_tasks, math.ceil(by_cpu), math.ceil(by_connections))


def _worker_tasks(load: Load, service: Service, costs: MessageCosts, concurrency: int) -> int:
    by_cpu = load.peak * load.recipients * costs.worker / (service.vcpu * _BUSY)
    by_waiting = load.peak * load.recipients * load.delivery_seconds / concurrency
    return max(service.min_tasks, math.ceil(by_cpu), math.ceil(by_waiting))


def _judge_tasks(made: Plan, stack: Stack) -> None:
    for name, tasks in made.tasks.items():
        service = stack.services[name]
        if tasks > service.max_tasks:
            made.warnings.append(f"{name} needs {tasks} tasks, and max_tasks is {service.max_tasks}: raise it")


def _judge_sessions(made: Plan, stack: Stack) -> None:
    for service in stack.smtp:
        borne = sessions_borne(service.memory_gib)
        if service.sessions > borne:
            made.problems.append(
                f"{service.name}.smtp_max_connections is {service.sessions:,}, and a task of {service.memory_gib:g} "
                f"GiB bears {borne:,}: lower it, or raise memory"
            )
        if service.per_task > service.sessions:
            made.problems.append(
                f"{service.name}.connections_per_task is {service.per_task:,.0f}, and a task answers 421 beyond "
                f"smtp_max_connections, {service.sessions:,}: it would never scale out"
            )


def sessions_borne(memory_gib: float) -> int:
    """Pure: how many sessions a task has memory for, whatever they do."""
    return max(0, int((memory_gib * 1024 - _PROCESS_MIB) / _SESSION_MIB))


def connections_wanted(stack: Stack, tasks: Mapping[str, int]) -> int:
    """Pure: connections to the database of so many tasks, while one service is deployed.

    Its tasks are there twice, blue and green, or 200 % of a rolling one; that is the one with the most connections.
    """
    each = [count * stack.services[name].connections for name, count in tasks.items()]
    return sum(each) + max(each, default=0) + ADMINISTRATION


def fargate_vcpu(stack: Stack) -> tuple[float, float]:
    """Pure: vCPUs of all services at their maximum, and while one is deployed, whose tasks are there twice."""
    each = [service.max_tasks * service.vcpu for service in stack.services.values()]
    return sum(each), sum(each) + max(each)


def _choose_database(made: Plan, load: Load, stack: Stack, costs: MessageCosts, prices: Prices) -> None:
    most = {name: max(tasks, stack.services[name].max_tasks) for name, tasks in made.tasks.items()}
    made.database_connections = connections_wanted(stack, most)
    seconds = costs.postgres_accept + load.recipients * costs.postgres_deliver
    vcpu, steady = load.peak * seconds / _BUSY, load.average * seconds
    fitting = [
        each
        for each in prices.databases
        if each.vcpu >= vcpu and each.sustained_vcpu >= steady and each.connections >= made.database_connections
    ]
    if fitting:
        made.database = min(fitting, key=lambda each: each.hour).name
    else:
        made.problems.append(_no_database(vcpu, made.database_connections, prices.databases))
    has = prices.database(stack.database_class)
    if stack.database_connections > has.connections:
        made.problems.append(
            f"rds.max_connections is {stack.database_connections:,}, and {has.name} with {has.memory_gib:g} GiB bears "
            f"{has.connections:,}: a larger class, or RDS Proxy (rds.proxy)"
        )
    if stack.database_connections < made.database_connections:
        made.warnings.append(
            f"rds.max_connections is {stack.database_connections:,}, and tasks may want {made.database_connections:,} "
            "while one service is deployed"
        )
    if has.vcpu < vcpu:
        made.warnings.append(f"rds.instance_class {has.name} has {has.vcpu:g} vCPU, and {vcpu:.1f} are needed")
    elif has.sustained_vcpu < steady:
        made.warnings.append(
            f"rds.instance_class {has.name} is burstable: {has.sustained_vcpu:g} vCPU for ever, and {steady:.1f} are "
            "needed on average; the rest is charged as CPU credits, which are not counted"
        )


def _judge_storage(made: Plan, load: Load, stack: Stack) -> None:
    needs, most = made.storage_gib, stack.database_storage_most_gib
    if needs > _LARGEST_GIB:
        made.problems.append(
            f"{needs:,.0f} GiB of mail are kept for {load.retention_days:g} days, and no volume of RDS has more than "
            f"{_LARGEST_GIB:,.0f}: keep it for less (RETENTION_DAYS), or split the tenants over several stacks"
        )
    elif needs > most:
        made.problems.append(
            f"{needs:,.0f} GiB of mail are kept for {load.retention_days:g} days, and rds.max_allocated_storage is "
            f"{most:,.0f}: raise it, or keep mail for less (RETENTION_DAYS)"
        )
    elif needs > most * (1 - _FREE):
        made.warnings.append(
            f"rds.max_allocated_storage is {most:,.0f} GiB, of which {needs:,.0f} are needed: less than a tenth is left"
        )


def _judge_writes(made: Plan, load: Load, stack: Stack) -> None:
    kib = _WRITES_PER_KIB * load.size_kib + _WRITES_KIB
    mib, writes = load.peak * kib / 1024, load.peak * (_FLUSHES + kib / 2 / _PAGE_KIB)
    (most_mib, most_writes), (first_mib, first_writes) = map(
        _volume, (stack.database_storage_most_gib, stack.database_storage_gib)
    )
    if mib > most_mib:
        made.problems.append(
            f"{mib:,.0f} MiB/s would be written, and gp3 of RDS takes {most_mib:,.0f} at rds.max_allocated_storage, "
            f"{stack.database_storage_most_gib:,.0f} GiB"
            + ("" if most_mib == _FOUR_VOLUMES[0] else f" ({_FOUR_VOLUMES[0]:,.0f} from {_STRIPED_GIB:g} GiB on)")
            + ": split the tenants over several stacks, or provision more, which this stack does not"
        )
    elif mib > first_mib or writes > first_writes:
        more = f": raise it to {_STRIPED_GIB:g}" if first_writes < most_writes else ", and more must be provisioned"
        made.warnings.append(
            f"rds.allocated_storage is {stack.database_storage_gib:,.0f} GiB, of which gp3 writes {first_mib:,.0f} "
            f"MiB/s and {first_writes:,.0f} times a second, where up to {mib:,.0f} and {writes:,.0f} come{more}"
        )


def _volume(gib: float) -> tuple[float, float]:
    return _FOUR_VOLUMES if gib >= _STRIPED_GIB else _ONE_VOLUME


def _judge_extrapolation(made: Plan, load: Load, costs: MessageCosts) -> None:
    if load.peak > costs.measured_per_second:
        made.warnings.append(
            f"{load.peak:,.0f}/s is beyond what was measured ({costs.measured_per_second:,.0f}/s end to end on two "
            "cores): try it on this class before you rely on it"
        )


def _no_database(vcpu: float, connections: int, classes: list[DatabaseClass]) -> str:
    largest = max(classes, key=lambda each: each.vcpu)
    most = max(each.connections for each in classes)
    wants = []
    if vcpu > largest.vcpu:
        wants.append(f"{vcpu:.0f} vCPU, where the largest ({largest.name}) has {largest.vcpu:g}")
    if connections > most:
        wants.append(f"{connections:,} connections, where none has more than {most:,}")
    return (
        f"no one database bears it: it wants {' and '.join(wants) or 'more than any class has at once'}. Split the "
        "tenants over several stacks, or let fewer, larger tasks share connections (PgBouncer, RDS Proxy)"
    )


def _costs(made: Plan, load: Load, stack: Stack, prices: Prices) -> dict[str, float]:
    table = prices.table
    gb = load.average * load.size_kib * 1024 * _SECONDS_PER_MONTH / 1e9
    copies = 2 if stack.database_multi_az else 1
    found: dict[str, float] = {}
    found["tasks"] = HOURS_PER_MONTH * sum(n * prices.task(stack.services[name]) for name, n in made.tasks.items())
    if made.database:
        found["database"] = HOURS_PER_MONTH * copies * prices.database(made.database).hour
    found["database storage"] = (
        copies * max(made.storage_gib, stack.database_storage_gib) * table["rds_storage_gb_month"]["gp3"]
    )
    nodes = stack.cache_nodes * max(1, math.ceil(made.stream_shards / stack.cache_groups))
    found["cache"] = HOURS_PER_MONTH * nodes * prices.cache_hour(stack.cache_class, stack.cache_engine)
    found["load balancers"] = HOURS_PER_MONTH * (
        prices.balancers(stack) + _carried(load, stack, gb / HOURS_PER_MONTH, table["load_balancer_hour"])
    )
    out = gb * load.recipients
    found["NAT"] = HOURS_PER_MONTH * stack.nat_gateways * table["nat"]["hour"] + out * table["nat"]["gb"]
    found["data out"] = out * table["data_out"]["gb"]
    found["endpoints"] = HOURS_PER_MONTH * table["interface_endpoint"]["hour"] * stack.interface_endpoints
    # A line for each message that is not delivered at once, and the metrics: a twentieth of a KiB a message.
    found["logs"] = load.average * _SECONDS_PER_MONTH * 0.05 / 2**20 * table["logs"]["gb"]
    return found


def _carried(load: Load, stack: Stack, gb_per_hour: float, prices: Mapping[str, float]) -> float:
    """An hour, beside what a load balancer costs by being there."""
    mail = Carried(load.average, load.session_seconds, gb_per_hour)
    dollars = nlb_units(mail) * prices["nlb_unit"]
    if stack.alb:
        web_gb_per_hour = load.web_average * load.web_kib * 1024 * 3600 / 1e9
        web = Carried(load.web_average, load.web_seconds, web_gb_per_hour, load.web_average)
        dollars += alb_units(web) * prices["alb_unit"]
    return dollars
