"""A breach of one policy by one resource: kinds of resources, and what can be done to their inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

Inputs = dict[str, Any]
ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
CACHE = "aws:elasticache/replicationGroup:ReplicationGroup"
CLOSED = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
DATABASE = "aws:rds/instance:Instance"
DEFINITION = "aws:ecs/taskDefinition:TaskDefinition"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
ENCRYPTION = "aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2"
GROUP = "aws:codedeploy/deploymentGroup:DeploymentGroup"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
KEY = "aws:kms/key:Key"
LISTENER = "aws:lb/listener:Listener"
POLICY = "aws:iam/rolePolicy:RolePolicy"
PROVIDER = "pulumi:providers:aws"
REPOSITORY = "aws:ecr/repository:Repository"
ROLE = "aws:iam/role:Role"
SECRET = "aws:secretsmanager/secret:Secret"
SERVICE = "aws:ecs/service:Service"
TOPIC_POLICY = "aws:sns/topicPolicy:TopicPolicy"
USER = "aws:elasticache/user:User"


class Breach(NamedTuple):
    """What is done to one resource, and what is said then."""

    policy: str
    kind: str
    name: str
    change: Callable[[Inputs], object]
    said: str
    graph: str = "production"


def without(*keys: str) -> Callable[[Inputs], object]:
    return lambda inputs: [inputs.pop(key) for key in keys]


def given(**values: Any) -> Callable[[Inputs], object]:
    return lambda inputs: inputs.update(values)


def within(key: str, **values: Any) -> Callable[[Inputs], object]:
    """A block, changed."""
    return lambda inputs: inputs[key].update(values)


def statements(key: str, change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Inputs], object]:
    """Of a policy document."""

    def edit(inputs: Inputs) -> None:
        document = json.loads(inputs[key])
        change(document["Statement"])
        inputs[key] = json.dumps(document)

    return edit


def more(**statement: Any) -> Callable[[Inputs], object]:
    return statements("policy", lambda each: each.append({"Effect": "Allow", **statement}))


def container(**values: Any) -> Callable[[Inputs], object]:
    def edit(inputs: Inputs) -> None:
        (one,) = json.loads(inputs["containerDefinitions"])
        inputs["containerDefinitions"] = json.dumps([one | values])

    return edit


def variable(name: str, value: str) -> Callable[[Inputs], object]:
    def edit(inputs: Inputs) -> None:
        (one,) = json.loads(inputs["containerDefinitions"])
        one["environment"].append({"name": name, "value": value})
        inputs["containerDefinitions"] = json.dumps([one])

    return edit


def parameter(name: str, value: str) -> Callable[[Inputs], object]:
    def edit(inputs: Inputs) -> None:
        kept = [each for each in inputs["parameters"] if each["name"] != name]
        inputs["parameters"] = [*kept, {"name": name, "value": value}]

    return edit


ARN = "arn:aws:s3:::somewhere"
