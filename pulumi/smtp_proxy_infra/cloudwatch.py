"""Who is told, and of what: the twin of terraform/modules/cloudwatch.

In parts: cloudwatch_settings (the tables of stack.yaml), cloudwatch_alarms, cloudwatch_dashboard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from . import policies
from .cloudwatch_alarms import Alarms, Balanced, nodes, targets
from .cloudwatch_dashboard import body
from .cloudwatch_settings import AlarmSettings, BudgetSettings, Chart, require_addresses
from .order import after

# Services of AWS that publish, of this account alone. The issuer does too, by its role.
PUBLISHERS = ("cloudwatch", "budgets")


@dataclass(frozen=True, kw_only=True)
class CloudWatchArgs:
    """What there is to watch, and sections alarms, charts and budget of stack.yaml.

    `name` is also what the cluster, the database and the cache are called, which are the dimensions of their metrics.
    `wholes`: what thresholds with percent_of are parts of (connections, bytes, messages).
    """

    name: str
    environment: str
    region: str
    account_id: str
    alert_emails: Sequence[str]
    services: Sequence[str]
    container_insights: bool
    balanced: Mapping[str, Balanced]
    node_groups: int
    replicas_per_node_group: int
    wholes: Mapping[str, float]
    alarms: Mapping[str, AlarmSettings]
    charts: Sequence[Chart]
    budget: BudgetSettings

    def __post_init__(self) -> None:
        """Raises: BadSettings."""
        require_addresses(self.alert_emails)


class CloudWatch(pulumi.ComponentResource):
    """Outputs: the topic and its key, and by service the alarms that take its deployment back."""

    def __init__(self, name: str, args: CloudWatchArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("smtp-proxy:infra:CloudWatch", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._targets = targets(
            args.name,
            args.services,
            container_insights=args.container_insights,
            balanced=args.balanced,
            cache_nodes=nodes(args.node_groups, args.replicas_per_node_group),
        )
        self._make_key()
        self._make_topic()
        self._alarms = self._make_alarms()
        dashboard = aws.cloudwatch.Dashboard(
            f"{name}-main",
            dashboard_name=args.name,
            dashboard_body=body(args.charts, self._targets, [each.arn for each in self._alarms.made], args.region),
            opts=self._child,
        )
        self._make_budget()
        # Nobody publishes before the policy says who may.
        self.topic_arn = after(self._topic.arn, self._may_publish)
        self.kms_key_arn = self._key.arn
        self.alarm_names = {service: self._alarms.rollback.get(service, []) for service in args.services}
        self.dashboard_name = dashboard.dashboard_name
        self.register_outputs({"topic_arn": self.topic_arn})

    def _make_key(self) -> None:
        """The default key of SNS lets nobody but SNS use it: what CloudWatch publishes would be lost."""
        name, args = self._name, self._args
        account = {"Sid": "Account", "Principal": {"AWS": f"arn:aws:iam::{args.account_id}:root"}}
        self._key = aws.kms.Key(
            f"{name}-main",
            description=f"{args.name}: alerts",
            enable_key_rotation=True,
            deletion_window_in_days=30,
            policy=json.dumps(
                {
                    "Version": policies.VERSION,
                    "Statement": [
                        policies.allow(["kms:*"], ["*"]) | account,
                        *(self._publisher(each, ["kms:Decrypt", "kms:GenerateDataKey*"], "*") for each in PUBLISHERS),
                    ],
                }
            ),
            opts=self._child,
        )
        aws.kms.Alias(
            f"{name}-main", name=f"alias/{args.name}-alerts", target_key_id=self._key.key_id, opts=self._child
        )

    def _publisher(self, service: str, actions: Sequence[str], resource: pulumi.Input[str]) -> dict[str, Any]:
        return policies.allow(actions, [resource]) | {
            "Sid": service,
            "Principal": {"Service": f"{service}.amazonaws.com"},
            "Condition": {"StringEquals": {"aws:SourceAccount": self._args.account_id}},
        }

    def _make_topic(self) -> None:
        name, args = self._name, self._args
        self._topic = aws.sns.Topic(
            f"{name}-alerts", name=f"{args.name}-alerts", kms_master_key_id=self._key.arn, opts=self._child
        )
        self._may_publish = aws.sns.TopicPolicy(
            f"{name}-alerts",
            arn=self._topic.arn,
            policy=policies.policy(*(self._publisher(each, ["sns:Publish"], self._topic.arn) for each in PUBLISHERS)),
            opts=self._child,
        )
        for address in args.alert_emails:
            aws.sns.TopicSubscription(
                f"{name}-email-{address}",
                topic=self._topic.arn,
                protocol="email",
                endpoint=address,
                opts=self._child,
            )

    def _make_alarms(self) -> Alarms:
        args = self._args
        alarms = Alarms(self._name, prefix=args.name, topic=self._topic.arn, wholes=args.wholes, opts=self._child)
        for key, of in args.alarms.items():
            for target, series in self._targets[of.source].items():
                if of.services is None or target in of.services:
                    alarms.make(key, of, target, series)
        return alarms

    def _make_budget(self) -> None:
        args, of = self._args, self._args.budget
        notify = aws.budgets.BudgetNotificationArgs
        aws.budgets.Budget(
            f"{self._name}-monthly",
            name=f"{args.name}-monthly",
            account_id=args.account_id,
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(of.monthly_limit_usd),
            limit_unit="USD",
            cost_filters=[
                aws.budgets.BudgetCostFilterArgs(name="TagKeyValue", values=[f"user:Environment${args.environment}"])
            ]
            if of.by_tag
            else None,
            notifications=[
                notify(
                    notification_type=kind,
                    comparison_operator="GREATER_THAN",
                    threshold=percent,
                    threshold_type="PERCENTAGE",
                    subscriber_email_addresses=args.alert_emails,
                    subscriber_sns_topic_arns=[self._topic.arn],
                )
                for kind, percent in (("ACTUAL", of.actual_percent), ("FORECASTED", of.forecast_percent))
            ],
            # It is tried at once whether the topic takes what is published.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self._may_publish]),
        )
