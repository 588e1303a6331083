"""CodeDeploy: what a deployment group was told of alarms, and how groups and applications are changed and deleted."""

from __future__ import annotations

from typing import Any

from local_aws.answers import answers
from moto.codedeploy import responses
from moto.codedeploy.responses import CodeDeployResponse
from moto.core.responses import ActionResult, EmptyResult

answered = answers(CodeDeployResponse)
_moto_info = responses._deployment_group_info
# By what a group is asked to change, the attribute in which moto keeps it.
CHANGED = {
    "deploymentConfigName": "deployment_config_name",
    "serviceRoleArn": "service_role_arn",
    "alarmConfiguration": "alarm_configuration",
    "autoRollbackConfiguration": "auto_rollback_configuration",
    "deploymentStyle": "deployment_style",
    "blueGreenDeploymentConfiguration": "blue_green_deployment_configuration",
    "loadBalancerInfo": "load_balancer_info",
    "ecsServices": "ecs_services",
}


def _with_alarms(group: Any) -> dict[str, Any]:
    """moto keeps the alarms and does not tell them."""
    return _moto_info(group) | {"alarmConfiguration": group.alarm_configuration or {}}


responses._deployment_group_info = _with_alarms


@answered
def update_deployment_group(self: Any) -> ActionResult:
    group = self.codedeploy_backend.get_deployment_group(
        self._get_param("applicationName"), self._get_param("currentDeploymentGroupName")
    )
    for name, attribute in CHANGED.items():
        if self._get_param(name) is not None:
            setattr(group, attribute, self._get_param(name))
    return ActionResult({"hooksNotCleanedUp": []})


@answered
def delete_deployment_group(self: Any) -> ActionResult:
    groups = self.codedeploy_backend.deployment_groups.get(self._get_param("applicationName"), {})
    groups.pop(self._get_param("deploymentGroupName"), None)
    return ActionResult({"hooksNotCleanedUp": []})


@answered
def delete_application(self: Any) -> EmptyResult:
    self.codedeploy_backend.applications.pop(self._get_param("applicationName"), None)
    return EmptyResult()
