"""A deployment by CodeDeploy: new tasks beside the old ones, the listener moved to them, and the way back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from smtp_proxy.deploy.service import Service
from smtp_proxy.deploy.waiting import Patience, underway
from smtp_proxy.errors import DeployFailed, DeployUnfinished

_LOOK_SECONDS = 10.0


def app_spec(service: Service, definition: str) -> str:
    """The AppSpec file of an ECS deployment, as JSON (AWS CodeDeploy user guide, "AppSpec file structure")."""
    target = {
        "Type": "AWS::ECS::Service",
        "Properties": {
            "TaskDefinition": definition,
            "LoadBalancerInfo": {"ContainerName": service.container, "ContainerPort": service.port},
            "PlatformVersion": service.platform_version,
            "NetworkConfiguration": {"AwsvpcConfiguration": _capitals(service.network["awsvpcConfiguration"])},
        },
    }
    return json.dumps({"version": "0.0", "Resources": [{"TargetService": target}]})


def _capitals(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """AppSpec's names of what ECS calls the same with a small letter."""
    return {key[:1].upper() + key[1:]: value for key, value in configuration.items()}


def deploy(
    codedeploy: Any,
    application: str,
    service: Service,
    definition: str,
    patience: Patience,
    say: Callable[[str], None],
    *,
    ignore_alarms: bool = False,
) -> None:
    """Create a deployment and wait for its end; `codedeploy` is a boto3 client.

    `ignore_alarms`: the alarms of its group are not asked, of which CodeDeploy otherwise stops every deployment while
    one is in alarm, also that of the repair.

    Raises DeployFailed: it failed or was stopped, which CodeDeploy takes back.
    Raises DeployUnfinished: it is not over in time and goes on.
    """
    content = app_spec(service, definition)
    alarms = {"overrideAlarmConfiguration": {"enabled": False}} if ignore_alarms else {}
    deployment = codedeploy.create_deployment(
        applicationName=application,
        deploymentGroupName=service.name,
        revision={
            "revisionType": "AppSpecContent",
            "appSpecContent": {"content": content, "sha256": hashlib.sha256(content.encode()).hexdigest()},
        },
        description=f"smtp-proxy deploy: {definition.rpartition('/')[2]}",
        **alarms,
    )["deploymentId"]
    say(f"{service.name}: deployment {deployment}")
    told: list[str] = []

    def ended() -> Mapping[str, Any] | None:
        found: Mapping[str, Any] = codedeploy.get_deployment(deploymentId=deployment)["deploymentInfo"]
        if told[-1:] != [found["status"]]:
            told.append(found["status"])
            say(f"{service.name}: {found['status']}")
        return found if found["status"] in ("Succeeded", "Failed", "Stopped") else None

    unfinished = (
        f"deployment {deployment} of {service.name} is not over yet and goes on by itself: "
        f"aws deploy get-deployment --deployment-id {deployment}"
    )
    with underway(unfinished):
        found = patience.until(ended, every_seconds=_LOOK_SECONDS)
    if found is None:
        raise DeployUnfinished(unfinished)
    if found["status"] != "Succeeded":
        raise DeployFailed(f"deployment {deployment} of {service.name} {_why(found)}")


def _why(found: Mapping[str, Any]) -> str:
    error = found.get("errorInformation", {})
    reason = f" ({error.get('code')}: {error.get('message')})" if error else ""
    back = found.get("rollbackInfo", {}).get("rollbackDeploymentId")
    way_back = f"deployment {back} leads back" if back else "the old tasks have the traffic, if it had moved at all"
    return f"{str(found['status']).lower()}{reason}; {way_back}"
