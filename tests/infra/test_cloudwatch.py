"""Who is told of what, as both sides describe it: alarms, charts, the topic and the budget.

Production, and dev with every switch turned (which has the API, the dashboard and people to tell as well).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from fix_infra import ROOT, SIDES, Side, reckon
from infra_graph.canonical import Resource, argument_name

from smtp_proxy.config import Settings
from smtp_proxy.telemetry.emf import DIMENSION, TABLE
from smtp_proxy_infra import settings
from smtp_proxy_infra.cloudwatch_alarms import Series, nodes, targets
from smtp_proxy_infra.cloudwatch_dashboard import line

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)

NAMESPACE = Settings.model_fields["metrics_namespace"].default
TOPIC = "arn:aws:mock:us-east-1:123456789012:<aws_sns_topic|cloudwatch-alerts|arn>"

# What AWS sends of itself, by namespace: the names and dimensions that its user guides list. A misspelt one would have
# no data, and so tell nothing for ever.
OF_AWS: Mapping[str, tuple[set[str], set[str]]] = {
    "AWS/ECS": ({"CPUUtilization", "MemoryUtilization"}, {"cluster_name", "service_name"}),
    "ECS/ContainerInsights": ({"RunningTaskCount"}, {"cluster_name", "service_name"}),
    "AWS/NetworkELB": ({"HealthyHostCount", "UnHealthyHostCount"}, {"load_balancer", "target_group"}),
    "AWS/ApplicationELB": (
        {"HealthyHostCount", "UnHealthyHostCount", "RequestCount", "TargetResponseTime"},
        {"load_balancer", "target_group"},
    ),
    "AWS/RDS": (
        {
            "CPUUtilization",
            "FreeStorageSpace",
            "DatabaseConnections",
            "FreeableMemory",
            "ReadLatency",
            "WriteLatency",
        },
        {"dbinstance_identifier"},
    ),
    "AWS/ElastiCache": (
        {"DatabaseMemoryUsagePercentage", "Evictions", "EngineCPUUtilization", "CurrConnections"},
        {"cache_cluster_id"},
    ),
}


def of_kind(resources: list[Resource], kind: str) -> dict[str, Mapping[str, Any]]:
    return {each.role: each.arguments for each in resources if each.kind == kind}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def alarms(resources: list[Resource]) -> dict[str, Mapping[str, Any]]:
    """Those that tell people, by name without what the environment is called; not those that scale."""
    found = of_kind(resources, "aws_cloudwatch_metric_alarm")
    told = {role: each for role, each in found.items() if role.startswith("cloudwatch-")}
    return {each["name"].split("-", 3)[3]: each for each in told.values()}


def asked(alarm: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Its metrics: namespace, metric_name, dimension."""
    if "metric_name" in alarm:
        yield alarm
    for each in as_list(alarm.get("metric_query", [])):
        if "metric" in each:
            yield each["metric"]


def widgets(resources: list[Resource]) -> list[Mapping[str, Any]]:
    (dashboard,) = of_kind(resources, "aws_cloudwatch_dashboard").values()
    found: list[Mapping[str, Any]] = dashboard["dashboard_body"]["widgets"]
    return found


@SIDES
def test_every_alarm_tells_people_and_asks_for_something(side: str, stack: Side) -> None:
    """Of the alarm and of its end; of a metric of AWS or of the application; and no data was thought of."""
    table = settings.load("production")["alarms"]
    found = alarms(stack(side))
    assert len(found) > 50
    for name, alarm in found.items():
        assert (alarm["alarm_action"], alarm["ok_action"]) == (TOPIC, TOPIC), name
        assert list(asked(alarm)), name
        assert alarm["treat_missing_data"] in ("breaching", "notBreaching", "ignore", "missing"), name
        assert 1 <= int(alarm["evaluation_period"]) * int(alarm.get("period", 60)) <= 86_400, name
        rows = [row for row in table.values() if row["meaning"] == alarm["alarm_description"]]
        assert len(rows) == 1, name
        assert rows[0]["missing"] == alarm["treat_missing_data"], name
        assert len(rows[0]["why_missing"]) > 20, name


@SIDES
def test_every_row_of_the_table_is_an_alarm(side: str, switched: Side) -> None:
    told = {alarm["alarm_description"] for alarm in alarms(switched(side)).values()}
    assert told == {row["meaning"] for row in settings.load("dev")["alarms"].values()}


def test_the_runbook_says_what_to_do() -> None:
    """Of each alarm, and which of them take a deployment back."""
    text = (ROOT / "docs/RUNBOOK.md").read_text().partition("\n## Alarms\n")[2].partition("\n## ")[0]
    rows = {name: bool(mark) for name, mark in re.findall(r"^\| `([a-z0-9-]+)`( ↩)? \| .{10,} \|$", text, re.MULTILINE)}
    assert rows == {key: row.get("rollback", False) for key, row in settings.load("production")["alarms"].items()}


@SIDES
def test_no_two_alarms_are_called_alike(side: str, stack: Side) -> None:
    """One of two would replace the other. Those that scale are counted in."""
    names = [each.arguments["name"] for each in stack(side) if each.kind == "aws_cloudwatch_metric_alarm"]
    assert len(names) == len(set(names))


def of_ours(resources: list[Resource]) -> Iterator[tuple[str, str]]:
    """The application's metrics that alarms and charts ask for, and of which service."""
    for alarm in alarms(resources).values():
        for each in asked(alarm):
            if each["namespace"] == NAMESPACE:
                (dimension, service) = next(iter(each["dimension"].items()))
                assert (dimension, len(each["dimension"])) == (DIMENSION.lower(), 1)
                yield each["metric_name"], service
    sent = {metric.name for metric in TABLE}
    services = {each["name"] for each in of_kind(resources, "aws_ecs_service").values()}
    for widget in widgets(resources):
        for each in _lines(widget):
            if each[0] == NAMESPACE:
                metric, dimension, service = each[1:]
                assert (dimension, metric in sent, service in services) == (DIMENSION, True, True), each
                yield metric, service


def _lines(widget: Mapping[str, Any]) -> list[list[str]]:
    found = as_list(widget["properties"].get("metrics", []))
    return [found] if found and isinstance(found[0], str) else found


def unsent(asked_for: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of metrics with their service those that this service does not send."""
    sends = {metric.name: metric.services for metric in TABLE}
    process = {"submission": "smtp", "submissions": "smtp"}
    return {(name, service) for name, service in asked_for if process.get(service, service) not in sends.get(name, ())}


@SIDES
def test_no_alarm_is_without_its_metric(side: str, stack: Side) -> None:
    """By the names of the table that the application sends, from a service that sends them, with its one dimension."""
    found = set(of_ours(stack(side)))
    assert len(found) > 25
    assert unsent(found) == set()
    # Nobody sends the first; the second is of workers alone.
    assert unsent({("QueueLenght", "worker"), ("BacklogAge", "submission"), ("BacklogAge", "worker")}) == {
        ("QueueLenght", "worker"),
        ("BacklogAge", "submission"),
    }


@SIDES
def test_an_alarm_without_its_metric_is_noticed(side: str, production: Side) -> None:
    renamed = [
        replace(each, arguments={**each.arguments, "metric_name": "BacklogAgeSeconds"})
        if each.role == "cloudwatch-metric-worker-backlog-age"
        else each
        for each in production(side)
    ]
    assert unsent(set(of_ours(renamed))) == {("BacklogAgeSeconds", "worker")}


@SIDES
def test_metrics_of_aws_are_called_as_aws_calls_them(side: str, stack: Side) -> None:
    for name, alarm in alarms(stack(side)).items():
        for each in asked(alarm):
            if each["namespace"] != NAMESPACE:
                metrics, dimensions = OF_AWS[each["namespace"]]
                assert each["metric_name"] in metrics, name
                assert set(each["dimension"]) == dimensions, name
    for widget in widgets(stack(side)):
        for each in _lines(widget):
            if each[0] != NAMESPACE:
                namespace, metric, *pairs = each
                assert metric in OF_AWS[namespace][0], each
                assert {argument_name(name) for name in pairs[::2]} == OF_AWS[namespace][1], each


@SIDES
def test_dimensions_are_of_what_there_is(side: str, stack: Side) -> None:
    """They are made of given names, since alarms come first: these are what the stack calls its parts."""
    resources = stack(side)
    cluster = of_kind(resources, "aws_ecs_cluster")["ecs-main"]["name"]
    services = {each["name"] for each in of_kind(resources, "aws_ecs_service").values()}
    database = of_kind(resources, "aws_db_instance")["rds-primary"]["identifier"]
    cache = of_kind(resources, "aws_elasticache_replication_group")["elasticache-main"]
    ends = nodes(int(cache["num_node_group"]), int(cache["replicas_per_node_group"]))
    seen = set()
    for alarm in alarms(resources).values():
        for each in asked(alarm):
            of = each["dimension"]
            seen |= of.keys()
            assert of.get("cluster_name", cluster) == cluster
            assert {of[key] for key in ("service_name", "service") if key in of} <= services
            assert of.get("dbinstance_identifier", database) == database
            node = of.get("cache_cluster_id")
            assert node is None or node in {f"{cache['replication_group_id']}-{end}" for end in ends}
    assert seen >= {"cluster_name", "service_name", "service", "dbinstance_identifier", "cache_cluster_id"}


def test_nodes_are_called_as_elasticache_calls_them() -> None:
    assert nodes(2, 1) == ["0001-001", "0001-002", "0002-001", "0002-002"]


@SIDES
def test_a_group_that_is_empty_is_no_alarm(side: str, stack: Side) -> None:
    """CodeDeploy moves between blue and green; the one that has more healthy hosts counts, and none in both is told."""
    resources = stack(side)
    groups = of_kind(resources, "aws_lb_target_group").keys()
    watched = set()
    for service in {each["name"] for each in of_kind(resources, "aws_ecs_service").values()} - {"worker"}:
        alarm = alarms(resources)[f"{service}-no-healthy-host"]
        queries = {each["id"]: each for each in alarm["metric_query"]}
        filled = ", ".join(f"FILL(hosts{n}, 0)" for n in range(len(queries) - 1))
        assert queries["value"]["expression"] == f"MAX([{filled}])"
        assert (alarm["threshold"], alarm["comparison_operator"]) == ("1", "LessThanThreshold")
        assert alarm["treat_missing_data"] == "breaching"
        of = {each["metric"]["dimension"]["target_group"] for each in queries.values() if "metric" in each}
        assert len(of) == (1 if service == "certs" else 2)
        watched |= of
    assert watched == {f"<aws_lb_target_group|{role}|arn_suffix>" for role in groups}


# Hosts of blue and green, minute by minute: healthy and unhealthy ones; None is a group without targets. Blue was there
# before; in the first minute green gets its first target.
Minutes = list[int | None]
WAITS = settings.load("production")["codedeploy"]["termination_wait_minutes"]
GOOD: Minutes = [0, 0, *(WAITS - 2) * [2]]
DEAD: Minutes = WAITS * [0]
STAYS: Minutes = WAITS * [2]
EMPTY: Minutes = WAITS * [None]
DRAINS: Minutes = [2, *6 * [0], *(WAITS - 7) * [None]]


def every(minutes: int) -> Minutes:
    """One is unhealthy for a minute, and the next after so many."""
    return [int(n % minutes == minutes - 1) for n in range(WAITS)]


def at(first: int, count: int, hosts: int = 1) -> Minutes:
    """None but in these minutes."""
    return [hosts if first <= n < first + count else 0 for n in range(WAITS)]


def sounds(alarm: Mapping[str, Any], healthy: tuple[Minutes, Minutes], unhealthy: tuple[Minutes, Minutes]) -> bool:
    """Whether it goes off at any time: CloudWatch looks every minute, at the periods that end there.

    Before the first minute a group had the healthy hosts that it has in it, if any, and nothing was said of others.
    """
    queries = {each["id"]: each for each in alarm["metric_query"]}
    formula = queries.pop("value")["expression"]
    counts = {"HealthyHostCount": healthy, "UnHealthyHostCount": unhealthy}
    assert {(each["metric"]["stat"], each["metric"]["period"]) for each in queries.values()} == {
        ("Maximum", queries["hosts0"]["metric"]["period"])
    }
    length, looked_at = int(queries["hosts0"]["metric"]["period"]) // 60, int(alarm["evaluation_period"])
    needed, limit = int(alarm.get("datapoints_to_alarm", looked_at)), int(alarm["threshold"])

    def most(key: str, begin: int) -> int | None:
        metric = queries[key]["metric"]["metric_name"]
        of = counts[metric][int(key[-1])]
        before = [n for n in of[:1] if n and begin < 0 and metric == "HealthyHostCount"]
        return max((n for n in [*before, *of[max(begin, 0) : max(begin + length, 0)]] if n is not None), default=None)

    def breaches(begin: int) -> bool:
        value = reckon(formula, {key: most(key, begin) for key in queries})
        return value > limit if alarm["comparison_operator"] == "GreaterThanThreshold" else value < limit

    return any(sum(breaches(now + 1 - length * n) for n in range(1, looked_at + 1)) >= needed for now in range(WAITS))


DEPLOYMENTS = [
    # what green does, and blue beside it; which alarms go off
    ("comes up", (STAYS, GOOD), (DEAD, DEAD), set()),
    # The worst that is known of a network load balancer: a group is asked 3 minutes after its first target alone.
    *(
        (
            f"has the traffic, and of nobody it is known for 4 minutes ({name})",
            (gone, at(4, WAITS, 2)),
            (DEAD, DEAD),
            set(),
        )
        for name, gone in (("0", at(0, 1, 2)), ("no data", [2, *(WAITS - 1) * [None]]))
    ),
    ("comes up late", (STAYS, at(3, WAITS, 2)), (DEAD, at(1, 2)), set()),
    ("is in service, and blue drains", (DRAINS, STAYS), ([*7 * [0], *(WAITS - 7) * [None]], DEAD), set()),
    ("is there alone", (EMPTY, STAYS), (EMPTY, DEAD), set()),
    # CodeDeploy leaves blue where it is; hosts of whom nothing is known are neither healthy nor unhealthy.
    ("is in service, and blue is not asked", (DEAD, STAYS), (DEAD, DEAD), set()),
    (
        "is in service, and blue, of which one was unhealthy, is not asked",
        (at(0, 2, 2), GOOD),
        (at(0, 2), DEAD),
        set(),
    ),
    # The other way round: and so would be hosts that end before they are asked, which can not be told from it.
    ("is not asked yet", (STAYS, DEAD), (DEAD, DEAD), set()),
    ("loses a task, for a minute", (STAYS, GOOD), (DEAD, at(3, 1)), set()),
    *((f"loses one in minutes {n} and {n + 1}", (STAYS, GOOD), (DEAD, at(n, 2)), set()) for n in (3, 4, 9)),
    ("is unhealthy", (STAYS, DEAD), (DEAD, STAYS), {"unhealthy-host", "group-down"}),
    # ECS takes an unhealthy one away, and the next is unhealthy some minutes later.
    ("is replaced again and again", (STAYS, DEAD), (DEAD, every(4)), {"unhealthy-host", "group-down"}),
    ("is replaced again, slowly", (STAYS, DEAD), (DEAD, every(7)), {"group-down"}),
    (
        "half of it is replaced again and again",
        (STAYS, [0, 0, *(WAITS - 2) * [1]]),
        (DEAD, every(5)),
        {"unhealthy-host"},
    ),
    ("half of it fails", (STAYS, [0, 0, *(WAITS - 2) * [1]]), (DEAD, [0, 0, *(WAITS - 2) * [1]]), {"unhealthy-host"}),
    ("and blue are down", (DEAD, DEAD), (STAYS, STAYS), {"no-healthy-host", "unhealthy-host", "group-down"}),
]


@SIDES
@pytest.mark.parametrize(
    ("healthy", "unhealthy", "heard"), [each[1:] for each in DEPLOYMENTS], ids=[each[0] for each in DEPLOYMENTS]
)
def test_old_tasks_do_not_hide_that_the_new_ones_are_dead(
    healthy: tuple[Minutes, Minutes], unhealthy: tuple[Minutes, Minutes], heard: set[str], side: str, production: Side
) -> None:
    """REQ-INFRA-ECS-006: while blue is there and well, and before it is ended, something takes the deployment back."""
    found, rows = alarms(production(side)), settings.load("production")["alarms"]
    kinds = [key for key, row in rows.items() if row["source"] == "target-groups" and row.get("rollback")]
    for service in ("submission", "submissions"):
        sounded = {key for key in kinds if sounds(found[f"{service}-{key}"], healthy, unhealthy)}
        assert sounded == heard, service


NUMBERS = {
    # name: metric, statistic, comparison, threshold, evaluations, seconds of each
    "submission-backpressure": ("BackpressureRefusals", "Sum", "GreaterThanThreshold", "0", "2", "60"),
    "certs-certificate-overdue": ("CertificateOverdue", "Maximum", "GreaterThanThreshold", "43200", "1", "3600"),
    "worker-backlog-age": ("BacklogAge", "Maximum", "GreaterThanThreshold", "600", "5", "60"),
    "worker-ready-depth": ("QueueDepth", "Maximum", "GreaterThanThreshold", "40000", "2", "60"),
    "worker-no-task": ("RunningTaskCount", "Maximum", "LessThanThreshold", "1", "3", "60"),
    "database-storage": ("FreeStorageSpace", "Minimum", "LessThanThreshold", str(8 * 1024**3), "5", "60"),
    "database-connections": ("DatabaseConnections", "Maximum", "GreaterThanThreshold", "765", "5", "60"),
    "cache-evictions-0001-003": ("Evictions", "Sum", "GreaterThanThreshold", "0", "1", "300"),
}


@SIDES
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str, side: str, production: Side) -> None:
    """REQ-INFRA-SCALE-007, REQ-INFRA-TLS-006: 421 is told, and so is a certificate that was not renewed in time."""
    alarm = alarms(production(side))[name]
    keys = ("metric_name", "statistic", "comparison_operator", "threshold", "evaluation_period", "period")
    assert tuple(alarm[key] for key in keys) == NUMBERS[name]


@SIDES
def test_a_share_of_few_attempts_is_no_alarm(side: str, production: Side) -> None:
    queries = {each["id"]: each for each in alarms(production(side))["worker-delivery-failures"]["metric_query"]}
    assert queries["value"]["expression"] == "IF(attempts >= 20, 100 * (failed + unknown) / attempts, 0)"
    assert {key: each["metric"]["metric_name"] for key, each in queries.items() if "metric" in each} == {
        "attempts": "AttemptsMade",
        "failed": "MessagesFailed",
        "unknown": "MessagesUnknown",
    }


@SIDES
def test_who_may_publish(side: str, stack: Side) -> None:
    """CloudWatch and Budgets for this account alone, and whatever they publish is encrypted by a key they may use."""
    resources = stack(side)
    topic = of_kind(resources, "aws_sns_topic")["cloudwatch-alerts"]
    assert topic["kms_master_key_id"].endswith("<aws_kms_key|cloudwatch-main|arn>")
    key = of_kind(resources, "aws_kms_key")["cloudwatch-main"]["policy"]["Statement"]
    policy = of_kind(resources, "aws_sns_topic_policy")["cloudwatch-alerts"]["policy"]["Statement"]
    ours = {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    for statements, actions in ((policy, {"sns:Publish"}), (key, {"kms:Decrypt", "kms:GenerateDataKey*"})):
        of_services = [each for each in statements if each["Sid"] != "Account"]
        assert {each["Principal"]["Service"] for each in of_services} == {
            "cloudwatch.amazonaws.com",
            "budgets.amazonaws.com",
        }
        assert all(each["Condition"] == ours for each in of_services)
        assert all(set(as_list(each["Action"])) == actions for each in of_services)
    assert {each["Sid"] for each in policy} == {"cloudwatch", "budgets"}


@SIDES
def test_people_are_told(side: str, switched: Side) -> None:
    people = {"operators@example.com", "on-call@example.com"}
    found = of_kind(switched(side), "aws_sns_topic_subscription").values()
    assert {(each["protocol"], each["endpoint"], each["topic"]) for each in found} == {
        ("email", address, TOPIC) for address in people
    }
    (budget,) = of_kind(switched(side), "aws_budgets_budget").values()
    # argument_name takes the last s
    assert all(set(each["subscriber_email_addresse"]) == people for each in budget["notification"])
    assert budget["cost_filter"] == {"name": "TagKeyValue", "value": "user:Environment$dev"}


@SIDES
def test_costs_are_told(side: str, production: Side) -> None:
    (budget,) = of_kind(production(side), "aws_budgets_budget").values()
    assert (budget["limit_amount"], budget["limit_unit"], budget["time_unit"]) == ("1200", "USD", "MONTHLY")
    assert {(each["notification_type"], each["threshold"]) for each in budget["notification"]} == {
        ("ACTUAL", "80"),
        ("FORECASTED", "100"),
    }
    assert all(each["subscriber_sns_topic_arn"] == TOPIC for each in budget["notification"])
    assert "cost_filter" not in budget


@SIDES
def test_the_dashboard_shows_every_alarm_and_overlaps_nowhere(side: str, stack: Side) -> None:
    found = widgets(stack(side))
    (listed,) = (each["properties"]["alarms"] for each in found if each["type"] == "alarm")
    roles = of_kind(stack(side), "aws_cloudwatch_metric_alarm")
    assert {arn.split("|")[1] for arn in listed} == {role for role in roles if role.startswith("cloudwatch-")}
    places = {
        (x, y)
        for each in found
        for x in range(int(each["x"]), int(each["x"]) + int(each["width"]))
        for y in range(int(each["y"]), int(each["y"]) + int(each["height"]))
    }
    assert len(places) == sum(int(each["width"]) * int(each["height"]) for each in found)
    assert max(x for x, _ in places) < 24
    titles = [each["properties"]["title"] for each in found]
    assert len(set(titles)) == len(titles) == 1 + len(settings.load("dev")["charts"]["widgets"])


def test_a_line_of_a_chart_is_in_the_order_that_cloudwatch_wants() -> None:
    """Namespace, metric, name and value of each dimension."""
    of = Series("AWS/ECS", {"ServiceName": "worker", "ClusterName": "mail"})
    assert line(of, "CPUUtilization") == ["AWS/ECS", "CPUUtilization", "ClusterName", "mail", "ServiceName", "worker"]


def test_without_container_insights_nobody_counts_tasks() -> None:
    found = targets("mail", ["worker"], container_insights=False, balanced={}, cache_nodes=["0001-001"])
    assert found["container-insights"] == {}
    assert found["ecs"] != {}
