"""PostgreSQL, its budget, and RDS Proxy where it is switched on: the twin of terraform/modules/rds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from . import policies
from .settings import require

LOGS = ("postgresql", "upgrade")
ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class RdsSettings:
    """Section rds of stack.yaml: GiB, days, and seconds unless the name says otherwise."""

    engine_version: str
    parameter_family: str
    instance_class: str
    allocated_storage: int
    max_allocated_storage: int
    storage_type: str
    database_name: str
    master_username: str
    owner_role: str
    app_username: str
    proxy_username: str
    proxy_secret_recovery_days: int
    services_read_master: bool
    max_connections: int
    idle_in_transaction_timeout_ms: int
    log_min_duration_ms: int
    multi_az: bool
    replica: bool  # false; `settings.load` refuses true, and says why
    proxy: bool
    proxy_max_connections_percent: int
    proxy_idle_client_timeout: int
    backup_retention_days: int
    backup_window: str
    maintenance_window: str
    performance_insights_retention_days: int
    monitoring_interval: int
    deletion_protection: bool
    skip_final_snapshot: bool
    log_retention_days: int

    def __post_init__(self) -> None:
        """Raises: BadSettings, where terraform/modules/rds/variables.tf refuses the same."""
        made = (self.owner_role, self.app_username, self.proxy_username)
        require(
            all(ROLE.fullmatch(role) for role in made) and len({self.master_username, *made}) == 1 + len(made),
            "rds.master_username, owner_role, app_username and proxy_username are four roles, of lower-case letters, "
            "digits and underscores.",
        )
        require(
            self.performance_insights_retention_days == 7,
            "rds.performance_insights_retention_days must be 7: longer ones are paid for, and RDS may refuse them "
            "since Database Insights takes the place of Performance Insights.",
        )


@dataclass(frozen=True, kw_only=True)
class RdsArgs:
    """Where the database stands, and its settings."""

    name: str
    port: int
    subnet_ids: Sequence[pulumi.Input[str]]
    security_group_ids: Sequence[pulumi.Input[str]]
    settings: RdsSettings


class Rds(pulumi.ComponentResource):
    """Outputs: endpoints, identifiers, RDS's own secret and its proxy's. No state holds a password."""

    def __init__(self, name: str, args: RdsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("smtp-proxy:infra:Rds", name, None, opts)
        self._name, self._args, self._settings = name, args, args.settings
        self._child = pulumi.ResourceOptions(parent=self)
        self._keys_and_access()
        self._parameters()
        self._primary = self._make_primary()
        self.secret_arn: pulumi.Output[str] = self._primary.master_user_secrets[0].secret_arn
        self.kms_key_arn = self._key.arn
        self.identifier = self._primary.identifier
        self.resource_id = self._primary.resource_id
        self.direct_endpoint = self._primary.address
        self.endpoint: pulumi.Output[str] = self._primary.address
        self.proxy_resource_id: pulumi.Input[str] = ""
        self.proxy_secret_arn: pulumi.Input[str] = ""
        if args.settings.proxy:
            self._make_proxy()
        self.register_outputs({"endpoint": self.endpoint})

    def _keys_and_access(self) -> None:
        name, args = self._name, self._args
        self._key = aws.kms.Key(
            f"{name}-main",
            description=f"{args.name}: PostgreSQL at rest, its master password, Performance Insights",
            enable_key_rotation=True,
            # The longest there is: without the key no snapshot can be restored, and this is for how long it can be had
            # back.
            deletion_window_in_days=30,
            opts=self._child,
        )
        aws.kms.Alias(f"{name}-main", name=f"alias/{args.name}-rds", target_key_id=self._key.key_id, opts=self._child)
        self._monitoring = aws.iam.Role(
            f"{name}-monitoring",
            name=f"{args.name}-rds-monitoring",
            assume_role_policy=policies.trust("monitoring.rds.amazonaws.com"),
            opts=self._child,
        )
        self._may_monitor = aws.iam.RolePolicyAttachment(
            f"{name}-monitoring",
            role=self._monitoring.name,
            policy_arn="arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole",
            opts=self._child,
        )

    def _parameters(self) -> None:
        name, args, of = self._name, self._args, self._settings
        self._subnets = aws.rds.SubnetGroup(
            f"{name}-main",
            name=args.name,
            description="Networks without a way out",
            subnet_ids=args.subnet_ids,
            opts=self._child,
        )

        def parameter(key: str, value: object, apply_method: str = "immediate") -> aws.rds.ParameterGroupParameterArgs:
            return aws.rds.ParameterGroupParameterArgs(name=key, value=str(value), apply_method=apply_method)

        self._group = aws.rds.ParameterGroup(
            f"{name}-main",
            name=f"{args.name}-{of.parameter_family}",
            family=of.parameter_family,
            description="The connection budget, TLS alone, and what is logged",
            parameters=[
                parameter("max_connections", of.max_connections, "pending-reboot"),
                parameter("rds.force_ssl", 1),
                # A 250 is spoken after the commit; the commit has reached the disk.
                parameter("synchronous_commit", "on"),
                parameter("idle_in_transaction_session_timeout", of.idle_in_transaction_timeout_ms),
                parameter("log_min_duration_statement", of.log_min_duration_ms),
                # Parameters of statements are logged by nothing: they hold mail.
                parameter("log_parameter_max_length", 0),
                parameter("log_parameter_max_length_on_error", 0),
            ],
            opts=self._child,
        )
        # RDS would make them itself, to be kept for ever.
        self._logs = [
            aws.cloudwatch.LogGroup(
                f"{name}-postgresql-{log}",
                name=f"/aws/rds/instance/{args.name}/{log}",
                retention_in_days=of.log_retention_days,
                opts=self._child,
            )
            for log in LOGS
        ]

    def _make_primary(self) -> aws.rds.Instance:
        """The final snapshot is called after its key, which is another each time the stack is made.

        RDS refuses a name that a snapshot of an earlier time has.
        """
        args, of = self._args, self._settings
        return aws.rds.Instance(
            f"{self._name}-primary",
            identifier=args.name,
            engine="postgres",
            engine_version=of.engine_version,
            auto_minor_version_upgrade=True,
            instance_class=of.instance_class,
            allocated_storage=of.allocated_storage,
            max_allocated_storage=of.max_allocated_storage,
            storage_type=of.storage_type,
            storage_encrypted=True,
            kms_key_id=self._key.arn,
            db_name=of.database_name,
            username=of.master_username,
            manage_master_user_password=True,
            master_user_secret_kms_key_id=self._key.key_id,
            iam_database_authentication_enabled=True,
            port=args.port,
            multi_az=of.multi_az,
            publicly_accessible=False,
            db_subnet_group_name=self._subnets.name,
            vpc_security_group_ids=args.security_group_ids,
            parameter_group_name=self._group.name,
            ca_cert_identifier="rds-ca-rsa2048-g1",
            backup_retention_period=of.backup_retention_days,
            backup_window=of.backup_window,
            maintenance_window=of.maintenance_window,
            copy_tags_to_snapshot=True,
            delete_automated_backups=False,
            deletion_protection=of.deletion_protection,
            skip_final_snapshot=of.skip_final_snapshot,
            final_snapshot_identifier=pulumi.Output.concat(args.name, "-final-", self._key.key_id),
            enabled_cloudwatch_logs_exports=list(LOGS),
            performance_insights_enabled=True,
            performance_insights_kms_key_id=self._key.arn,
            performance_insights_retention_period=of.performance_insights_retention_days,
            monitoring_interval=of.monitoring_interval,
            monitoring_role_arn=self._monitoring.arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*self._logs, self._may_monitor]),
        )

    def _make_proxy(self) -> None:
        """Tasks log in to it by IAM, and it to Postgres as a role with a password."""
        name, args, of = self._name, self._args, self._settings
        # Made without a value, so that no state holds one: `smtp-proxy migrate` makes the password up.
        secret = aws.secretsmanager.Secret(
            f"{name}-proxy",
            name=f"{args.name}/database-proxy",
            description=f"What RDS Proxy logs in to Postgres with, as {of.proxy_username}",
            kms_key_id=self._key.arn,
            recovery_window_in_days=of.proxy_secret_recovery_days,
            opts=self._child,
        )
        role = aws.iam.Role(
            f"{name}-proxy",
            name=f"{args.name}-rds-proxy",
            assume_role_policy=policies.trust("rds.amazonaws.com"),
            opts=self._child,
        )
        aws.iam.RolePolicy(
            f"{name}-proxy",
            name="read-password",
            role=role.id,
            policy=policies.policy(
                policies.allow(["secretsmanager:GetSecretValue"], [secret.arn]),
                policies.allow(["kms:Decrypt"], [self._key.arn]),
            ),
            opts=self._child,
        )
        proxy = aws.rds.Proxy(
            f"{name}-main",
            name=args.name,
            engine_family="POSTGRESQL",
            require_tls=True,
            idle_client_timeout=of.proxy_idle_client_timeout,
            role_arn=role.arn,
            vpc_subnet_ids=args.subnet_ids,
            vpc_security_group_ids=args.security_group_ids,
            auths=[aws.rds.ProxyAuthArgs(auth_scheme="SECRETS", iam_auth="REQUIRED", secret_arn=secret.arn)],
            opts=self._child,
        )
        group = aws.rds.ProxyDefaultTargetGroup(
            f"{name}-main",
            db_proxy_name=proxy.name,
            connection_pool_config=aws.rds.ProxyDefaultTargetGroupConnectionPoolConfigArgs(
                max_connections_percent=of.proxy_max_connections_percent
            ),
            opts=self._child,
        )
        aws.rds.ProxyTarget(
            f"{name}-main",
            db_proxy_name=proxy.name,
            target_group_name=group.name,
            db_instance_identifier=self._primary.identifier,
            opts=self._child,
        )
        self.endpoint = proxy.endpoint
        # What rds-db:connect calls it: the end of its ARN.
        self.proxy_resource_id = proxy.arn.apply(lambda arn: arn.rpartition(":")[2])
        self.proxy_secret_arn = secret.arn
