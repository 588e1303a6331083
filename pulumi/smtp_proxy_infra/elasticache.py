"""Valkey or Redis in cluster mode, with logins by IAM: the twin of terraform/modules/elasticache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

# Nothing that rules the node itself, and no command that walks all keys.
ACCESS = "on ~* &* +@all -@admin -@dangerous +info +cluster|slots +cluster|shards +cluster|nodes"


@dataclass(frozen=True, kw_only=True)
class ElastiCacheArgs:
    """Where the cache stands, and section elasticache of stack.yaml; days."""

    name: str
    port: int
    subnet_ids: Sequence[pulumi.Input[str]]
    security_group_ids: Sequence[pulumi.Input[str]]
    engine: str
    engine_version: str
    parameter_family: str
    node_type: str
    node_groups: int
    replicas_per_node_group: int
    maxmemory_policy: str
    snapshot_retention_days: int
    snapshot_window: str
    maintenance_window: str
    log_retention_days: int


class ElastiCache(pulumi.ComponentResource):
    """Outputs: the configuration endpoint, and what policies and alarms name."""

    def __init__(self, name: str, args: ElastiCacheArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("smtp-proxy:infra:ElastiCache", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._make_key()
        self._logins()
        self._group = self._make_group()
        self.endpoint = self._group.configuration_endpoint_address
        self.replication_group_id = self._group.replication_group_id
        self.replication_group_arn = self._group.arn
        self.user_id = self._tasks.user_id
        self.user_arn = self._tasks.arn
        self.register_outputs({"endpoint": self.endpoint})

    def _make_key(self) -> None:
        name, args = self._name, self._args
        self._key = aws.kms.Key(
            f"{name}-main",
            description=f"{args.name}: the cache at rest",
            enable_key_rotation=True,
            deletion_window_in_days=30,
            opts=self._child,
        )
        aws.kms.Alias(
            f"{name}-main", name=f"alias/{args.name}-elasticache", target_key_id=self._key.key_id, opts=self._child
        )

    def _logins(self) -> None:
        """By IAM: tokens of 15 minutes signed with the task role, so that there is no password to keep or to find."""
        name, args = self._name, self._args
        self._tasks = aws.elasticache.User(
            f"{name}-tasks",
            user_id=f"{args.name}-tasks",  # the name must be the id
            user_name=f"{args.name}-tasks",
            engine=args.engine,
            access_string=ACCESS,
            authentication_mode=aws.elasticache.UserAuthenticationModeArgs(type="iam"),
            opts=self._child,
        )
        users = [self._tasks.user_id]
        # Redis has a user `default` in every group, who needs no password unless replaced: this one may do nothing.
        if args.engine == "redis":
            users.append(
                aws.elasticache.User(
                    f"{name}-default",
                    user_id=f"{args.name}-default",
                    user_name="default",
                    engine="redis",
                    access_string="off -@all",
                    authentication_mode=aws.elasticache.UserAuthenticationModeArgs(type="no-password-required"),
                    opts=self._child,
                ).user_id
            )
        self._users = aws.elasticache.UserGroup(
            f"{name}-main", user_group_id=args.name, engine=args.engine, user_ids=users, opts=self._child
        )

    def _make_group(self) -> aws.elasticache.ReplicationGroup:
        name, args = self._name, self._args
        subnets = aws.elasticache.SubnetGroup(
            f"{name}-main",
            name=args.name,
            description="Networks without a way out",
            subnet_ids=args.subnet_ids,
            opts=self._child,
        )
        parameters = aws.elasticache.ParameterGroup(
            f"{name}-main",
            name=f"{args.name}-{args.parameter_family}",
            family=args.parameter_family,
            description="Cluster mode, and nothing is evicted",
            parameters=[
                aws.elasticache.ParameterGroupParameterArgs(name="cluster-enabled", value="yes"),
                aws.elasticache.ParameterGroupParameterArgs(name="maxmemory-policy", value=args.maxmemory_policy),
            ],
            opts=self._child,
        )
        slow = aws.cloudwatch.LogGroup(
            f"{name}-slow",
            name=f"/{args.name}/elasticache-slow",
            retention_in_days=args.log_retention_days,
            opts=self._child,
        )
        return aws.elasticache.ReplicationGroup(
            f"{name}-main",
            replication_group_id=args.name,
            description="The stream email-processing: ids of mail that is ready",
            engine=args.engine,
            engine_version=args.engine_version,
            # The version is a whole one here: where AWS has gone on to the next, this program asks for an older one,
            # and the provider makes that of a new cache.
            auto_minor_version_upgrade=False,
            node_type=args.node_type,
            num_node_groups=args.node_groups,
            replicas_per_node_group=args.replicas_per_node_group,
            parameter_group_name=parameters.name,
            port=args.port,
            subnet_group_name=subnets.name,
            security_group_ids=args.security_group_ids,
            user_group_ids=[self._users.user_group_id],
            at_rest_encryption_enabled=True,
            kms_key_id=self._key.arn,
            transit_encryption_enabled=True,
            transit_encryption_mode="required",
            automatic_failover_enabled=True,
            multi_az_enabled=True,
            snapshot_retention_limit=args.snapshot_retention_days,
            snapshot_window=args.snapshot_window,
            maintenance_window=args.maintenance_window,
            log_delivery_configurations=[
                aws.elasticache.ReplicationGroupLogDeliveryConfigurationArgs(
                    destination=slow.name,
                    destination_type="cloudwatch-logs",
                    log_format="json",
                    log_type="slow-log",
                )
            ],
            opts=self._child,
        )
