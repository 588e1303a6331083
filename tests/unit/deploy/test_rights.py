"""What docs/RUNBOOK.md says `smtp-proxy deploy` may do is what it does: nobody finds out by AccessDenied, midway."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "pyapp/smtp_proxy/deploy"
# As the variables that hold boto3's clients are called there.
SERVICES = {
    "ecs": "ecs",
    "logs": "logs",
    "codedeploy": "codedeploy",
    "scaling": "application-autoscaling",
}
# Asked for by AWS on the way, in no call of ours, and why.
IMPLIED = {
    "iam:PassRole": "who runs a task hands its roles on",
    "ecs:TagResource": "RegisterTaskDefinition is given the tags of the definition before",
    "codedeploy:GetDeploymentConfig": "CreateDeployment reads it",
    "codedeploy:RegisterApplicationRevision": "CreateDeployment registers the revision",
    "codedeploy:GetApplicationRevision": "CreateDeployment reads it",
}


def called() -> set[str]:
    code = "\n".join(path.read_text() for path in DEPLOY.glob("*.py"))
    names = "|".join(SERVICES)
    calls = re.findall(rf"\b({names})\.([a-z]+_[a-z_]+)\(", code)
    calls += re.findall(rf"\b({names})\.get_paginator\(\"([a-z_]+)\"\)", code)
    return {
        f"{SERVICES[service]}:{''.join(word.title() for word in operation.split('_'))}"
        for service, operation in calls
        if not operation.startswith("get_paginator")
    }


def listed() -> set[str]:
    text = (ROOT / "docs/RUNBOOK.md").read_text()
    rights = re.sub(r"\([^)]*\)", "", text.partition("It takes these rights: ")[2].partition(".\n")[0])
    found, service = set(), ""
    for before, name in re.findall(r"`(?:([\w-]+):)?(\w+)`", rights):
        service = before or service
        found.add(f"{service}:{name}")
    return found


def test_the_rights_that_are_listed_are_those_that_are_asked_for() -> None:
    assert len(called()) > 10
    assert listed() == called() | IMPLIED.keys()
