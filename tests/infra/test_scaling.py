"""How the services scale, as both sides describe it: by what, when, and between which numbers.

Production, and dev with every switch turned (which has the API, the dashboard and a known peak as well).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fix_infra import SIDES, Side
from infra_graph.canonical import Resource

from smtp_proxy.config import Settings
from smtp_proxy.telemetry.emf import DIMENSION, TABLE

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)

SCALED = {"submission", "submissions", "worker"}


def of_kind(resources: list[Resource], kind: str) -> dict[str, Mapping[str, Any]]:
    found = {each.role: each.arguments for each in resources if each.kind == kind}
    return {role: each for role, each in found.items() if role.startswith("ecs-")}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def tracked(policy: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = policy["target_tracking_scaling_policy_configuration"]
    return found


@SIDES
def test_each_service_scales_by_itself(side: str, stack: Side) -> None:
    """REQ-INFRA-SCALE-001: a target and policies of its own; the issuer is one, and has none."""
    targets = of_kind(stack(side), "aws_appautoscaling_target")
    services = {role.removeprefix("ecs-main-") for role in targets}
    assert services - {"api", "dashboard"} == SCALED
    policies = of_kind(stack(side), "aws_appautoscaling_policy")
    for service in services:
        target = targets[f"ecs-main-{service}"]
        assert (target["service_namespace"], target["scalable_dimension"]) == ("ecs", "ecs:service:DesiredCount")
        cluster, name = target["resource_id"].removeprefix("service/").split("/")
        assert cluster.startswith("smtp-proxy-")
        assert name == service
        own = {role for role, each in policies.items() if each["resource_id"] == target["resource_id"]}
        assert {f"ecs-cpu-out-{service}", f"ecs-cpu-in-{service}"} <= own
        assert all(role.endswith(f"-{service}") for role in own)
    for policy in policies.values():
        assert (policy["service_namespace"], policy["scalable_dimension"]) == ("ecs", "ecs:service:DesiredCount")


@SIDES
def test_nothing_scales_beyond_its_maximum(side: str, production: Side) -> None:
    """REQ-INFRA-SCALE-011."""
    targets = of_kind(production(side), "aws_appautoscaling_target")
    assert {role: (each["min_capacity"], each["max_capacity"]) for role, each in targets.items()} == {
        "ecs-main-submission": ("2", "20"),
        "ecs-main-submissions": ("2", "20"),
        "ecs-main-worker": ("1", "10"),
    }


@SIDES
def test_connections_of_each_task(side: str, production: Side) -> None:
    """REQ-INFRA-SCALE-004, REQ-INFRA-ECS-008: more than 500 on average are a reason for more tasks."""
    for service in ("submission", "submissions"):
        of = tracked(of_kind(production(side), "aws_appautoscaling_policy")[f"ecs-connections-{service}"])
        assert of == {
            "target_value": "500",
            "scale_out_cooldown": "60",
            "scale_in_cooldown": "300",
            "disable_scale_in": "true",
            "customized_metric_specification": {
                "namespace": "SmtpProxy",
                "metric_name": "ActiveConnections",
                "statistic": "Average",
                "dimension": {"name": "Service", "value": service},
            },
        }


@SIDES
def test_one_policy_alone_takes_tasks_away(side: str, stack: Side) -> None:
    """REQ-INFRA-SCALE-009: two that ask for opposite things make the count of tasks swing for ever (decision 0037)."""
    policies = of_kind(stack(side), "aws_appautoscaling_policy")
    trackers = {role for role, each in policies.items() if each["policy_type"] == "TargetTrackingScaling"}
    assert trackers
    assert {role for role in trackers if tracked(policies[role]).get("disable_scale_in") != "true"} == set()
    steps = {role: each["step_scaling_policy_configuration"] for role, each in policies.items() if role not in trackers}
    takes = {role for role, step in steps.items() if int(step["step_adjustment"]["scaling_adjustment"]) < 0}
    services = {role.removeprefix("ecs-main-") for role in of_kind(stack(side), "aws_appautoscaling_target")}
    assert takes == {f"ecs-cpu-in-{service}" for service in services}


@SIDES
def test_backlog_of_each_task(side: str, production: Side) -> None:
    """REQ-INFRA-SCALE-005: a total does not fall as tasks become more; by the tasks that run it does."""
    of = tracked(of_kind(production(side), "aws_appautoscaling_policy")["ecs-backlog-worker"])
    assert (of["target_value"], of["scale_out_cooldown"], of["scale_in_cooldown"]) == ("1000", "60", "180")
    metrics = {each["id"]: each for each in of["customized_metric_specification"]["metric"]}
    assert metrics["per_task"]["expression"] == "backlog / tasks"
    assert [key for key, each in metrics.items() if each["return_data"] == "true"] == ["per_task"]
    backlog, tasks = metrics["backlog"]["metric_stat"], metrics["tasks"]["metric_stat"]
    assert (backlog["metric"]["metric_name"], backlog["stat"]) == ("QueueDepth", "Maximum")
    assert (tasks["metric"]["namespace"], tasks["metric"]["metric_name"], tasks["stat"]) == (
        "ECS/ContainerInsights",
        "RunningTaskCount",
        "Average",
    )
    cluster = {each.name: each for each in production(side)}["aws_ecs_cluster ecs-main"].arguments
    assert cluster["setting"] == {"name": "containerInsights", "value": "enabled"}


@SIDES
def test_the_api_scales_by_requests_and_latency(side: str, switched: Side) -> None:
    """REQ-INFRA-SCALE-006: requests of each task, and the 95th percentile above half a second for two minutes."""
    policies = of_kind(switched(side), "aws_appautoscaling_policy")
    requests = tracked(policies["ecs-requests-api"])
    assert requests["target_value"] == "1000"
    assert len(requests["customized_metric_specification"]["metric"]) == 4  # both groups, the tasks, the formula
    alarm = of_kind(switched(side), "aws_cloudwatch_metric_alarm")["ecs-latency-api"]
    assert (alarm["threshold"], alarm["evaluation_period"], alarm["comparison_operator"]) == (
        "0.5",
        "2",
        "GreaterThanThreshold",
    )
    stats = {each["metric"]["stat"] for each in alarm["metric_query"] if "metric" in each}
    groups = {each["metric"]["dimension"]["target_group"] for each in alarm["metric_query"] if "metric" in each}
    assert stats == {"p95"}
    assert groups == {f"<aws_lb_target_group|alb-web-api-{colour}|arn_suffix>" for colour in ("blue", "green")}
    assert alarm["alarm_action"].endswith("<aws_appautoscaling_policy|ecs-latency-api|arn>")


CPU = [
    ("out", "70", "2", "GreaterThanThreshold", "metric_interval_lower_bound", "2"),
    ("in", "30", "5", "LessThanThreshold", "metric_interval_upper_bound", "-1"),
]


def measured(alarm: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Its metrics by id; the one of an alarm without a formula is called cpu, as in the others."""
    queries = as_list(alarm.get("metric_query", [{"id": "cpu", "metric": {**alarm, "stat": alarm.get("statistic")}}]))
    return {each["id"]: each["metric"] for each in queries if "metric" in each}


@SIDES
@pytest.mark.parametrize(("way", "percent", "minutes", "comparison", "bound", "tasks"), CPU, ids=["out", "in"])
def test_cpu(
    way: str, percent: str, minutes: str, comparison: str, bound: str, tasks: str, side: str, production: Side
) -> None:
    """REQ-INFRA-SCALE-008, REQ-INFRA-SCALE-009: above 70 % for 2 minutes, and below 30 % for 5."""
    alarms = of_kind(production(side), "aws_cloudwatch_metric_alarm")
    policies = of_kind(production(side), "aws_appautoscaling_policy")
    for service in SCALED:
        alarm = alarms[f"ecs-cpu-{way}-{service}"]
        cpu = measured(alarm)["cpu"]
        assert (cpu["namespace"], cpu["metric_name"], cpu["stat"], cpu["period"]) == (
            "AWS/ECS",
            "CPUUtilization",
            "Average",
            "60",
        )
        assert (alarm["threshold"], alarm["evaluation_period"]) == (percent, minutes)
        assert (alarm["comparison_operator"], alarm["treat_missing_data"]) == (comparison, "notBreaching")
        assert cpu["dimension"] == {"cluster_name": "smtp-proxy-production", "service_name": service}
        assert alarm["alarm_action"].endswith(f"<aws_appautoscaling_policy|ecs-cpu-{way}-{service}|arn>")
        step = policies[f"ecs-cpu-{way}-{service}"]["step_scaling_policy_configuration"]
        assert step["adjustment_type"] == "ChangeInCapacity"
        assert step["step_adjustment"] == {bound: "0", "scaling_adjustment": tasks}


# What the alarm that scales in looks at: of each service its formula, and metric and statistic by id.
COUNTS = {"tasks": ("RunningTaskCount", "Average"), "wanted": ("DesiredTaskCount", "Average")}
CONNECTIONS = (
    "IF(connections * tasks < 0.9 * 500 * left, cpu, 100)",
    {"connections": ("ActiveConnections", "Average"), **COUNTS},
)
IDLE: Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]] = {
    "submission": CONNECTIONS,
    "submissions": CONNECTIONS,
    "worker": (
        "IF((backlog < 0.9 * 1000 * left) AND (busy * tasks < 70 * left), cpu, 100)",
        {"backlog": ("QueueDepth", "Maximum"), "busy": ("WorkerBusyShare", "Average"), **COUNTS},
    ),
    "api": (
        "IF(FILL(requests0, 0) + FILL(requests1, 0) < 0.9 * 1000 * left, cpu, 100)",
        {"requests0": ("RequestCount", "Sum"), "requests1": ("RequestCount", "Sum"), **COUNTS},
    ),
}


@SIDES
def test_no_task_goes_that_waits_for_others(side: str, switched: Side) -> None:
    """REQ-INFRA-SCALE-009: slow next hops and idle clients take no CPU; those that are left have to bear it all."""
    alarms = of_kind(switched(side), "aws_cloudwatch_metric_alarm")
    policies = of_kind(switched(side), "aws_appautoscaling_policy")
    for service, (formula, metrics) in IDLE.items():
        alarm = alarms[f"ecs-cpu-in-{service}"]
        found = measured(alarm)
        assert {key: (each["metric_name"], each["stat"]) for key, each in found.items()} == {
            "cpu": ("CPUUtilization", "Average"),
            **metrics,
        }
        for key in COUNTS:
            assert found[key]["namespace"] == "ECS/ContainerInsights"
            assert found[key]["dimension"] == {"cluster_name": "smtp-proxy-dev", "service_name": service}
        formulas = {each["id"]: each for each in alarm["metric_query"] if "expression" in each}
        assert formulas["left"]["expression"] == "MIN([tasks, wanted]) - 1"
        assert formulas["idle"]["expression"] == formula
        assert [each["id"] for each in alarm["metric_query"] if each["return_data"] == "true"] == ["idle"]
        # The same as its own policy tracks, and what that has of each task at most.
        (own,) = (
            tracked(each)
            for role, each in policies.items()
            if role.endswith(f"-{service}") and each["policy_type"] == "TargetTrackingScaling"
        )
        assert f"< 0.9 * {own['target_value']} * left" in formula
    (alone,) = as_list(alarms["ecs-cpu-in-dashboard"]["metric_query"])
    assert (alone["id"], alone["return_data"]) == ("cpu", "true"), "which scales by nothing else"


@SIDES
def test_a_known_peak_is_prepared_for(side: str, switched: Side) -> None:
    """REQ-INFRA-SCALE-013."""
    found = of_kind(switched(side), "aws_appautoscaling_scheduled_action")["ecs-prewarm-monday"]
    assert (found["schedule"], found["timezone"]) == ("cron(45 7 ? * MON *)", "UTC")
    assert found["scalable_target_action"] == {"min_capacity": "3"}
    assert found["resource_id"] == "service/smtp-proxy-dev/submission"


def metrics_of_ours(resources: list[Resource]) -> Iterator[tuple[str, str]]:
    """What policies and their alarms ask of the application: the metric, and of which service."""
    for policy in of_kind(resources, "aws_appautoscaling_policy").values():
        asked = policy.get("target_tracking_scaling_policy_configuration", {}).get(
            "customized_metric_specification", {}
        )
        stats = [each["metric_stat"]["metric"] for each in as_list(asked.get("metric", [])) if "metric_stat" in each]
        for metric in (*stats, asked):
            if metric.get("namespace") == Settings.model_fields["metrics_namespace"].default:
                dimensions = as_list(metric["dimension"])
                assert [each["name"] for each in dimensions] == [DIMENSION]
                yield metric["metric_name"], dimensions[0]["value"]
    for alarm in of_kind(resources, "aws_cloudwatch_metric_alarm").values():
        for metric in measured(alarm).values():
            if metric["namespace"] == Settings.model_fields["metrics_namespace"].default:
                ((_, value),) = metric["dimension"].items()
                yield metric["metric_name"], value


@SIDES
def test_policies_ask_for_metrics_that_are_sent(side: str, stack: Side) -> None:
    """By the names of the table that the application sends, and from a service that sends them."""
    sent = {metric.name: metric.services for metric in TABLE}
    asked = set(metrics_of_ours(stack(side)))
    assert asked == {
        ("ActiveConnections", "submission"),
        ("ActiveConnections", "submissions"),
        ("QueueDepth", "worker"),
        ("WorkerBusyShare", "worker"),
    }
    for name, service in asked:
        assert ("worker" if service == "worker" else "smtp") in sent[name]
