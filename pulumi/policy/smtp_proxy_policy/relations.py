"""What holds between resources: each is looked for by what it was made of, which a preview knows too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .network import peer_outside
from .reading import Found, Sections, as_list

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
BUCKET = "aws:s3/bucketV2:BucketV2"
FLOW_LOG = "aws:ec2/flowLog:FlowLog"
GATEWAY = "aws:ec2/natGateway:NatGateway"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
LOAD_BALANCER = "aws:lb/loadBalancer:LoadBalancer"
SCALED = "aws:appautoscaling/target:Target"
SCALING = "aws:appautoscaling/policy:Policy"
SERVICE = "aws:ecs/service:Service"
SUBNET = "aws:ec2/subnet:Subnet"
TARGETS = "aws:lb/targetGroup:TargetGroup"
TOPIC = "aws:sns/topic:Topic"
VPC = "aws:ec2/vpc:Vpc"

# Kinds that no rule looks at by itself, and these do.
ASKED = frozenset({TARGETS, SCALED, SCALING, FLOW_LOG, GATEWAY, VPC})

# What a bucket must have beside it, and what is missing without.
COMPANIONS = {
    "aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2": "encryption",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": "a public access block",
    "aws:s3/bucketPolicy:BucketPolicy": "a policy that wants TLS",
}
# One of these: an older version is kept, or what is there expires.
KEPT = (
    "aws:s3/bucketVersioningV2:BucketVersioningV2",
    "aws:s3/bucketLifecycleConfigurationV2:BucketLifecycleConfigurationV2",
)
# What may belong to a security group that the world enters: these, and the rules themselves.
IN_THE_DOOR = (
    LOAD_BALANCER,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
)

Blame = Iterator[tuple[Found | None, str]]
Stack = Sequence[Found]


def of_kind(stack: Stack, *kinds: str) -> list[Found]:
    return [each for each in stack if each.kind in kinds]


def settings_of(stack: Stack) -> Sections:
    """Of whatever resource says its environment."""
    found = [each for each in stack if each.environment] or list(stack)
    return found[0].settings


def services_of(settings: Sections) -> dict[str, Mapping[str, Any]]:
    return {name: of for name, of in settings.items() if "max_tasks" in of and of.get("enabled")}


def buckets(stack: Stack) -> Blame:
    for bucket in of_kind(stack, BUCKET):
        beside = {each.kind for each in stack if bucket in each.stands_on("bucket", BUCKET)}
        for kind, what in COMPANIONS.items():
            if kind not in beside:
                yield bucket, f"has not got {what}; make a {kind.rpartition(':')[2]} of it"
        if beside.isdisjoint(KEPT):
            yield bucket, "neither keeps versions nor expires; make a BucketVersioningV2, or a lifecycle"


def doors(stack: Stack) -> Blame:
    """Groups that the world enters belong to load balancers alone."""
    entered = {
        group
        for rule in of_kind(stack, "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
        if peer_outside(rule)
        for group in rule.stands_on("securityGroupId", GROUP)
    }
    for each in stack:
        inside = [group for groups in each.given_by.values() for group in groups if group in entered]
        if inside and each.kind not in IN_THE_DOOR:
            yield (
                each,
                f"belongs to {inside[0].name}, which the world enters, and only load balancers may; give it its own",
            )


def _metrics(alarm: Found) -> Iterator[Any]:
    yield alarm.props.get("metricName")
    for query in as_list(alarm.props.get("metricQueries")):
        yield (query.get("metric") or {}).get("metricName")


def watched(stack: Stack) -> Blame:
    """Each target group has an alarm on its healthy hosts, for which no data are none."""
    seen = {
        group
        for alarm in of_kind(stack, ALARM)
        if "HealthyHostCount" in list(_metrics(alarm)) and alarm.props.get("treatMissingData") == "breaching"
        for groups in alarm.given_by.values()
        for group in groups
    }
    for group in of_kind(stack, TARGETS):
        if group not in seen:
            yield (
                group,
                "nobody is told when it has no healthy host; see no-healthy-host of `alarms` in terraform/stack.yaml",
            )


def scaled(stack: Stack) -> Blame:
    """Each service that may have more than one task scales, within stack.yaml, and by something."""
    of = services_of(settings_of(stack))
    there = {each.props.get("name"): each for each in of_kind(stack, SERVICE)}
    for name in of.keys() - there.keys():
        yield None, f"stack.yaml has a service {name}, and there is none; make it, or set {name}.enabled to false"
    for called, service in there.items():
        targets = [each for each in of_kind(stack, SCALED) if service in each.stands_on("resourceId", SERVICE)]
        limits = of.get(str(called), {"min_tasks": 1, "max_tasks": 1})
        if limits["max_tasks"] > 1 and len(targets) != 1:
            yield service, f"{len(targets)} scalable targets; it needs one, to scale up to {limits['max_tasks']} tasks"
        for target in targets:
            yield from _within(stack, target, limits)


def _within(stack: Stack, target: Found, limits: Mapping[str, Any]) -> Blame:
    props, wanted = target.props, (limits["min_tasks"], limits["max_tasks"])
    if (props.get("minCapacity"), props.get("maxCapacity")) != wanted:
        said = f"{props.get('minCapacity') or 0:g} to {props.get('maxCapacity') or 0:g}"
        yield target, f"scales from {said}; stack.yaml says {wanted[0]} to {wanted[1]}"
    policies = [each for each in of_kind(stack, SCALING) if target in each.stands_on("resourceId", SCALED)]
    if not policies:
        yield target, "nothing makes it scale; give it a policy"
    for policy in policies:
        steps = policy.props.get("policyType") == "StepScaling"
        if steps and not any(policy in each.stands_on("alarmActions", SCALING) for each in of_kind(stack, ALARM)):
            yield policy, "no alarm starts its steps; give one alarm_actions with its ARN"


def spread(stack: Stack) -> Blame:
    """Every zone of stack.yaml, and as many ways out as it says."""
    settings = settings_of(stack)
    zones = set(settings["general"]["zones"].values())
    missing = zones - {each.props.get("availabilityZone") for each in of_kind(stack, SUBNET)}
    if missing:
        yield None, f"no subnet in {', '.join(sorted(missing))}; a zone that fails takes more than its share"
    ways = len(of_kind(stack, GATEWAY))
    if ways != len(settings["vpc"]["nat_zones"]):
        yield None, f"{ways} NAT gateways; vpc.nat_zones of stack.yaml says {len(settings['vpc']['nat_zones'])}"


def deployed(stack: Stack) -> Blame:
    """Each service of CodeDeploy has a deployment group, without which it stays at its first release."""
    groups = of_kind(stack, "aws:codedeploy/deploymentGroup:DeploymentGroup")
    taken = [each for group in groups for each in group.stands_on("ecsService", SERVICE)]
    for service in of_kind(stack, SERVICE):
        controller = (service.props.get("deploymentController") or {}).get("type")
        if controller == "CODE_DEPLOY" and service not in taken:
            yield service, "has no deployment group, so that no release reaches it; make one"


def told(stack: Stack) -> Blame:
    subscriptions = of_kind(stack, "aws:sns/topicSubscription:TopicSubscription")
    for topic in of_kind(stack, TOPIC):
        if not any(topic in each.stands_on("topic", TOPIC) for each in subscriptions):
            yield (
                topic,
                "nobody is subscribed by this stack; set alertEmails, or subscribe to alerts_topic_arn elsewhere",
            )


def flows(stack: Stack) -> Blame:
    """What a VPC lets through and refuses is on record."""
    recorded = [vpc for each in of_kind(stack, FLOW_LOG) for vpc in each.depends_on]
    for vpc in of_kind(stack, VPC):
        if vpc not in recorded:
            yield vpc, "nothing records who reached what; make a FlowLog"
