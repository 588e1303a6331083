"""Who may do what: no wildcard but those that are explained, no stranger, no role that anybody may hand on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .reading import Found, as_list, document

# By the kind of resource, the argument that holds a policy document.
DOCUMENTS = {
    "aws:iam/rolePolicy:RolePolicy": "policy",
    "aws:kms/key:Key": "policy",
    "aws:s3/bucketPolicy:BucketPolicy": "policy",
    "aws:sns/topicPolicy:TopicPolicy": "policy",
}

# Actions with a wildcard, by the kind of document, and why.
ACTIONS = {
    ("aws:kms/key:Key", "kms:*"): "the account's root: its IAM decides, which the roles' policies narrow",
    ("aws:kms/key:Key", "kms:GenerateDataKey*"): "data keys with and without their clear text, as AWS asks for them",
}
# Actions that may be allowed of the resource `*`: AWS knows none for them, or a caller asks for all.
ANYTHING = {
    "ecr:GetAuthorizationToken": "knows no resource",
    "ssmmessages:CreateControlChannel": "knows no resource",
    "ssmmessages:CreateDataChannel": "knows no resource",
    "ssmmessages:OpenControlChannel": "knows no resource",
    "ssmmessages:OpenDataChannel": "knows no resource",
    "logs:DescribeLogGroups": "the agent of ECS Exec asks for all groups",
    "cloudwatch:DescribeAlarms": "CodeDeploy asks for all alarms",
    "elasticloadbalancing:DescribeListeners": "knows no resource",
    "elasticloadbalancing:DescribeRules": "knows no resource",
    "elasticloadbalancing:DescribeTargetGroups": "knows no resource",
    "ses:GetAccount": "knows no resource",
}
# Actions that may be allowed of the resource `*` under a condition on ecs:cluster, and why.
BOUND = {
    "ecs:CreateTaskSet": "a task set that is being made has no ARN yet",
    "ecs:DeleteTaskSet": "allowed with CreateTaskSet, of the same services",
}
# Actions that may be allowed of an ARN with a wildcard: what lies within something that is named.
WITHIN = {
    "logs:CreateLogStream": "streams of one group",
    "logs:DescribeLogStreams": "streams of one group",
    "logs:PutLogEvents": "streams of one group",
    "s3:GetObject": "objects of one bucket",
    "s3:PutObject": "objects of one bucket",
    "ecs:GetTaskProtection": "tasks of one cluster: a task's id is not known before",
    "ecs:UpdateTaskProtection": "tasks of one cluster: a task's id is not known before",
    "elasticloadbalancing:ModifyListener": "allowed with ModifyRule, of one listener",
    "elasticloadbalancing:ModifyRule": "rules of one listener",
    "route53:GetChange": "the id of a change is not known before",
}
# Services of AWS that may take a role.
TRUSTED = {
    "ecs-tasks.amazonaws.com": "tasks",
    "codedeploy.amazonaws.com": "deployments",
    "monitoring.rds.amazonaws.com": "Enhanced Monitoring",
    "rds.amazonaws.com": "RDS Proxy reads the password",
    "vpc-flow-logs.amazonaws.com": "flow logs",
}
# Policies of AWS that may be attached, which change without us.
ATTACHED = {
    "arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole": "one action on one log group of RDS",
}
LISTS = "pulumi/policy/smtp_proxy_policy/access.py"


def statements(found: Found) -> Sequence[Mapping[str, Any]]:
    text = found.props.get(DOCUMENTS[found.kind])
    # A key without one has AWS's own: this account's IAM decides.
    return () if text is None else as_list(document(text).get("Statement"))


def allowed(found: Found) -> Iterator[Mapping[str, Any]]:
    """Statements that allow something."""
    return (statement for statement in statements(found) if statement.get("Effect") != "Deny")


def actions(found: Found) -> Iterator[str]:
    if found.props.get(DOCUMENTS[found.kind]) is not None and not statements(found):
        yield "has no Statement, which AWS refuses; write one, by this name"
    for statement in statements(found):
        if not statement.keys() & {"Action", "NotAction"}:
            yield f"has a statement without Action (with {', '.join(sorted(statement))}); name the actions in one"
    for statement in allowed(found):
        for key in ("NotAction", "NotResource", "NotPrincipal"):
            if key in statement:
                yield f"{key} allows everything else; name what is allowed"
        for action in as_list(statement.get("Action")):
            if ("*" in action or "?" in action) and (found.kind, action) not in ACTIONS:
                yield f"allows {action}; name the actions, or say in ACTIONS of {LISTS} why not"


def resources(found: Found) -> Iterator[str]:
    """In the policy of a key `*` is the key."""
    for statement in allowed(found):
        named, may = as_list(statement.get("Resource")), as_list(statement.get("Action"))
        if found.kind == "aws:kms/key:Key" or not any("*" in each for each in named):
            continue
        known, where = (ANYTHING, "ANYTHING") if "*" in named else (WITHIN, "WITHIN")
        for action in may:
            if action not in known and not _bound(action, statement):
                wide = next(each for each in named if each == "*" or (where == "WITHIN" and "*" in each))
                yield f"allows {action} of {wide}; name the resource, or say in {where} of {LISTS} why not"


def _bound(action: str, statement: Mapping[str, Any]) -> bool:
    """Whether a condition says what the resource can not."""
    return action in BOUND and any("ecs:cluster" in each for each in (statement.get("Condition") or {}).values())


def principals(found: Found) -> Iterator[str]:
    for statement in allowed(found):
        who = statement.get("Principal", {})
        names = [who] if isinstance(who, str) else [name for each in who.values() for name in as_list(each)]
        if "*" in names:
            yield "lets in everybody who has an account of AWS; name the principal"
        # S3's own statement names the account in its resource.
        if isinstance(who, Mapping) and "Service" in who and found.kind != "aws:s3/bucketPolicy:BucketPolicy":
            condition = statement.get("Condition") or {}
            if not any("aws:SourceAccount" in each for each in condition.values()):
                yield f"lets in {who['Service']} for any account; add a condition on aws:SourceAccount"


def passing(found: Found) -> Iterator[str]:
    for statement in allowed(found):
        if "iam:PassRole" in as_list(statement.get("Action")):
            condition = statement.get("Condition") or {}
            if not any("iam:PassedToService" in each for each in condition.values()):
                yield "may hand roles on to any service; add a condition on iam:PassedToService"


def trust(found: Found) -> Iterator[str]:
    for statement in as_list(document(found.props.get("assumeRolePolicy")).get("Statement")):
        who = statement.get("Principal")
        names = as_list(who.get("Service")) if isinstance(who, Mapping) and who.keys() == {"Service"} else [str(who)]
        for name in names:
            if name not in TRUSTED:
                yield f"may be taken by {name}; trust a service in TRUSTED of {LISTS}, or add it with its reason"
    for key in ("managedPolicyArns", "inlinePolicies"):
        if found.props.get(key):
            yield f"{key} grants where nobody looks; make it a RolePolicy of its own"


def attachment(found: Found) -> Iterator[str]:
    arn = found.props.get("policyArn")
    if arn not in ATTACHED:
        yield f"grants {arn}, which AWS may widen; write out what is needed, or say in ATTACHED of {LISTS} why not"
