"""Breaches of what holds between resources: one is missing, or is not what another needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fix_policies import Graph, found

from policy_breaches.breach import ALARM, BUCKET_POLICY, CLOSED, ENCRYPTION, GROUP, INGRESS, SERVICE


def dropped(kind: str, *names: str) -> Callable[[Graph], object]:
    def drop(resources: Graph) -> None:
        gone = [each for each in resources if each["type"] == kind and each["name"] in names]
        assert len(gone) == len(names)
        urns = {each["urn"] for each in gone}
        resources[:] = [each for each in resources if each["urn"] not in urns]
        for each in resources:
            each["dependencies"] = [urn for urn in each["dependencies"] if urn not in urns]
            each["of_properties"] = {
                key: [urn for urn in others if urn not in urns] for key, others in each["of_properties"].items()
            }

    return drop


def changed(kind: str, name: str, **values: Any) -> Callable[[Graph], object]:
    return lambda resources: found(resources, kind, name)["outputs"].update(values)


def entered(resources: Graph) -> None:
    """The group of the database, by the world."""
    found(resources, INGRESS, "vpc-rule-database-itself")["outputs"]["cidrIpv4"] = "0.0.0.0/0"


TARGET = "aws:appautoscaling/target:Target"
SCALING = "aws:appautoscaling/policy:Policy"
BETWEEN: list[tuple[str, str, Callable[[Graph], object], str]] = [
    (
        "buckets-guarded",
        "a bucket in clear text",
        dropped(ENCRYPTION, "ecs-certificates"),
        "ecs-certificates: has not got encr",
    ),
    (
        "buckets-guarded",
        "a bucket for all",
        dropped(CLOSED, "ecs-certificates"),
        "has not got a public access block; make a Bu",
    ),
    (
        "buckets-guarded",
        "a bucket by HTTP",
        dropped(BUCKET_POLICY, "ecs-certificates"),
        "has not got a policy that wants TLS",
    ),
    (
        "buckets-guarded",
        "a bucket without versions",
        dropped("aws:s3/bucketVersioningV2:BucketVersioningV2", "ecs-certificates"),
        "neither keeps versions nor expires; make",
    ),
    (
        "doors",
        "the database in the door",
        entered,
        "Instance rds-primary: belongs to vpc-role-database, which the world ent",
    ),
    (
        "targets-watched",
        "nobody watches a target group",
        dropped(ALARM, "cloudwatch-formula-certs-no-healthy-host"),
        "aws:lb/targetGroup:TargetGroup nlb-acme: nobody is told when it has no healthy host; see",
    ),
    (
        "targets-watched",
        "an alarm on something else",
        changed(ALARM, "cloudwatch-formula-submission-no-healthy-host", metricQueries=[]),
        "TargetGroup nlb-smtp-submission-green: nobody is told when it has no healthy host; see",
    ),
    (
        "services-scaled",
        "a service left out",
        dropped(SERVICE, "ecs-rolling-certs"),
        "has a service certs, and there is none",
    ),
    (
        "services-scaled",
        "does not scale",
        dropped(TARGET, "ecs-main-worker"),
        "ecs-rolling-worker: 0 scalable targets; it nee",
    ),
    (
        "services-scaled",
        "a maximum",
        changed(TARGET, "ecs-main-worker", maxCapacity=200),
        "from 1 to 200; stack.yaml says 1 to 10",
    ),
    (
        "services-scaled",
        "by nothing",
        dropped(SCALING, "ecs-cpu-in-worker", "ecs-cpu-out-worker", "ecs-backlog-worker"),
        "aws:appautoscaling/target:Target ecs-main-worker: nothing makes it scale; give",
    ),
    (
        "services-scaled",
        "steps without an alarm",
        dropped(ALARM, "ecs-cpu-out-worker"),
        "aws:appautoscaling/policy:Policy ecs-cpu-out-worker: no alarm starts its steps; give",
    ),
    (
        "spread",
        "a zone left out",
        dropped("aws:ec2/subnet:Subnet", "vpc-public-c", "vpc-private-c", "vpc-database-c"),
        "no subnet in us-east-1c; a zone",
    ),
    (
        "spread",
        "a way out less",
        dropped("aws:ec2/natGateway:NatGateway", "vpc-main-b"),
        "2 NAT gateways; vpc.nat_zones of",
    ),
    (
        "services-deployed",
        "a service without releases",
        dropped(GROUP, "codedeploy-service-submission"),
        "ecs-blue-green-submission: has no deployment group",
    ),
    (
        "flows-recorded",
        "no record",
        dropped("aws:ec2/flowLog:FlowLog", "vpc-main"),
        "Vpc vpc-main: nothing records who reached",
    ),
]
