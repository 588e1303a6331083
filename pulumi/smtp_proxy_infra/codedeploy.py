"""Blue/green of the services that have a port: the twin of terraform/modules/codedeploy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from . import policies
from .settings import require


@dataclass(frozen=True, kw_only=True)
class CodeDeploySettings:
    """Section codedeploy of stack.yaml; minutes."""

    nlb_config: str
    alb_config: str
    ready_wait_minutes: int
    termination_wait_minutes: int
    rollback_events: Sequence[str]

    def __post_init__(self) -> None:
        """Raises: BadSettings, where terraform/modules/codedeploy/variables.tf refuses the same."""
        require(
            self.nlb_config == "CodeDeployDefault.ECSAllAtOnce",
            "codedeploy.nlb_config must be CodeDeployDefault.ECSAllAtOnce: CodeDeploy knows nothing else behind a "
            "network load balancer.",
        )
        known = r"CodeDeployDefault\.ECS(AllAtOnce|(Canary|Linear)10Percent(Every)?[0-9]+Minutes?)"
        require(
            re.fullmatch(known, self.alb_config) is not None,
            "codedeploy.alb_config must be one of CodeDeployDefault.ECS…, such as "
            "CodeDeployDefault.ECSCanary10Percent5Minutes.",
        )
        require(
            0 <= self.ready_wait_minutes <= 2880 and 1 <= self.termination_wait_minutes <= 2880,
            "codedeploy.ready_wait_minutes must be 0 to 2880, and codedeploy.termination_wait_minutes 1 to 2880: "
            "without the old tasks there is no way back.",
        )
        require(
            {"DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"} <= set(self.rollback_events),
            "codedeploy.rollback_events must have DEPLOYMENT_FAILURE and DEPLOYMENT_STOP_ON_ALARM (REQ-INFRA-ECS-006).",
        )


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """How a service is reached: load balancer (nlb, alb), name in ECS, listener, groups blue and green."""

    balancer: str
    service_name: pulumi.Input[str]
    listener_arn: pulumi.Output[str]
    target_group_names: Sequence[pulumi.Input[str]]


@dataclass(frozen=True, kw_only=True)
class CodeDeployArgs:
    """By service: how it is reached, and which alarms stop its deployment (10 at most)."""

    name: str
    region: str
    account_id: str
    cluster_name: pulumi.Input[str]
    services: Mapping[str, Deployed]
    settings: CodeDeploySettings
    task_role_arns: Sequence[pulumi.Input[str]] = ()
    alarm_names: Mapping[str, Sequence[pulumi.Input[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises: BadSettings."""
        require(
            all(len(names) <= 10 for names in self.alarm_names.values()),
            "alarm_names: CodeDeploy watches 10 alarms of a deployment group at most.",
        )


class CodeDeploy(pulumi.ComponentResource):
    """Outputs: the application and the deployment group of each service."""

    def __init__(self, name: str, args: CodeDeployArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("smtp-proxy:infra:CodeDeploy", name, None, opts)
        self._name, self._args, self._settings = name, args, args.settings
        self._child = pulumi.ResourceOptions(parent=self)
        self._role = aws.iam.Role(
            f"{name}-main",
            name=f"{args.name}-codedeploy",
            assume_role_policy=policies.trust("codedeploy.amazonaws.com"),
            opts=self._child,
        )
        self._may = aws.iam.RolePolicy(
            f"{name}-main", name="deploy", role=self._role.id, policy=self._policy(), opts=self._child
        )
        self._application = aws.codedeploy.Application(
            f"{name}-main", name=args.name, compute_platform="ECS", opts=self._child
        )
        groups = {service: self._group(service) for service in args.services}
        self.application_name = self._application.name
        self.deployment_group_names = {service: group.deployment_group_name for service, group in groups.items()}
        self.register_outputs({"application_name": self.application_name})

    def _policy(self) -> pulumi.Output[str]:
        """AWSCodeDeployRoleForECS without what is not used (Lambda, SNS, S3).

        Where an action knows resources, they are named: nothing outside this cluster and these listeners.
        """
        args = self._args

        tasks = f"arn:aws:ecs:{args.region}:{args.account_id}"
        services = [
            pulumi.Output.concat(f"{tasks}:service/", args.cluster_name, "/", each.service_name)
            for each in args.services.values()
        ]
        # A set that is being made has no ARN to be named by: what it is made in says the condition.
        cluster = pulumi.Output.concat(f"{tasks}:cluster/", args.cluster_name)
        within = {"ArnEquals": {"ecs:cluster": cluster, "ecs:service": services}}
        listeners = list({id(each.listener_arn): each.listener_arn for each in args.services.values()}.values())
        rules = [pulumi.Output.concat(arn.apply(_rules_of), "/*") for arn in listeners]
        statements: list[dict[str, Any]] = [
            policies.allow(["ecs:DescribeServices", "ecs:UpdateServicePrimaryTaskSet"], services),
            policies.allow(["ecs:CreateTaskSet", "ecs:DeleteTaskSet"], ["*"]) | {"Condition": within},
            policies.allow(
                ["elasticloadbalancing:ModifyListener", "elasticloadbalancing:ModifyRule"], [*listeners, *rules]
            ),
            policies.allow(
                [
                    "cloudwatch:DescribeAlarms",
                    "elasticloadbalancing:DescribeListeners",
                    "elasticloadbalancing:DescribeRules",
                    "elasticloadbalancing:DescribeTargetGroups",
                ],
                ["*"],
            ),
        ]
        if args.task_role_arns:
            condition = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
            statements.append(policies.allow(["iam:PassRole"], args.task_role_arns) | {"Condition": condition})
        return policies.policy(*statements)

    def _group(self, service: str) -> aws.codedeploy.DeploymentGroup:
        """A group a service, since a group has one listener and its two target groups."""
        args, of, reached = self._args, self._settings, self._args.services[service]
        cd = aws.codedeploy
        alarms = args.alarm_names.get(service, ())
        return cd.DeploymentGroup(
            f"{self._name}-service-{service}",
            app_name=self._application.name,
            deployment_group_name=service,
            service_role_arn=self._role.arn,
            deployment_config_name=of.nlb_config if reached.balancer == "nlb" else of.alb_config,
            deployment_style=cd.DeploymentGroupDeploymentStyleArgs(
                deployment_type="BLUE_GREEN", deployment_option="WITH_TRAFFIC_CONTROL"
            ),
            ecs_service=cd.DeploymentGroupEcsServiceArgs(
                cluster_name=args.cluster_name, service_name=reached.service_name
            ),
            load_balancer_info=self._route(reached),
            blue_green_deployment_config=self._steps(),
            # An alarm takes the traffic back for as long as the old tasks are there, and one that can not be read stops
            # the deployment.
            alarm_configuration=cd.DeploymentGroupAlarmConfigurationArgs(
                enabled=len(alarms) > 0, alarms=alarms, ignore_poll_alarm_failure=False
            ),
            auto_rollback_configuration=cd.DeploymentGroupAutoRollbackConfigurationArgs(
                enabled=True, events=of.rollback_events
            ),
            # Without its permissions a deployment fails.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self._may]),
        )

    def _route(self, reached: Deployed) -> aws.codedeploy.DeploymentGroupLoadBalancerInfoArgs:
        cd = aws.codedeploy
        return cd.DeploymentGroupLoadBalancerInfoArgs(
            target_group_pair_info=cd.DeploymentGroupLoadBalancerInfoTargetGroupPairInfoArgs(
                prod_traffic_route=cd.DeploymentGroupLoadBalancerInfoTargetGroupPairInfoProdTrafficRouteArgs(
                    listener_arns=[reached.listener_arn]
                ),
                target_groups=[
                    cd.DeploymentGroupLoadBalancerInfoTargetGroupPairInfoTargetGroupArgs(name=name)
                    for name in reached.target_group_names
                ],
            )
        )

    def _steps(self) -> aws.codedeploy.DeploymentGroupBlueGreenDeploymentConfigArgs:
        cd, of = aws.codedeploy, self._settings
        return cd.DeploymentGroupBlueGreenDeploymentConfigArgs(
            deployment_ready_option=cd.DeploymentGroupBlueGreenDeploymentConfigDeploymentReadyOptionArgs(
                action_on_timeout="STOP_DEPLOYMENT" if of.ready_wait_minutes > 0 else "CONTINUE_DEPLOYMENT",
                wait_time_in_minutes=of.ready_wait_minutes,
            ),
            terminate_blue_instances_on_deployment_success=cd.DeploymentGroupBlueGreenDeploymentConfigTerminateBlueInstancesOnDeploymentSuccessArgs(
                action="TERMINATE", termination_wait_time_in_minutes=of.termination_wait_minutes
            ),
        )


def _rules_of(listener_arn: str) -> str:
    return listener_arn.replace(":listener/", ":listener-rule/")
