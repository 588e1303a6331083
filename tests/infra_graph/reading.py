"""What a reader wants to know of the stack: who is there, and who reaches whom by which port."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra_graph.canonical import TOKEN, Resource

WORLD = "world"
S3 = "s3"
GROUP = re.compile(r"<aws_security_group\|vpc-role-([a-z0-9-]+)\|id>")
# What a module's box says of it, where it has any: the kind, and what several of them are called.
COUNTED = {
    "aws_subnet": "subnets",
    "aws_nat_gateway": "NAT gateways",
    "aws_vpc_endpoint": "endpoints",
    "aws_security_group": "security groups",
    "aws_db_instance": "instances",
    "aws_db_proxy": "proxies",
    "aws_elasticache_replication_group": "replication groups",
    "aws_lb_listener": "listeners",
    "aws_lb_target_group": "target groups",
    "aws_wafv2_web_acl": "web ACLs",
    "aws_ecs_service": "services",
    "aws_appautoscaling_policy": "scaling policies",
    "aws_iam_role": "roles",
    "aws_s3_bucket": "buckets",
    "aws_ecr_repository": "image repositories",
    "aws_secretsmanager_secret": "secrets",
    "aws_kms_key": "keys",
    "aws_cloudwatch_log_group": "log groups",
    "aws_cloudwatch_metric_alarm": "alarms",
    "aws_cloudwatch_dashboard": "dashboards",
    "aws_sns_topic": "topics",
    "aws_codedeploy_deployment_group": "deployment groups",
}


@dataclass(frozen=True, order=True)
class Flow:
    """Security groups by their roles, or `world` and `s3`; TCP ports."""

    source: str
    target: str
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Member:
    """Something that stands in a security group: its module, what it is, what is to be said of it."""

    module: str
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Stack:
    """By security group who stands in it; nobody: what it is for is switched off."""

    members: Mapping[str, tuple[Member, ...]]
    flows: tuple[Flow, ...]
    modules: Mapping[str, str]
    nat_gateways: int
    zones: int
    # Buckets and secrets, which stand in no network.
    buckets: tuple[str, ...]
    secrets: tuple[str, ...]


def read(resources: Iterable[Resource]) -> Stack:
    """Of a whole canonical list, of either side."""
    resources = list(resources)
    members: dict[str, list[Member]] = {name: [] for name in sorted(_groups(resources))}
    for group, member in sorted(_members(resources), key=lambda pair: (pair[0], pair[1].title)):
        members[group].append(member)
    return Stack(
        members={name: tuple(found) for name, found in members.items()},
        flows=tuple(sorted(_flows(resources))),
        modules=dict(sorted(_modules(resources))),
        nat_gateways=len(_of(resources, "aws_nat_gateway")),
        zones=sum(1 for role in _of(resources, "aws_subnet") if role.startswith("vpc-private-")),
        buckets=tuple(sorted(role.partition("-")[2] for role in _of(resources, "aws_s3_bucket"))),
        secrets=tuple(sorted(_secrets(resources))),
    )


def half_open(resources: Iterable[Resource]) -> list[str]:
    """Rules between two groups that stand at one end alone, so that nothing comes through; there shall be none."""
    into, out = _rules(list(resources))
    return [
        f"{source} to {target}: {port}"
        for source, target, port in sorted(into ^ out)
        if not {source, target} & {WORLD, S3}
    ]


# -- details

Rule = tuple[str, str, int]


def _of(resources: Iterable[Resource], kind: str) -> dict[str, Mapping[str, Any]]:
    return {each.role: each.arguments for each in resources if each.kind == kind}


def _groups(resources: list[Resource]) -> Iterator[str]:
    for role in _of(resources, "aws_security_group"):
        yield role.removeprefix("vpc-role-")


def _rules(resources: list[Resource]) -> tuple[set[Rule], set[Rule]]:
    into, out = set[Rule](), set[Rule]()
    for direction, found in (("ingress", into), ("egress", out)):
        for rule in _of(resources, f"aws_vpc_security_group_{direction}_rule").values():
            group, peer, port = _group(rule["security_group_id"]), _peer(rule), int(rule["from_port"])
            found.add((peer, group, port) if direction == "ingress" else (group, peer, port))
    return into, out


def _group(text: str) -> str:
    found = GROUP.search(text)
    if found is None:
        raise ValueError(f"no security group of the stack: {text}")
    return found[1]


def _peer(rule: Mapping[str, Any]) -> str:
    if "cidr_ipv4" in rule:
        return WORLD
    return S3 if "prefix_list_id" in rule else _group(rule["referenced_security_group_id"])


def _flows(resources: list[Resource]) -> Iterator[Flow]:
    into, out = _rules(resources)
    through = {rule for rule in into | out if {rule[0], rule[1]} & {WORLD, S3}} | (into & out)
    pairs = {(source, target) for source, target, _ in through if source != target}
    for pair in pairs:
        yield Flow(*pair, tuple(sorted(port for source, target, port in through if (source, target) == pair)))


def _members(resources: list[Resource]) -> Iterator[tuple[str, Member]]:
    for make in (_balancers, _services, _databases, _caches, _endpoints):
        yield from make(resources)


def _balancers(resources: list[Resource]) -> Iterator[tuple[str, Member]]:
    listeners, (into, _) = _of(resources, "aws_lb_listener").values(), _rules(resources)
    for role, one in _of(resources, "aws_lb").items():
        ports = sorted({int(each["port"]) for each in listeners if f"|{role}|" in each["load_balancer_arn"]})
        title = f"{one['load_balancer_type'].capitalize()} load balancer"
        group = _group(one["security_group"])
        entered = [port for port in ports if any(rule[1:] == (group, port) for rule in into)]
        said = [f"listens on {', '.join(map(str, entered))}"]
        if others := len(ports) - len(entered):
            said.append(f"{others} for health alone")
        yield group, Member(role.partition("-")[0], title, tuple(said))


def _services(resources: list[Resource]) -> Iterator[tuple[str, Member]]:
    bounds, tasks = _of(resources, "aws_appautoscaling_target"), _of(resources, "aws_ecs_task_definition")
    for one in _of(resources, "aws_ecs_service").values():
        name = one["name"]
        scaled, task = bounds.get(f"ecs-main-{name}"), tasks[f"ecs-main-{name}"]
        count = (
            f"{scaled['min_capacity']} to {scaled['max_capacity']} tasks" if scaled else f"{one['desired_count']} task"
        )
        size = f"{int(task['cpu']) / 1024:g} vCPU, {int(task['memory']) / 1024:g} GiB"
        deployed = "blue/green" if one["deployment_controller"]["type"] == "CODE_DEPLOY" else "rolls"
        yield (
            _group(one["network_configuration"]["security_group"]),
            Member("ecs", name, (f"{count} of {size}", deployed)),
        )


def _databases(resources: list[Resource]) -> Iterator[tuple[str, Member]]:
    for one in _of(resources, "aws_db_instance").values():
        lines = (
            f"{one['instance_class']}, {one['allocated_storage']} GiB",
            "two zones" if one.get("multi_az") == "true" else "one zone",
            f"backups of {one['backup_retention_period']} days",
        )
        yield _group(str(one["vpc_security_group_id"])), Member("rds", f"PostgreSQL {one['engine_version']}", lines)
    for one in _of(resources, "aws_db_proxy").values():
        yield _group(str(one["vpc_security_group_id"])), Member("rds", "RDS Proxy", ())


def _caches(resources: list[Resource]) -> Iterator[tuple[str, Member]]:
    for one in _of(resources, "aws_elasticache_replication_group").values():
        shards, replicas = int(one["num_node_group"]), int(one["replicas_per_node_group"])
        lines = (
            one["node_type"],
            f"{shards} {'shard' if shards == 1 else 'shards'} of {1 + replicas} nodes",
            "TLS" if one["transit_encryption_enabled"] == "true" else "no TLS",
        )
        title = f"{one['engine'].capitalize()} {one['engine_version']}"
        yield _group(str(one["security_group_id"])), Member("elasticache", title, lines)


def _endpoints(resources: list[Resource]) -> Iterator[tuple[str, Member]]:
    found = {role: one for role, one in _of(resources, "aws_vpc_endpoint").items() if "security_group_id" in one}
    names = sorted(role.removeprefix("vpc-interface-") for role in found)
    if found:
        yield _group(str(next(iter(found.values()))["security_group_id"])), Member("vpc", "Endpoints", tuple(names))


def _secrets(resources: list[Resource]) -> Iterator[str]:
    for role in _of(resources, "aws_secretsmanager_secret"):
        yield role.partition("-")[2]
    if any(each.get("manage_master_user_password") == "true" for each in _of(resources, "aws_db_instance").values()):
        yield "database (RDS rotates it)"
    named = {arn for each in resources for arn in re.findall(r"arn:aws:secretsmanager:[^\"]+", str(each.arguments))}
    if any(not TOKEN.search(arn) for arn in named):
        yield "smarthost (made by hand)"


def _modules(resources: list[Resource]) -> Iterator[tuple[str, str]]:
    """Names, and what each has of what is counted."""
    for name in {each.role.partition("-")[0] for each in resources}:
        counts = Counter(each.kind for each in resources if each.role.partition("-")[0] == name)
        said = [f"{counts[kind]} {_called(plural, counts[kind])}" for kind, plural in COUNTED.items() if counts[kind]]
        yield name, ", ".join(said)


def _called(plural: str, count: int) -> str:
    if count != 1:
        return plural
    return re.sub("ies$", "y", plural) if plural.endswith("ies") else plural.removesuffix("s")
