"""What runs: no credential where it can be read, an image that stays the same, a container that can change nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .reading import Found, block, documents, is_on, strings

# What the name of a credential has in it. Such a variable may hold the ARN of one: the task reads it by itself.
CREDENTIAL = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
ARN = re.compile(r"arn:aws[a-z-]*:[^\s:]+:[^\s:]*:[^\s:]*:\S+")
# What a credential looks like wherever it stands: a password in a URL, a key of AWS, a private key, a JSON web token.
LOOKS = re.compile(
    r"://[^/@\s]*:[^/@\s]+@|\b(AKIA|ASIA)[A-Z2-7]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY|\beyJ[\w-]{10,}\.eyJ"
)
# REQ-INFRA-ECS-009.
DRAIN_SECONDS = 120
# Commands that do one thing and end, by which they say how it went; no service runs them.
ENDS = {"migrate"}
BACK = {"DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"}


def containers(found: Found) -> list[Mapping[str, Any]]:
    return documents(found.props.get("containerDefinitions"))


def credentials(found: Found) -> Iterator[str]:
    for each in containers(found):
        for pair in each.get("environment") or ():
            if CREDENTIAL.search(pair["name"]) and not ARN.fullmatch(pair.get("value", "")):
                yield f"{pair['name']} of {each['name']} holds a credential; give the ARN of its secret (decision 0039)"
        if any(LOOKS.search(text) for text in strings(each)):
            yield f"a string of {each['name']} looks like a credential; give the ARN of its secret (decision 0039)"
        if each.get("secrets"):
            yield f"{each['name']} would have secrets in its environment; it reads them by ARN (decision 0039)"


def image(found: Found) -> Iterator[str]:
    for each in containers(found):
        name = each.get("image", "").rpartition("/")[2]
        tag = name.partition("@")[2] or name.partition(":")[2]
        if tag in ("", "latest"):
            yield f"{each['name']} runs an image that may change; set imageVersion to a tag that stays, or a digest"


def hardened(found: Found) -> Iterator[str]:
    for each in containers(found):
        if not each.get("readonlyRootFilesystem"):
            yield f"{each['name']} can change its own programs; set readonlyRootFilesystem"
        if str(each.get("user", "root")).partition(":")[0] in ("root", "0", "") or each.get("privileged"):
            yield f"{each['name']} runs as root; set user, and no privileged"
        if not each.get("healthCheck") and (each.get("command") or [""])[0] not in ENDS:
            yield f"{each['name']} is asked by nobody whether it is well; give healthCheck"
        if block(each, "logConfiguration").get("logDriver") != "awslogs":
            yield f"what {each['name']} logs is lost; set logDriver to awslogs"
        if float(each.get("stopTimeout", 30)) < DRAIN_SECONDS:
            yield f"{each['name']} is killed while sessions drain; set stopTimeout to {DRAIN_SECONDS}"


def platform(found: Found) -> Iterator[str]:
    props = found.props
    if props.get("requiresCompatibilities") != ["FARGATE"] or props.get("networkMode") != "awsvpc":
        yield 'does not run on Fargate; set requires_compatibilities=["FARGATE"] and network_mode="awsvpc"'
    if not props.get("executionRoleArn") or not props.get("taskRoleArn"):
        yield "has no role of its own; give execution_role_arn and task_role_arn"


def way_back(found: Found) -> Iterator[str]:
    """Of a service that rolls. CodeDeploy has its own."""
    props, breaker = found.props, block(found.props, "deploymentCircuitBreaker")
    if block(props, "deploymentController").get("type") != "CODE_DEPLOY" and not (
        is_on(breaker.get("enable")) and is_on(breaker.get("rollback"))
    ):
        yield "stays down after a release that does not start; set deployment_circuit_breaker with rollback=True"
    alarms = block(props, "alarms")
    if alarms and not is_on(alarms.get("rollback")):
        yield "is told by alarms that a release is bad, and keeps it; set rollback=True in alarms"


def deployment(found: Found) -> Iterator[str]:
    props = found.props
    back, alarms = block(props, "autoRollbackConfiguration"), block(props, "alarmConfiguration")
    missing = BACK - set(back.get("events") or ())
    if not is_on(back.get("enabled")) or missing:
        yield f"does not go back by itself; set auto_rollback_configuration with {' and '.join(sorted(BACK))}"
    if not is_on(alarms.get("enabled")) or not alarms.get("alarms") or is_on(alarms.get("ignorePollAlarmFailure")):
        yield "is watched by no alarm; set `rollback` of a row of `alarms` in terraform/stack.yaml"


def count(found: Found) -> Iterator[str]:
    of, begin = found.settings.get(str(found.props.get("name"))), found.props.get("desiredCount") or 0
    if not of or "max_tasks" not in of:
        yield "is no service of terraform/stack.yaml; add its section"
    elif not of["min_tasks"] <= begin <= of["max_tasks"]:
        yield f"begins with {begin:g} tasks; stack.yaml says {of['min_tasks']} to {of['max_tasks']}"
