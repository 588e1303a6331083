"""Whose metrics there are, and an alarm of each: a part of `cloudwatch`, the twin of terraform/modules/cloudwatch.

Names are given, so that nothing of it has to be there before: alarms come first, since ECS and CodeDeploy refuse to
watch one that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pulumi
import pulumi_aws as aws

from .cloudwatch_settings import AlarmSettings
from .ecs_metrics import Metric, query, query_expression
from .ecs_scaling import NAMESPACE


@dataclass(frozen=True, kw_only=True)
class Balanced:
    """Of a service behind a load balancer: the namespace, the balancer and all groups in the dimensions of metrics."""

    namespace: str
    load_balancer: pulumi.Input[str]
    target_groups: Sequence[pulumi.Input[str]]


class Series(NamedTuple):
    """Where metrics are found."""

    namespace: str
    dimensions: Mapping[str, pulumi.Input[str]]


Targets = Mapping[str, Mapping[str, Sequence[Series]]]


def targets(
    name: str,
    services: Sequence[str],
    *,
    container_insights: bool,
    balanced: Mapping[str, Balanced],
    cache_nodes: Sequence[str],
) -> Targets:
    """By source, and by service, database or node: where its metrics are.

    `name` is that of the cluster and the database, and what the cache's nodes begin with; `cache_nodes` is what these
    end with, such as `0001-001`.
    """

    def of_ecs(namespace: str) -> dict[str, Sequence[Series]]:
        return {each: [Series(namespace, {"ClusterName": name, "ServiceName": each})] for each in services}

    return {
        # METRICS_NAMESPACE and METRICS_SERVICE, docs/RUNBOOK.md "CloudWatch".
        "application": {each: [Series(NAMESPACE, {"Service": each})] for each in services},
        "ecs": of_ecs("AWS/ECS"),
        "container-insights": of_ecs("ECS/ContainerInsights") if container_insights else {},
        "target-groups": {
            each: [
                Series(of.namespace, {"LoadBalancer": of.load_balancer, "TargetGroup": group})
                for group in of.target_groups
            ]
            for each, of in balanced.items()
        },
        "database": {"database": [Series("AWS/RDS", {"DBInstanceIdentifier": name})]},
        "cache": {node: [Series("AWS/ElastiCache", {"CacheClusterId": f"{name}-{node}"})] for node in cache_nodes},
    }


def nodes(node_groups: int, replicas: int) -> list[str]:
    """How ElastiCache calls the nodes of a replication group in cluster mode, after the group's name."""
    return [f"{group:04}-{node:03}" for group in range(1, node_groups + 1) for node in range(1, replicas + 2)]


def alarm_key(key: str, source: str, target: str) -> str:
    """What an alarm of the table is called for one target."""
    if source == "database":
        return key
    return f"{key}-{target}" if source == "cache" else f"{target}-{key}"


class Alarms:
    """An alarm of each row of the table and each target it is of."""

    def __init__(
        self,
        name: str,
        *,
        prefix: str,
        topic: pulumi.Output[str],
        wholes: Mapping[str, float],
        opts: pulumi.ResourceOptions,
    ) -> None:
        """`topic`: who is told; `wholes`: what percentages are of."""
        self._name, self._prefix, self._topic, self._wholes, self._opts = name, prefix, topic, wholes, opts
        self.made: list[aws.cloudwatch.MetricAlarm] = []
        self.rollback: dict[str, list[pulumi.Output[str]]] = {}

    def make(self, key: str, of: AlarmSettings, target: str, series: Sequence[Series]) -> None:
        """One alarm."""
        called = alarm_key(key, of.source, target)
        if of.metrics or of.source == "target-groups":
            alarm = self._formula(called, of, series)
        else:
            alarm = self._plain(called, of, series[0])
        self.made.append(alarm)
        if of.rollback:
            self.rollback.setdefault(target, []).append(alarm.name)

    def _plain(self, called: str, of: AlarmSettings, series: Series) -> aws.cloudwatch.MetricAlarm:
        return aws.cloudwatch.MetricAlarm(
            f"{self._name}-metric-{called}",
            name=f"{self._prefix}-{called}",
            alarm_description=of.meaning,
            namespace=series.namespace,
            metric_name=of.metric,
            dimensions=series.dimensions,
            statistic=of.statistic,
            period=of.period_seconds,
            evaluation_periods=of.minutes * 60 // of.period_seconds,
            datapoints_to_alarm=of.needed,
            comparison_operator=_comparison(of),
            threshold=of.threshold(self._wholes),
            treat_missing_data=of.missing,
            alarm_actions=[self._topic],
            ok_actions=[self._topic],
            opts=self._opts,
        )

    def _formula(self, called: str, of: AlarmSettings, series: Sequence[Series]) -> aws.cloudwatch.MetricAlarm:
        return aws.cloudwatch.MetricAlarm(
            f"{self._name}-formula-{called}",
            name=f"{self._prefix}-{called}",
            alarm_description=of.meaning,
            evaluation_periods=of.minutes * 60 // of.period_seconds,
            datapoints_to_alarm=of.needed,
            comparison_operator=_comparison(of),
            threshold=of.threshold(self._wholes),
            treat_missing_data=of.missing,
            alarm_actions=[self._topic],
            ok_actions=[self._topic],
            metric_queries=[
                *_queries(of, series),
                query_expression("value", of.expression or _hosts(of.groups, len(series)), called),
            ],
            opts=self._opts,
        )


def _comparison(of: AlarmSettings) -> str:
    return "LessThanThreshold" if of.above is None else "GreaterThanThreshold"


def _queries(of: AlarmSettings, series: Sequence[Series]) -> list[aws.cloudwatch.MetricAlarmMetricQueryArgs]:
    if of.metric is not None:
        asked = {f"hosts{n}": (of.metric, each) for n, each in enumerate(series)}
        if of.groups == "down":
            asked |= {f"unhealthy{n}": ("UnHealthyHostCount", each) for n, each in enumerate(series)}
    else:
        asked = {key: (metric, series[0]) for key, metric in of.metrics.items()}
    return [
        query(key, Metric(each.namespace, metric, of.statistic, each.dimensions), of.period_seconds)
        for key, (metric, each) in asked.items()
    ]


def _hosts(groups: str, count: int) -> str:
    """Of both target groups the one that has most, or whether one is down.

    CodeDeploy empties one of them, and says nothing of which is in service. Down is what has unhealthy hosts and no
    healthy one: hosts of a group that is on no listener are neither, and so are those that drain.
    """
    if groups == "down":
        of_each = [f"IF(FILL(unhealthy{n}, 0) > 0 AND FILL(hosts{n}, 0) < 1, 0, 1)" for n in range(count)]
        return f"MIN([{', '.join(of_each)}])"
    return f"MAX([{', '.join(f'FILL(hosts{n}, 0)' for n in range(count))}])"
