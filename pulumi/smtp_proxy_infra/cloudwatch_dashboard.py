"""The dashboard's body: a part of `cloudwatch`, the twin of terraform/modules/cloudwatch.

Source: "Dashboard body structure and syntax", Amazon CloudWatch API reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pulumi

from .cloudwatch_alarms import Series, Targets
from .cloudwatch_settings import Chart


def body(
    charts: Sequence[Chart], targets: Targets, alarms: Sequence[pulumi.Input[str]], region: str
) -> pulumi.Output[str]:
    """A list of all alarms (ARNs), and the charts that have something to show, three a row."""
    shown = [(chart, lines) for chart in charts if (lines := list(_lines(chart, targets)))]
    widgets: list[dict[str, Any]] = [
        {
            "type": "alarm",
            "x": 0,
            "y": 0,
            "width": 24,
            "height": 6,
            "properties": {"title": "Alarms", "alarms": list(alarms)},
        }
    ]
    for n, (chart, lines) in enumerate(shown):
        widgets.append(
            {
                "type": "metric",
                "x": 8 * (n % 3),
                "y": 6 + 6 * (n // 3),
                "width": 8,
                "height": 6,
                "properties": {
                    "title": chart.title,
                    "region": region,
                    "view": "timeSeries",
                    "stat": chart.statistic,
                    "period": 60,
                    "metrics": lines,
                },
            }
        )
    return pulumi.Output.json_dumps({"widgets": widgets})


def _lines(chart: Chart, targets: Targets) -> Iterator[list[pulumi.Input[str]]]:
    for target, series in sorted(targets[chart.source].items()):
        if chart.services is None or target in chart.services:
            yield from (line(each, metric) for each in series for metric in chart.metrics)


def line(series: Series, metric: str) -> list[pulumi.Input[str]]:
    """Namespace, metric, and then name and value of each dimension."""
    pairs = sorted(series.dimensions.items(), key=lambda pair: pair[0])
    return [series.namespace, metric, *(part for pair in pairs for part in pair)]
