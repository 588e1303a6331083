"""What starts tasks, and what each task may do: a part of `ecs`, the twin of terraform/modules/ecs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pulumi
import pulumi_aws as aws

from . import policies
from .ecs_tasks import MIGRATE, Database

Statements = list[dict[str, Any]]
ECS_TASKS = "ecs-tasks.amazonaws.com"

# By service, the names of its grants.
GRANTED: Mapping[str, Sequence[str]] = {
    "submission": ("exec", "database", "master", "sealing", "cache", "protection"),
    "submissions": ("exec", "database", "master", "sealing", "cache", "protection"),
    "worker": ("exec", "database", "master", "sealing", "cache", "protection", "smarthost", "ses"),
    "certs": ("exec", "database", "master", "sealing", "backup", "dns", "alerts"),
    "api": ("exec", "database"),
    "dashboard": ("exec",),
}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What roles are granted something of: ARNs, and what ARNs are made of."""

    name: str
    region: str
    account_id: str
    zone_id: str
    hostname: str
    key: pulumi.Output[str]
    repository: pulumi.Output[str]
    bucket: pulumi.Output[str]
    sealing: pulumi.Output[str]
    exec_log: pulumi.Output[str]
    database: Database
    cache: Sequence[pulumi.Input[str]]
    smarthost_secret: str
    smarthost_key: str
    ses: Sequence[str]
    alerts_topic: pulumi.Input[str]
    alerts_key: pulumi.Input[str]


class Granted(NamedTuple):
    """A role, and what says what it may."""

    role: aws.iam.Role
    policy: aws.iam.RolePolicy


def within(arn: pulumi.Output[str], rest: str) -> pulumi.Output[str]:
    """What lies within: `arn` and, after it, `rest`."""
    return pulumi.Output.concat(arn, rest)


def execution_role(name: str, of: Reach, logs: Sequence[pulumi.Output[str]], opts: pulumi.ResourceOptions) -> Granted:
    """Images and logs, nothing of the application."""
    role = aws.iam.Role(
        f"{name}-execution",
        name=f"{of.name}-ecs-execution",
        assume_role_policy=policies.trust(ECS_TASKS),
        opts=opts,
    )
    may = aws.iam.RolePolicy(
        f"{name}-execution",
        name="start",
        role=role.id,
        policy=policies.policy(
            policies.allow(["ecr:GetAuthorizationToken"], ["*"]),  # AWS knows no resource for it
            policies.allow(
                ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                [of.repository],
            ),
            policies.allow(["logs:CreateLogStream", "logs:PutLogEvents"], [within(arn, ":*") for arn in logs]),
        ),
        opts=opts,
    )
    return Granted(role, may)


def task_role(name: str, service: str, of: Reach, opts: pulumi.ResourceOptions) -> Granted:
    """What the tasks of one service may do."""
    grants = grants_of(of)
    role = aws.iam.Role(
        f"{name}-task-{service}",
        name=f"{of.name}-{service}",
        assume_role_policy=policies.trust(ECS_TASKS),
        opts=opts,
    )
    may = aws.iam.RolePolicy(
        f"{name}-task-{service}",
        name=service,
        role=role.id,
        policy=policies.policy(*[statement for grant in GRANTED[service] for statement in grants[grant]]),
        opts=opts,
    )
    return Granted(role, may)


def migrate_role(name: str, of: Reach, opts: pulumi.ResourceOptions) -> aws.iam.Role:
    """What the task that migrates may do: log in as the master."""
    role = aws.iam.Role(
        f"{name}-migrate", name=f"{of.name}-migrate", assume_role_policy=policies.trust(ECS_TASKS), opts=opts
    )
    aws.iam.RolePolicy(
        f"{name}-migrate", name=MIGRATE, role=role.id, policy=policies.policy(*grants_of(of)[MIGRATE]), opts=opts
    )
    return role


def _logins(of: Reach) -> list[pulumi.Input[str]]:
    users = [(of.database.resource_id, of.database.user)]
    if of.database.proxy:
        users.append((of.database.proxy_resource_id, of.database.proxy_user))
    return [
        pulumi.Output.concat(f"arn:aws:rds-db:{of.region}:{of.account_id}:dbuser:", resource, "/", user)
        for resource, user in users
    ]


def _read_master(of: Reach) -> Statements:
    return [
        policies.allow(["secretsmanager:GetSecretValue"], [of.database.secret_arn]),
        policies.allow(["kms:Decrypt"], [of.database.kms_key_arn], _by("secretsmanager", of.region)),
    ]


def _by(service: str, region: str) -> dict[str, Any]:
    """Keys are used by way of the service that keeps what they encrypt, and by no call of the task's own."""
    return {"StringEquals": {"kms:ViaService": f"{service}.{region}.amazonaws.com"}}


def grants_of(of: Reach) -> dict[str, Statements]:
    """Each grant by its name."""
    allow, secret = policies.allow, ["secretsmanager:GetSecretValue"]
    return {
        # ECS Exec. AWS knows no resource for these.
        "exec": [
            allow(
                [
                    "ssmmessages:CreateControlChannel",
                    "ssmmessages:CreateDataChannel",
                    "ssmmessages:OpenControlChannel",
                    "ssmmessages:OpenDataChannel",
                    "logs:DescribeLogGroups",
                ],
                ["*"],
            ),
            allow(
                ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"], [within(of.exec_log, ":*")]
            ),
        ],
        # By IAM, as one role each of Postgres itself and of RDS Proxy; and as the master no longer (decision 0043).
        "database": [allow(["rds-db:connect"], _logins(of))],
        # For one step, of those alone that there were before.
        "master": _read_master(of) if of.database.services_read_master else [],
        MIGRATE: [
            *_read_master(of),
            *(
                [
                    allow([*secret, "secretsmanager:PutSecretValue"], [of.database.proxy_secret_arn]),
                    allow(["kms:GenerateDataKey"], [of.database.kms_key_arn], _by("secretsmanager", of.region)),
                ]
                if of.database.proxy
                else []
            ),
        ],
        "sealing": [
            allow(secret, [of.sealing]),
            allow(["kms:Decrypt"], [of.key], _by("secretsmanager", of.region)),
        ],
        "cache": [allow(["elasticache:Connect"], of.cache)],
        # A task asks for itself; its id is not known before.
        "protection": [
            allow(
                ["ecs:GetTaskProtection", "ecs:UpdateTaskProtection"],
                [f"arn:aws:ecs:{of.region}:{of.account_id}:task/{of.name}/*"],
            )
        ],
        "smarthost": _smarthost(of) if of.smarthost_secret else [],
        # The topic is encrypted: who publishes has a key of its data made.
        "alerts": [
            allow(["sns:Publish"], [of.alerts_topic]),
            allow(["kms:Decrypt", "kms:GenerateDataKey"], [of.alerts_key], _by("sns", of.region)),
        ],
        # SES asks for SendRawEmail where the API's SendEmail brings the message as it is, and of each thing that is
        # named: the identity, the configuration set, the tenant. `doctor` asks for the account's quota, which has no
        # resource.
        "ses": [
            allow(["ses:SendEmail", "ses:SendRawEmail"], of.ses),
            allow(["ses:GetAccount"], ["*"]),
        ]
        if of.ses
        else [],
        # To list it tells a certificate that is not there from one that may not be read.
        "backup": [
            allow(["s3:GetObject", "s3:PutObject"], [within(of.bucket, "/*")]),
            allow(["s3:ListBucket"], [of.bucket]),
            allow(["kms:Decrypt", "kms:GenerateDataKey"], [of.key], _by("s3", of.region)),
        ],
        "dns": _dns(of) if of.zone_id and of.hostname else [],
    }


def _smarthost(of: Reach) -> Statements:
    """Its secret, which may be in another region, and the secret's key where that is not AWS's own."""
    by = _by("secretsmanager", of.smarthost_secret.split(":")[3])
    key = [policies.allow(["kms:Decrypt"], [of.smarthost_key], by)] if of.smarthost_key else []
    return [policies.allow(["secretsmanager:GetSecretValue"], [of.smarthost_secret]), *key]


def _dns(of: Reach) -> Statements:
    """Of the zone the one name that DNS-01 asks for, and nothing else. The id of a change is not known before."""
    change = "route53:ChangeResourceRecordSets"
    asked = {
        f"{change}NormalizedRecordNames": [f"_acme-challenge.{of.hostname.lower()}"],
        f"{change}RecordTypes": ["TXT"],
        f"{change}Actions": ["UPSERT", "DELETE"],
    }
    return [
        policies.allow([change], [f"arn:aws:route53:::hostedzone/{of.zone_id}"], {"ForAllValues:StringEquals": asked}),
        policies.allow(["route53:GetChange"], ["arn:aws:route53:::change/*"]),
    ]
