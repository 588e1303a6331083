"""What roles may do: no more than their services use, and each wildcard has its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from fix_infra import OWN, ROOT, SIDES, Side, pulumi_side
from infra_graph.canonical import Resource
from infra_graph.services import as_list, containers, environment, of_kind, role_policies, services, task_policies

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)

# What AWS gives no resource for, and resources of which a part is known to AWS alone: what, and why.
WILDCARDS = {
    "ecr:GetAuthorizationToken": "has no resource",
    "ssmmessages:CreateControlChannel": "has no resource",
    "ssmmessages:CreateDataChannel": "has no resource",
    "ssmmessages:OpenControlChannel": "has no resource",
    "ssmmessages:OpenDataChannel": "has no resource",
    "logs:DescribeLogGroups": "is asked for all groups by the agent of ECS Exec",
    "logs:CreateLogStream": "streams of one group",
    "logs:DescribeLogStreams": "streams of one group",
    "logs:PutLogEvents": "streams of one group",
    "s3:GetObject": "objects of one bucket",
    "s3:PutObject": "objects of one bucket",
    "ecs:GetTaskProtection": "tasks of one cluster",
    "ecs:UpdateTaskProtection": "tasks of one cluster",
    "route53:GetChange": "the id of a change is not known before",
    "cloudwatch:DescribeAlarms": "has no resource",
    "ses:GetAccount": "has no resource",
    "elasticloadbalancing:DescribeListeners": "has no resource",
    "elasticloadbalancing:DescribeRules": "has no resource",
    "elasticloadbalancing:DescribeTargetGroups": "has no resource",
    "elasticloadbalancing:ModifyListener": "allowed with ModifyRule, of one listener",
    "elasticloadbalancing:ModifyRule": "rules of one listener",
    "ecs:CreateTaskSet": "a condition says of which cluster and services",
    "ecs:DeleteTaskSet": "a condition says of which cluster and services",
}
WORLD = "0.0.0.0/0"
BARE = {name for name, why in WILDCARDS.items() if why == "has no resource"} | {"logs:DescribeLogGroups"}
TASK_SETS = {"ecs:CreateTaskSet", "ecs:DeleteTaskSet"}


@SIDES
def test_roles_may_do_no_more_than_they_must(side: str, stack: Side) -> None:
    """Least privilege: no action with a wildcard, no resource with one outside the list."""
    policies = role_policies(stack(side))
    assert {"codedeploy-main", "vpc-flow", "ecs-execution"} < policies.keys()
    for role, statements in policies.items():
        for statement in statements:
            assert statement["Effect"] == "Allow", role
            actions, resources = as_list(statement["Action"]), as_list(statement["Resource"])
            assert not [action for action in actions if "*" in action], role
            if any("*" in resource for resource in resources):
                assert set(actions) <= WILDCARDS.keys(), (role, actions)
            if "*" in resources:
                bound = "ecs:cluster" in statement.get("Condition", {}).get("ArnEquals", {})
                assert set(actions) <= (TASK_SETS if bound else BARE), (role, actions)


# Which of the things that matter each service reaches: nothing that it does not use.
REACH = {
    "submission": {"rds", "sealing", "cache", "protection"},
    "submissions": {"rds", "sealing", "cache", "protection"},
    "worker": {"rds", "sealing", "cache", "protection", "smarthost"},
    "certs": {"rds", "sealing", "backup", "dns"},
    "api": {"rds"},  # the internet talks to it
    "dashboard": set(),
}
# Of each of them what its right names, and what a service is told that uses it.
SIGNS = {
    "rds": (":dbuser:<aws_db_instance|rds-primary|resource_id>/smtp_proxy_app", "DB_HOST"),
    "sealing": ("<aws_secretsmanager_secret|ecs-sealing|arn>", "SECRET_KEY_SECRET"),
    "cache": ("<aws_elasticache_replication_group|elasticache-main|arn>", "REDIS_URL"),
    "protection": (":task/", "TASK_PROTECTION"),
    "backup": ("<aws_s3_bucket|ecs-certificates|arn>", "CERT_BACKUP_BUCKET"),
    "smarthost": (OWN["smarthost_secret_arn"], "SMARTHOST_SECRET"),
    "dns": (f":hostedzone/{OWN['zone_id']}", "ACME_ROUTE53_ZONE_ID"),
}
# Only where somebody names one, as the stack with every switch turned does.
NAMED = {"smarthost", "dns"}


def named(resources: list[Resource]) -> set[str]:
    text = str([each.arguments for each in resources])
    return {what for what in NAMED if SIGNS[what][0] in text}


@SIDES
def test_each_role_reaches_what_its_service_uses(side: str, stack: Side) -> None:
    resources = stack(side)
    absent = NAMED - named(resources)
    for role, statements in task_policies(resources).items():
        service = role.removeprefix("ecs-task-")
        if service == role:
            continue  # of what starts tasks, and of migrations
        text = " ".join(str(resource) for each in statements for resource in as_list(each["Resource"]))
        assert {what for what, (sign, _) in SIGNS.items() if sign in text} == REACH[service] - absent, role


@SIDES
def test_each_service_is_told_of_what_its_role_reaches_and_of_nothing_else(side: str, stack: Side) -> None:
    """A right for what the process is never told of is one that nobody uses but an intruder."""
    resources = stack(side)
    absent = NAMED - named(resources)
    for service, container in containers(resources).items():
        given = environment(container)
        assert {what for what, (_, name) in SIGNS.items() if name in given} == REACH[service] - absent, service


def test_what_is_named_is_looked_at(switched: Side) -> None:
    assert named(switched("pulumi")) == named(switched("terraform")) == NAMED


# Where each service gets through to, by its security group: the ways to what it reaches, to images and logs, and out.
IMAGES_AND_LOGS = {("vpc-role-endpoints", "443"), ("vpc-s3", "443")}
POSTGRES, CACHE = ("vpc-role-database", "5432"), ("vpc-role-cache", "6379")
WAYS_OUT = {
    "submission": {POSTGRES, CACHE, *IMAGES_AND_LOGS},
    "submissions": {POSTGRES, CACHE, *IMAGES_AND_LOGS},
    "worker": {POSTGRES, CACHE, *IMAGES_AND_LOGS, *((WORLD, port) for port in ("25", "465", "587", "443"))},
    "certs": {POSTGRES, *IMAGES_AND_LOGS, (WORLD, "443")},
    "api": {POSTGRES, *IMAGES_AND_LOGS},
    "dashboard": {("vpc-role-api", "8080"), *IMAGES_AND_LOGS},
}


def way_out(rule: Mapping[str, Any]) -> tuple[str, str]:
    """To whom, and to which port."""
    assert rule["ip_protocol"] == "tcp"
    assert rule["from_port"] == rule["to_port"]
    (to,) = (rule[key] for key in ("referenced_security_group_id", "prefix_list_id", "cidr_ipv4") if key in rule)
    return (to.split("|")[1] if "|" in to else to), rule["to_port"]


@SIDES
def test_each_service_gets_through_to_what_it_uses_and_to_nothing_else(side: str, stack: Side) -> None:
    resources = stack(side)
    rules = of_kind(resources, "aws_vpc_security_group_egress_rule").values()
    for service, each in services(resources).items():
        group = each["network_configuration"]["security_group"]
        assert {way_out(rule) for rule in rules if rule["security_group_id"] == group} == WAYS_OUT[service], service


@SIDES
def test_the_worker_alone_sends_by_ses_and_only_with_what_is_named(side: str, production: Side, switched: Side) -> None:
    """Off unless ses_arns is given; and then no more than SendEmail, with these identities and configuration sets, and
    GetAccount, which `smtp-proxy deploy` asks for in the check of the worker: refused, nothing would be deployed."""
    assert ":ses:" not in str(task_policies(production(side)))
    found = {
        role: [each for each in statements if "ses:" in str(each["Action"])]
        for role, statements in task_policies(switched(side)).items()
    }
    asks, sends = sorted(found.pop("ecs-task-worker"), key=lambda each: as_list(each["Action"]))
    assert sorted(sends["Action"]) == ["ses:SendEmail", "ses:SendRawEmail"]
    assert sorted(sends["Resource"]) == sorted(OWN["ses_arns"])
    assert as_list(asks["Action"]) == ["ses:GetAccount"]
    assert as_list(asks["Resource"]) == ["*"]
    assert not any(found.values())


def test_ses_by_a_wildcard_is_refused_by_pulumi_too() -> None:
    """As terraform/tests/stack.tftest.hcl has it of Terraform."""
    with pytest.raises(AssertionError, match="ses_arns must be whole ARNs of SES, without wildcards"):
        pulumi_side(ROOT, "dev", {"ses_arns": ["arn:aws:ses:us-east-1:123456789012:identity/*"]})


@SIDES
def test_the_issuer_alone_tells_people_itself(side: str, stack: Side) -> None:
    """REQ-INFRA-TLS-006: of certificates that can not be had, to the topic of the alarms, with the right to its key."""
    topic = "<aws_sns_topic|cloudwatch-alerts|arn>"
    for name, container in containers(stack(side)).items():
        assert environment(container).get("CERT_ALERT_SNS_TOPIC", "").endswith(topic) == (name == "certs"), name
    for role, statements in task_policies(stack(side)).items():
        may = {
            action: each["Resource"]
            for each in statements
            for action in as_list(each["Action"])
            if action == "sns:Publish" or "cloudwatch-" in str(each["Resource"])
        }
        assert may.keys() == (
            {"sns:Publish", "kms:Decrypt", "kms:GenerateDataKey"} if role == "ecs-task-certs" else set()
        ), role
        assert not may or (may["sns:Publish"].endswith(topic) and "cloudwatch-main" in may["kms:GenerateDataKey"])


@SIDES
def test_the_issuer_may_write_one_name_of_the_zone(side: str, switched: Side) -> None:
    """And of it the records of DNS-01 alone: MX, SPF and everything else of the zone are not its business."""
    change = "route53:ChangeResourceRecordSets"
    for role, statements in task_policies(switched(side)).items():
        found = [each for each in statements if change in as_list(each["Action"])]
        assert bool(found) == (role == "ecs-task-certs"), role
        for each in found:
            said = each["Condition"]["ForAllValues:StringEquals"]
            assert said == {
                f"{change}NormalizedRecordNames": f"_acme-challenge.{OWN['smtp_hostname']}",
                f"{change}RecordTypes": "TXT",
                f"{change}Actions": ["DELETE", "UPSERT"],
            }


@SIDES
def test_the_issuer_proves_by_dns_where_it_may(side: str, switched: Side, production: Side) -> None:
    """Without `@dns-01` a name is proved by HTTP-01, whatever ACME_DNS says."""
    said = {each["name"]: each["value"] for each in containers(switched(side))["certs"]["environment"]}
    assert said["ACME_CERTIFICATES"] == f"{OWN['smtp_hostname']}@dns-01"
    assert said["ACME_ROUTE53_ZONE_ID"] == OWN["zone_id"]
    bare = {each["name"] for each in containers(production(side))["certs"]["environment"]}
    assert not bare & {"ACME_CERTIFICATES", "ACME_DNS"}


@SIDES
def test_keys_are_used_by_way_of_a_service(side: str, stack: Side) -> None:
    """Whoever has a task's role decrypts nothing that Secrets Manager, S3 or SNS does not hand out for itself."""
    via = {}
    for role, statements in task_policies(stack(side)).items():
        for each in statements:
            if role.startswith("ecs-") and any(action.startswith("kms:") for action in as_list(each["Action"])):
                said = each["Condition"]["StringEquals"]["kms:ViaService"]
                via[role, each["Resource"]] = said
    assert via
    assert set(via.values()) <= {f"{name}.us-east-1.amazonaws.com" for name in ("secretsmanager", "s3", "sns")} | {
        "secretsmanager.eu-west-1.amazonaws.com"
    }


@SIDES
def test_a_smarthosts_secret_may_have_a_key_of_its_own(side: str, switched: Side) -> None:
    """Without kms:Decrypt a secret under a customer's key can not be read: the worker alone may, in its region."""
    found = {
        role: each
        for role, statements in task_policies(switched(side)).items()
        for each in statements
        if OWN["smarthost_kms_key_arn"] in as_list(each["Resource"])
    }
    assert found.keys() == {"ecs-task-worker"}
    assert found["ecs-task-worker"]["Action"] == "kms:Decrypt"
    assert "secretsmanager.eu-west-1.amazonaws.com" in str(found["ecs-task-worker"]["Condition"])


@SIDES
def test_certificates_are_kept_closed_and_in_versions(side: str, stack: Side) -> None:
    resources = stack(side)
    closed = of_kind(resources, "aws_s3_bucket_public_access_block")["ecs-certificates"]
    assert {closed[key] for key in closed if key != "bucket"} == {"true"}
    assert len(closed) == 5
    versions = of_kind(resources, "aws_s3_bucket_versioning")["ecs-certificates"]
    assert versions["versioning_configuration"]["statu"] == "Enabled"  # argument_name takes the last s
    statement = of_kind(resources, "aws_s3_bucket_policy")["ecs-certificates"]["policy"]["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
