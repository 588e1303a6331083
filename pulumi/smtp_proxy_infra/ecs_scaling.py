"""How services scale, each by itself: a part of `ecs`, the twin of terraform/modules/ecs.

Between its minimum and its maximum; one that has one task at most has none of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pulumi
import pulumi_aws as aws

from .ecs_metrics import Metric, expression, measured, query, query_expression
from .ecs_settings import ScalingSettings, ServiceSettings

# The application's own metrics: METRICS_NAMESPACE and METRICS_SERVICE, docs/RUNBOOK.md "CloudWatch".
NAMESPACE = "SmtpProxy"
ECS, DIMENSION = "ecs", "ecs:service:DesiredCount"


class Aim(NamedTuple):
    """Whether the tasks that would be left can bear what a service has: a formula over metrics, and `left`."""

    bears: str
    metrics: Mapping[str, Metric]


@dataclass(frozen=True, kw_only=True)
class Balancer:
    """What metrics call the load balancer of the API, and its two target groups."""

    arn_suffix: pulumi.Input[str]
    target_group_arn_suffixes: Sequence[pulumi.Input[str]]


class Scaling:
    """Of one service."""

    def __init__(
        self,
        name: str,
        service: str,
        *,
        prefix: str,
        cluster: pulumi.Output[str],
        running: pulumi.Output[str],
        settings: ServiceSettings,
        scaling: ScalingSettings,
        balancer: Balancer | None,
        opts: pulumi.ResourceOptions,
    ) -> None:
        """`cluster`, `running`: names of the cluster and of the service of ECS."""
        self._name, self._service, self._prefix, self._cluster = name, service, f"{prefix}-{service}", cluster
        self._settings, self._scaling, self._balancer, self._opts = settings, scaling, balancer, opts
        self._in_cooldown = scaling.worker_in_cooldown_seconds if service == "worker" else scaling.in_cooldown_seconds
        self.target = aws.appautoscaling.Target(
            f"{name}-main-{service}",
            service_namespace=ECS,
            scalable_dimension=DIMENSION,
            resource_id=pulumi.Output.concat("service/", cluster, "/", running),
            min_capacity=settings.min_tasks,
            max_capacity=settings.max_tasks,
            opts=opts,
        )
        self._by_cpu()
        if settings.connections_per_task is not None:
            self._by_connections(settings.connections_per_task)
        if settings.backlog_per_task is not None:
            self._by_backlog(settings.backlog_per_task)
        if settings.requests_per_task is not None and balancer is not None:
            self._by_requests(settings.requests_per_task, balancer)
        if settings.latency_p95_seconds is not None and balancer is not None:
            self._by_latency(settings.latency_p95_seconds, balancer)

    def _track(
        self,
        what: str,
        value: int,
        metric: aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationArgs,
    ) -> None:
        """Adds tasks and takes none away: cpu-in does, which knows what waiting tasks are needed for."""
        aws.appautoscaling.Policy(
            f"{self._name}-{what}-{self._service}",
            name=f"{self._prefix}-{what}",
            policy_type="TargetTrackingScaling",
            service_namespace=ECS,
            scalable_dimension=DIMENSION,
            resource_id=self.target.resource_id,
            target_tracking_scaling_policy_configuration=aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationArgs(
                target_value=value,
                scale_out_cooldown=self._scaling.out_cooldown_seconds,
                scale_in_cooldown=self._in_cooldown,
                disable_scale_in=True,
                customized_metric_specification=metric,
            ),
            opts=self._opts,
        )

    def _step(self, what: str, tasks: int) -> aws.appautoscaling.Policy:
        """So many tasks more, or less."""
        adjustment = aws.appautoscaling.PolicyStepScalingPolicyConfigurationStepAdjustmentArgs
        return aws.appautoscaling.Policy(
            f"{self._name}-{what}-{self._service}",
            name=f"{self._prefix}-{what}",
            policy_type="StepScaling",
            service_namespace=ECS,
            scalable_dimension=DIMENSION,
            resource_id=self.target.resource_id,
            step_scaling_policy_configuration=aws.appautoscaling.PolicyStepScalingPolicyConfigurationArgs(
                adjustment_type="ChangeInCapacity",
                metric_aggregation_type="Average",
                cooldown=self._scaling.out_cooldown_seconds if tasks > 0 else self._in_cooldown,
                step_adjustments=[
                    adjustment(metric_interval_lower_bound="0", scaling_adjustment=tasks)
                    if tasks > 0
                    else adjustment(metric_interval_upper_bound="0", scaling_adjustment=tasks)
                ],
            ),
            opts=self._opts,
        )

    def _by_connections(self, target: int) -> None:
        """Each task tells of its own sessions, so that the average of the metric is of one task."""
        specification = (
            aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationArgs
        )
        dimension = (
            aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationDimensionArgs
        )
        self._track(
            "connections",
            target,
            specification(
                namespace=NAMESPACE,
                metric_name="ActiveConnections",
                statistic="Average",
                dimensions=[dimension(name="Service", value=self._service)],
            ),
        )

    def _counted(self, name: str) -> Metric:
        dimensions: dict[str, pulumi.Input[str]] = {"ClusterName": self._cluster, "ServiceName": self._service}
        return Metric("ECS/ContainerInsights", name, "Average", dimensions)

    def _running(self) -> Metric:
        return self._counted("RunningTaskCount")

    def _counts(self) -> dict[str, Metric]:
        """Tasks that run, and those that are wanted: a task that was taken away runs on while it drains."""
        return {"tasks": self._running(), "wanted": self._counted("DesiredTaskCount")}

    def _by_backlog(self, target: int) -> None:
        """The backlog is one, whoever measures it: by tasks that run it falls as they become more."""
        self._track(
            "backlog",
            target,
            expression(
                measured("backlog", Metric(NAMESPACE, "QueueDepth", "Maximum", {"Service": self._service})),
                measured("tasks", self._running()),
                formula="backlog / tasks",
                label="Backlog of each task",
            ),
        )

    def _by_requests(self, target: int, balancer: Balancer) -> None:
        """Requests of both groups, since CodeDeploy changes which of the two is in service."""
        self._track(
            "requests",
            target,
            expression(
                *[
                    measured(f"requests{n}", Metric("AWS/ApplicationELB", "RequestCount", "Sum", dimensions))
                    for n, dimensions in enumerate(_groups(balancer))
                ],
                measured("tasks", self._running()),
                formula="(FILL(requests0, 0) + FILL(requests1, 0)) / tasks",
                label="Requests of each task",
            ),
        )

    def _by_cpu(self) -> None:
        """Target tracking knows no 30 %: CPU has steps, and alarms of its own."""
        of = self._scaling
        out, into = self._step("cpu-out", of.cpu_out_tasks), self._step("cpu-in", -of.cpu_in_tasks)
        self._alarm_out(out)
        self._alarm_in(into)

    def _alarm_out(self, policy: aws.appautoscaling.Policy) -> None:
        """No data: there are no tasks, or CloudWatch is late. Neither is a reason to scale."""
        aws.cloudwatch.MetricAlarm(
            f"{self._name}-cpu-out-{self._service}",
            name=f"{self._prefix}-cpu-out",
            alarm_description=f"Scales {self._service} out",
            namespace="AWS/ECS",
            metric_name="CPUUtilization",
            dimensions={"ClusterName": self._cluster, "ServiceName": self._service},
            statistic="Average",
            period=self._scaling.metric_period_seconds,
            evaluation_periods=self._scaling.cpu_out_minutes,
            comparison_operator="GreaterThanThreshold",
            threshold=self._scaling.cpu_out_percent,
            treat_missing_data="notBreaching",
            alarm_actions=[policy.arn],
            opts=self._opts,
        )

    def _aim(self) -> Aim | None:
        """As the service's own policy above has it, of all its tasks together.

        And of workers how many deliveries are under way, in percent of what one has at once.
        """
        of, share, counts = self._settings, self._scaling.in_target_share, self._counts()
        own: dict[str, pulumi.Input[str]] = {"Service": self._service}
        if of.connections_per_task is not None:
            connections = Metric(NAMESPACE, "ActiveConnections", "Average", own)
            bears = f"connections * tasks < {share} * {of.connections_per_task} * left"
            return Aim(bears, {"connections": connections, **counts})
        if of.backlog_per_task is not None:
            backlog = Metric(NAMESPACE, "QueueDepth", "Maximum", own)
            busy = Metric(NAMESPACE, "WorkerBusyShare", "Average", own)
            bears = f"(backlog < {share} * {of.backlog_per_task} * left)"
            bears += f" AND (busy * tasks < {self._scaling.in_busy_percent} * left)"
            return Aim(bears, {"backlog": backlog, "busy": busy, **counts})
        if of.requests_per_task is not None and self._balancer is not None:
            requests = {
                f"requests{n}": Metric("AWS/ApplicationELB", "RequestCount", "Sum", dimensions)
                for n, dimensions in enumerate(_groups(self._balancer))
            }
            bears = f"FILL(requests0, 0) + FILL(requests1, 0) < {share} * {of.requests_per_task} * left"
            return Aim(bears, requests | counts)
        return None

    def _alarm_in(self, policy: aws.appautoscaling.Policy) -> None:
        """CPU, where the tasks that would be left can bear what there is; else 100.

        So no task goes that waits for others. It is the only policy that takes tasks away.
        """
        of, aim = self._scaling, self._aim()
        dimensions: dict[str, pulumi.Input[str]] = {"ClusterName": self._cluster, "ServiceName": self._service}
        cpu = query("cpu", Metric("AWS/ECS", "CPUUtilization", "Average", dimensions), of.metric_period_seconds)
        cpu.return_data = aim is None
        queries = [cpu]
        if aim is not None:
            queries += [query(key, metric, of.metric_period_seconds) for key, metric in aim.metrics.items()]
            left = f"MIN([tasks, wanted]) - {of.cpu_in_tasks}"
            queries += [
                query_expression("left", left, "Tasks that would be left", is_result=False),
                query_expression("idle", f"IF({aim.bears}, cpu, 100)", "CPU where fewer tasks would do"),
            ]
        aws.cloudwatch.MetricAlarm(
            f"{self._name}-cpu-in-{self._service}",
            name=f"{self._prefix}-cpu-in",
            alarm_description=f"Scales {self._service} in",
            evaluation_periods=of.cpu_in_minutes,
            comparison_operator="LessThanThreshold",
            threshold=of.cpu_in_percent,
            treat_missing_data="notBreaching",
            alarm_actions=[policy.arn],
            metric_queries=queries,
            opts=self._opts,
        )

    def _by_latency(self, seconds: float, balancer: Balancer) -> None:
        """Requests say nothing of how long they take."""
        policy = self._step("latency", self._scaling.cpu_out_tasks)
        period = self._scaling.metric_period_seconds
        aws.cloudwatch.MetricAlarm(
            f"{self._name}-latency-{self._service}",
            name=f"{self._prefix}-latency",
            alarm_description=f"Scales {self._service} out",
            evaluation_periods=self._scaling.cpu_out_minutes,
            comparison_operator="GreaterThanThreshold",
            threshold=seconds,
            treat_missing_data="notBreaching",
            alarm_actions=[policy.arn],
            metric_queries=[
                *[
                    query(f"p95_{n}", Metric("AWS/ApplicationELB", "TargetResponseTime", "p95", dimensions), period)
                    for n, dimensions in enumerate(_groups(balancer))
                ],
                query_expression(
                    "slowest", "MAX([FILL(p95_0, 0), FILL(p95_1, 0)])", "p95 of the group that is in service"
                ),
            ],
            opts=self._opts,
        )


def _groups(balancer: Balancer) -> list[Mapping[str, pulumi.Input[str]]]:
    return [{"LoadBalancer": balancer.arn_suffix, "TargetGroup": group} for group in balancer.target_group_arn_suffixes]


def prewarm(
    name: str,
    prefix: str,
    scaling: ScalingSettings,
    targets: Mapping[str, aws.appautoscaling.Target],
    opts: pulumi.ResourceOptions,
) -> None:
    """Known peaks, ahead of them."""
    for key, each in scaling.prewarm.items():
        aws.appautoscaling.ScheduledAction(
            f"{name}-prewarm-{key}",
            name=f"{prefix}-{key}",
            service_namespace=ECS,
            scalable_dimension=DIMENSION,
            resource_id=targets[each["service"]].resource_id,
            schedule=each["cron"],
            timezone="UTC",
            scalable_target_action=aws.appautoscaling.ScheduledActionScalableTargetActionArgs(
                min_capacity=each["min_tasks"]
            ),
            opts=opts,
        )
