"""Metrics, and formulas over them, as policies and alarms want them: a part of `ecs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pulumi
import pulumi_aws as aws

_scaling, _alarms = aws.appautoscaling, aws.cloudwatch
_Specification = _scaling.PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationArgs
_Query = _scaling.PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationMetricArgs
_Stat = _scaling.PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationMetricMetricStatArgs
_Metric = _scaling.PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationMetricMetricStatMetricArgs
_Dimension = _scaling.PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationMetricMetricStatMetricDimensionArgs  # noqa: E501


class Metric(NamedTuple):
    """One metric of CloudWatch, and its statistic."""

    namespace: str
    name: str
    stat: str
    dimensions: Mapping[str, pulumi.Input[str]]


def measured(key: str, metric: Metric) -> _Query:
    """What a formula of a policy is made of."""
    dimensions = [_Dimension(name=name, value=value) for name, value in metric.dimensions.items()]
    stat = _Stat(
        stat=metric.stat,
        metric=_Metric(namespace=metric.namespace, metric_name=metric.name, dimensions=dimensions),
    )
    return _Query(id=key, metric_stat=stat, return_data=False)


def expression(*of: _Query, formula: str, label: str) -> _Specification:
    """What a policy tracks."""
    return _Specification(
        metrics=[*of, _Query(id="per_task", expression=formula, label=label, return_data=True)],
    )


def query(key: str, metric: Metric, period_seconds: int) -> aws.cloudwatch.MetricAlarmMetricQueryArgs:
    """What a formula of an alarm is made of."""
    return _alarms.MetricAlarmMetricQueryArgs(
        id=key,
        return_data=False,
        metric=_alarms.MetricAlarmMetricQueryMetricArgs(
            namespace=metric.namespace,
            metric_name=metric.name,
            dimensions=metric.dimensions,
            stat=metric.stat,
            period=period_seconds,
        ),
    )


def query_expression(
    key: str, formula: str, label: str, *, is_result: bool = True
) -> aws.cloudwatch.MetricAlarmMetricQueryArgs:
    """What an alarm looks at; or, where it is no result, what another formula is made of."""
    return _alarms.MetricAlarmMetricQueryArgs(id=key, expression=formula, label=label, return_data=is_result)
