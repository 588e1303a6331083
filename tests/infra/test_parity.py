"""terraform/ and pulumi/ describe the same stack: every resource, every argument, everything it refers to.

REQ-INFRA-ECS-002: what Terraform makes is what is reviewed, whichever tool is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fix_infra import ROOT, SWITCHED_ON, Edits, pulumi_side, terraform_side, tree
from infra_graph.canonical import Resource, differences

# Terraform starts the provider (some 700 MB) for each plan; the first test also waits for what the fixture renders, and
# on a busy machine the two together take longer than the 120 s that other tests have.
pytestmark = pytest.mark.timeout(600)

Side = Callable[[str], list[Resource]]

# Differences that are meant, each with its reason: the beginning of the line, and why. None so far.
ALLOWED: dict[str, str] = {}


def unexplained(terraform: list[Resource], pulumi: list[Resource]) -> list[str]:
    return [line for line in differences(terraform, pulumi) if not line.startswith(tuple(ALLOWED))]


def test_production_is_the_same_on_both_sides(production: Side) -> None:
    assert unexplained(production("terraform"), production("pulumi")) == []


def test_every_allowed_difference_is_there(production: Side) -> None:
    lines = list(differences(production("terraform"), production("pulumi")))
    assert [start for start in ALLOWED if not any(line.startswith(start) for line in lines)] == []


def test_dev_with_the_switches_turned_is_the_same(switched: Side) -> None:
    left, right = switched("terraform"), switched("pulumi")
    assert {each.name for each in left} >= SWITCHED_ON
    assert unexplained(left, right) == []


def test_nothing_is_compared_with_nothing(production: Side) -> None:
    """References are followed: through modules, through policies, to what only AWS knows."""
    of = {each.name: each for each in production("terraform")}
    assert len(of) > 100
    primary = of["aws_db_instance rds-primary"]
    assert {
        "aws_security_group vpc-role-database",
        "aws_kms_key rds-main",
        "aws_db_subnet_group rds-main",
    } <= primary.dependencies
    assert "aws_iam_role_policy_attachment rds-monitoring" in primary.dependencies
    assert "aws_cloudwatch_log_group vpc-flow" in of["aws_iam_role_policy vpc-flow"].dependencies
    assert of["aws_route vpc-private-b"].arguments["nat_gateway_id"] == "<aws_nat_gateway|vpc-main-b|id>"


DRIFTS: list[tuple[str, Edits, str]] = [
    (
        "a threshold",
        {"pulumi/smtp_proxy_infra/rds.py": [('parameter("rds.force_ssl", 1)', 'parameter("rds.force_ssl", 0)')]},
        "aws_db_parameter_group rds-main: parameter: ",
    ),
    (
        "a resource left out",
        {"pulumi/smtp_proxy_infra/vpc.py": [("        self._flow_logs()\n", "")]},
        "aws_flow_log vpc-main: only in terraform",
    ),
    (
        "a security group opened",
        {"pulumi/smtp_proxy_infra/vpc.py": [('if peer == "world" else', 'if peer in ("world", "api") else')]},
        'aws_vpc_security_group_ingress_rule vpc-rule-database-api: cidr_ipv4: terraform null, pulumi "0.0.0.0/0"',
    ),
    (
        "another network of the same kind",
        {"pulumi/smtp_proxy_infra/vpc.py": [("subnet_id=self._public[zone].id", "subnet_id=self._private[zone].id")]},
        "aws_nat_gateway vpc-main-a: subnet_id: ",
    ),
    (
        "health asked elsewhere",
        {"pulumi/smtp_proxy_infra/nlb.py": [('port=str(self._args.ports["health"])', 'port="traffic-port"')]},
        "aws_lb_target_group nlb-smtp-submission-green: health_check: ",
    ),
    (
        "a way back that is shorter",
        {
            "pulumi/smtp_proxy_infra/codedeploy.py": [
                ("termination_wait_time_in_minutes=of.termination_wait_minutes", "termination_wait_time_in_minutes=1")
            ]
        },
        "aws_codedeploy_deployment_group codedeploy-service-submission: blue_green_deployment_config: ",
    ),
    (
        "the deployer's changes undone",
        {"pulumi/smtp_proxy_infra/nlb.py": [('ignore_changes=["defaultActions"]', "ignore_changes=[]")]},
        "aws_lb_listener nlb-smtp-submission: ignores changes: terraform ['default_action'], pulumi []",
    ),
    (
        "a group that is on no listener",
        {
            "pulumi/smtp_proxy_infra/nlb.py": [
                ("for service, colour in self._groups]", 'for service, colour in self._groups if colour == "blue"]')
            ]
        },
        "aws_lb_listener nlb-always-submission-green: only in terraform",
    ),
    (
        "a service that does not wait for its listener",
        {"pulumi/smtp_proxy_infra/nlb.py": [("after(group.arn, *listeners)", "group.arn")]},
        "aws_ecs_service ecs-blue-green-submission: waits for aws_lb_listener nlb-acme, aws_lb_listener nlb-always-",
    ),
    (
        "a command turned around",
        {
            "pulumi/smtp_proxy_infra/ecs_tasks.py": [
                ('"command": list(settings.command),', '"command": list(reversed(settings.command)),')
            ]
        },
        "aws_ecs_task_definition ecs-main-certs: container_definition: ",
    ),
    (
        "green in the place of blue",
        {
            "pulumi/smtp_proxy_infra/codedeploy.py": [
                ("for name in reached.target_group_names", "for name in reversed(reached.target_group_names)")
            ]
        },
        "aws_codedeploy_deployment_group codedeploy-service-submission: load_balancer_info: ",
    ),
    (
        "a chart of something else",
        {
            "pulumi/smtp_proxy_infra/cloudwatch_dashboard.py": [
                ("return [series.namespace, metric,", "return [metric, series.namespace,")
            ]
        },
        "aws_cloudwatch_dashboard cloudwatch-main: dashboard_body: ",
    ),
    (
        "an order forgotten",
        {
            "pulumi/smtp_proxy_infra/rds.py": [
                ("depends_on=[*self._logs, self._may_monitor]", "depends_on=[*self._logs]")
            ]
        },
        "aws_db_instance rds-primary: waits for aws_iam_role_policy_attachment rds-monitoring only in terraform",
    ),
    (
        "a threshold of scaling",
        {
            "pulumi/smtp_proxy_infra/ecs_scaling.py": [
                ("            threshold=of.cpu_in_percent,", "            threshold=of.cpu_in_percent + 5,")
            ]
        },
        'aws_cloudwatch_metric_alarm ecs-cpu-in-submission: threshold: terraform "30", pulumi "35"',
    ),
    (
        "a second policy that takes tasks away",
        {"pulumi/smtp_proxy_infra/ecs_scaling.py": [("disable_scale_in=True", "disable_scale_in=False")]},
        "aws_appautoscaling_policy ecs-backlog-worker: target_tracking_scaling_policy_configuration: ",
    ),
    (
        "a maximum",
        {
            "pulumi/smtp_proxy_infra/ecs_scaling.py": [
                ("max_capacity=settings.max_tasks,", "max_capacity=settings.max_tasks * 2,")
            ]
        },
        'aws_appautoscaling_target ecs-main-worker: max_capacity: terraform "10", pulumi "20"',
    ),
    (
        "an alarm left out",
        {
            "pulumi/smtp_proxy_infra/cloudwatch.py": [
                (
                    "            for target, series in",
                    '            if key == "backlog-age":\n                continue\n            for target, series in',
                )
            ]
        },
        "aws_cloudwatch_metric_alarm cloudwatch-metric-worker-backlog-age: only in terraform",
    ),
    (
        "a threshold of an alarm",
        {
            "pulumi/smtp_proxy_infra/cloudwatch_settings.py": [
                ("said * wholes[self.percent_of] / 100", "said * wholes[self.percent_of] / 50")
            ]
        },
        'aws_cloudwatch_metric_alarm cloudwatch-metric-worker-ready-depth: threshold: terraform "40000", pulumi "8',
    ),
    (
        "an alarm that tells nobody",
        {
            "pulumi/smtp_proxy_infra/cloudwatch_alarms.py": [
                ("            ok_actions=[self._topic],\n            opts", "            opts")
            ]
        },
        "aws_cloudwatch_metric_alarm cloudwatch-metric-database-cpu: ok_action: ",
    ),
    (
        "a chart of another statistic",
        {"pulumi/smtp_proxy_infra/cloudwatch_dashboard.py": [('"stat": chart.statistic', '"stat": "Average"')]},
        "aws_cloudwatch_dashboard cloudwatch-main: dashboard_body: ",
    ),
    (
        "a topic that any account may publish to",
        {
            "pulumi/smtp_proxy_infra/cloudwatch.py": [
                ('            "Condition": {"StringEquals": {"aws:SourceAccount": self._args.account_id}},\n', "")
            ]
        },
        "aws_sns_topic_policy cloudwatch-alerts: policy: ",
    ),
    (
        "a policy without a name that AWS knows",
        {"pulumi/smtp_proxy_infra/policies.py": [('"Action": list(actions)', '"Actions": list(actions)')]},
        "aws_iam_role_policy ecs-task-certs: policy: ",
    ),
    (
        "a command by a name that ECS does not know",
        {
            "pulumi/smtp_proxy_infra/ecs_tasks.py": [
                ('"command": list(settings.command),', '"commands": list(settings.command),')
            ]
        },
        "aws_ecs_task_definition ecs-main-certs: container_definition: ",
    ),
    (
        "a secret in an environment",
        {
            "pulumi/smtp_proxy_infra/ecs_tasks.py": [
                ('"METRICS_SERVICE": service,', '"METRICS_SERVICE": service, "DB_PASSWORD": "x",')
            ]
        },
        "aws_ecs_task_definition ecs-main-certs: container_definition: ",
    ),
]


PUBLIC_350 = '["${each.key}_public"]\n  tcp_idle_timeout_seconds = 350'


@pytest.mark.parametrize(("edits", "said"), [drift[1:] for drift in DRIFTS], ids=[drift[0] for drift in DRIFTS])
def test_a_drift_of_pulumi_is_noticed(edits: Edits, said: str, production: Side, tmp_path: Path) -> None:
    lines = unexplained(production("terraform"), pulumi_side(tree(tmp_path / "tree", edits), "production"))
    assert [line for line in lines if line.startswith(said)], lines


def test_drifts_of_terraform_are_noticed(production: Side, tmp_path: Path) -> None:
    main = (ROOT / "terraform/modules/vpc/main.tf").read_text()
    flow_log = main[main.index('resource "aws_flow_log"') :]
    ingress = main[
        main.index('resource "aws_vpc_security_group_ingress_rule"') : main.index(
            'resource "aws_vpc_security_group_egress_rule"'
        )
    ]
    opened = ingress.replace('each.value.peer == "world" ?', 'contains(["world", "smtp"], each.value.peer) ?').replace(
        'contains(["world", "s3"], each.value.peer) ? null', 'contains(["world", "s3", "smtp"], each.value.peer) ? null'
    )
    assert opened != ingress
    edits: Edits = {
        "terraform/modules/vpc/main.tf": [
            ("retention_in_days = var.settings.flow_log_retention_days", "retention_in_days = 7"),
            (flow_log, ""),
            (ingress, opened),
        ],
        "terraform/modules/nlb/main.tf": [
            ('["${each.key}_public"]\n  tcp_idle_timeout_seconds = var.settings.idle_timeout_seconds', PUBLIC_350)
        ],
        "terraform/modules/cloudwatch/main.tf": [
            ("for key, alarm in var.alarms : {", 'for key, alarm in var.alarms : key == "backlog-age" ? {} : {'),
            ("var.wholes[alarm.percent_of] / 100)", "var.wholes[alarm.percent_of] / 50)"),
        ],
    }
    root = tree(tmp_path / "tree", edits)
    lines = unexplained(terraform_side(root, tmp_path, "production"), production("pulumi"))
    assert 'aws_cloudwatch_log_group vpc-flow: retention_in_day: terraform "7", pulumi "30"' in lines
    assert "aws_flow_log vpc-main: only in pulumi" in lines
    rules = {line.split(":")[0] for line in lines if line.startswith("aws_vpc_security_group_ingress_rule")}
    assert rules == {
        f"aws_vpc_security_group_ingress_rule vpc-rule-{name}-smtp" for name in ("database", "cache", "endpoints")
    }
    assert [line for line in lines if line.startswith("aws_lb_listener")] == [
        f'aws_lb_listener nlb-smtp-{service}: tcp_idle_timeout_second: terraform "350", pulumi "660"'
        for service in ("submission", "submissions")
    ]
    assert "aws_cloudwatch_metric_alarm cloudwatch-metric-worker-backlog-age: only in pulumi" in lines
    alarms = [line for line in lines if line.startswith("aws_cloudwatch_metric_alarm") and ": threshold: " in line]
    assert {line.split(": ")[0].rpartition("-metric-")[2] for line in alarms} == {
        "worker-ready-depth",
        "database-storage",
        "database-connections",
    }
    lines = [
        line for line in lines if not line.startswith(("aws_cloudwatch_metric", "aws_cloudwatch_dash"))
    ]  # the dashboard lists the alarms, too
    assert len(lines) == 2 + 2 + 3 * 3  # of each rule: its network, its group, and what it waits for
