"""List prices of AWS with their date, and what the database's classes can bear."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from smtp_proxy.errors import ConfigurationError
from smtp_proxy.planning.stack import Service, Stack

HOURS_PER_MONTH: Final = 730
# RDS's own default of max_connections: LEAST(memory / this, 5000), memory in bytes.
_BYTES_PER_CONNECTION: Final = 9_531_392
_CONNECTIONS_MOST: Final = 5000


@dataclass(frozen=True, slots=True)
class DatabaseClass:
    """One instance class of RDS."""

    name: str
    vcpu: float
    memory_gib: float
    hour: float
    baseline: float = 1.0  # of each vCPU, what a burstable one has for ever

    @property
    def sustained_vcpu(self) -> float:
        """What it bears on average; more than that AWS charges as CPU credits."""
        return self.vcpu * self.baseline

    @property
    def connections(self) -> int:
        """What RDS gives it by default, and its memory bears."""
        return min(_CONNECTIONS_MOST, int(self.memory_gib * 2**30 / _BYTES_PER_CONNECTION))


class Prices:
    """US dollars; see prices.toml."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table
        self.as_of = str(table["as_of"])
        self.region = str(table["region"])
        self.left_out = [str(each) for each in table["left_out"]]
        self.databases = [
            DatabaseClass(name, each["vcpu"], each["gib"], each["hour"], each.get("baseline", 1.0))
            for name, each in table["rds"].items()
        ]

    def database(self, name: str) -> DatabaseClass:
        """Raises ConfigurationError: it is not in the table."""
        found = next((each for each in self.databases if each.name == name), None)
        if found is None:
            known = ", ".join(each.name for each in self.databases)
            raise ConfigurationError(f"rds.instance_class: the price file has no {name}; it has {known}")
        return found

    def cache_hour(self, name: str, engine: str) -> float:
        """Raises ConfigurationError: it is not in the table."""
        found = self.table["cache"].get(name)
        if found is None:
            known = ", ".join(self.table["cache"])
            raise ConfigurationError(f"elasticache.node_type: the price file has no {name}; it has {known}")
        return float(found["hour"] * (1.0 if engine == "valkey" else self.table["cache_redis_times"]))

    def task(self, service: Service) -> float:
        """Of one task, an hour."""
        fargate = self.table["fargate_arm64_hour"]
        return float(service.vcpu * fargate["vcpu"] + service.memory_gib * fargate["gib"])

    def balancers(self, stack: Stack) -> float:
        """Of the load balancers, an hour, without what they carry."""
        balancer = self.table["load_balancer_hour"]
        return float(balancer["nlb"] + (balancer["alb"] if stack.alb else 0.0))

    def standing(self, stack: Stack) -> float:
        """Of what is there whatever the load, an hour: database, cache, NAT, load balancers, endpoints, the issuer."""
        database = self.database(stack.database_class).hour * (2 if stack.database_multi_az else 1)
        others = [stack.services[name] for name in ("certs",) if name in stack.services]
        return float(
            database
            + self.cache_hour(stack.cache_class, stack.cache_engine) * stack.cache_nodes
            + self.table["nat"]["hour"] * stack.nat_gateways
            + self.balancers(stack)
            + self.table["interface_endpoint"]["hour"] * stack.interface_endpoints
            + sum(self.task(service) * service.min_tasks for service in others)
        )


@cache
def read_prices() -> Prices:
    """The ones that are shipped."""
    return Prices(tomllib.loads(Path(__file__).with_name("prices.toml").read_text(encoding="utf-8")))
