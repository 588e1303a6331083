"""A service as ECS has it, whoever deploys it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smtp_proxy.errors import DeployFailed, NotFound

_DESCRIBED_AT_ONCE = 10  # DescribeServices takes no more
# Tags by which the stack says where the next task set of a service runs (terraform/modules/ecs and its twin): ECS lets
# nobody but CodeDeploy change that of a service of CodeDeploy's, so that an apply alone can not.
PLATFORM, SUBNETS, GROUPS = "DeployPlatformVersion", "DeploySubnets", "DeploySecurityGroups"


@dataclass(frozen=True, kw_only=True)
class Service:
    """What a deployment has to know of it.

    `port` is None where no load balancer leads to it; `serves` is what its command `serve …` names, or "". The platform
    version and the network are those that the release is to have, which may be others than what runs has.
    """

    cluster: str
    name: str
    family: str
    container: str
    serves: str
    port: int | None
    blue_green: bool
    platform_version: str
    network: Mapping[str, Any]


def find(ecs: Any, cluster: str, name: str) -> Service:
    """Ask ECS (a boto3 client). Raises NotFound, DeployFailed."""
    found = ecs.describe_services(cluster=cluster, services=[name], include=["TAGS"])["services"]
    if not found or found[0]["status"] == "INACTIVE":
        raise NotFound(f"cluster {cluster} has no service {name}: see --cluster, --region, and whether it is enabled")
    service = found[0]
    blue_green = service.get("deploymentController", {}).get("type") == "CODE_DEPLOY"
    # CodeDeploy's services keep what is in service in their task sets.
    primary: Mapping[str, Any] = next((each for each in service.get("taskSets", ()) if each["status"] == "PRIMARY"), {})

    def of(key: str) -> Any:
        return primary.get(key) or service.get(key)

    balancers = of("loadBalancers") or []
    if blue_green and not balancers:
        raise DeployFailed(f"service {name} is CodeDeploy's, and has no load balancer: apply the stack first")
    tags = {each["key"]: each["value"] for each in service.get("tags", ())} if blue_green else {}
    definition = ecs.describe_task_definition(taskDefinition=of("taskDefinition"))["taskDefinition"]
    container = balancers[0]["containerName"] if balancers else definition["containerDefinitions"][0]["name"]
    return Service(
        cluster=cluster,
        name=name,
        family=definition["family"],
        container=container,
        serves=_serves(definition, container),
        port=balancers[0]["containerPort"] if balancers else None,
        blue_green=blue_green,
        platform_version=tags.get(PLATFORM) or of("platformVersion") or "LATEST",
        network=_network(tags) or of("networkConfiguration"),
    )


def _network(tags: Mapping[str, str]) -> Mapping[str, Any] | None:
    """As the stack wants it, or None where a stack from before these tags says nothing."""
    subnets, groups = tags.get(SUBNETS, "").split(), tags.get(GROUPS, "").split()
    if not subnets or not groups:
        return None
    return {"awsvpcConfiguration": {"subnets": subnets, "securityGroups": groups, "assignPublicIp": "DISABLED"}}


def others_underway(ecs: Any, service: Service) -> list[str]:
    """Names of the cluster's other services that have tasks of two releases, blue and green or while they roll."""
    pages = ecs.get_paginator("list_services").paginate(cluster=service.cluster)
    arns = [arn for page in pages for arn in page["serviceArns"]]
    found: list[str] = []
    for start in range(0, len(arns), _DESCRIBED_AT_ONCE):
        asked = arns[start : start + _DESCRIBED_AT_ONCE]
        for each in ecs.describe_services(cluster=service.cluster, services=asked)["services"]:
            releases = max(len(each.get("deployments", ())), len(each.get("taskSets", ())))
            if releases > 1 and each["serviceName"] != service.name:
                found.append(each["serviceName"])
    return sorted(found)


def _serves(definition: Mapping[str, Any], container: str) -> str:
    command: Sequence[str] = next(
        (each.get("command", []) for each in definition["containerDefinitions"] if each["name"] == container), []
    )
    return str(command[1]) if command[:1] == ["serve"] and len(command) > 1 else ""
