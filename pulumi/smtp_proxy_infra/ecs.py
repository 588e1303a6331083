"""The cluster and its services: the twin of terraform/modules/ecs.

In parts: ecs_settings (numbers), ecs_storage (what outlives tasks), ecs_roles (who may do what), ecs_tasks (what runs),
ecs_scaling (how many).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pulumi
import pulumi_aws as aws

from .ecs_roles import Reach, execution_role, migrate_role, task_role
from .ecs_scaling import Balancer, Scaling, prewarm
from .ecs_settings import EcsSettings, MigrateSettings, PressureSettings, ScalingSettings, ServiceSettings
from .ecs_storage import Storage
from .ecs_tasks import VOLUMES, Cache, Database, Tasks, container, migration
from .settings import require


class Kind(NamedTuple):
    """Of a service: its security group, the port that a load balancer reaches, its target group, who deploys it."""

    group: str
    port: str | None
    target: str | None
    controller: str


# CodeDeploy takes what has a load balancer and one target group pair; worker and certs roll.
KINDS = {
    "submission": Kind("smtp", "submission", "submission", "CODE_DEPLOY"),
    "submissions": Kind("smtp", "submissions", "submissions", "CODE_DEPLOY"),
    "worker": Kind("worker", None, None, "ECS"),
    "certs": Kind("certs", "acme", "acme", "ECS"),
    "api": Kind("api", "api", "api", "CODE_DEPLOY"),
    "dashboard": Kind("dashboard", "dashboard", "dashboard", "CODE_DEPLOY"),
}


KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.+")
SES_ARN = re.compile(r"arn:aws[a-z-]*:ses:[a-z0-9-]+:[0-9]{12}:(identity|configuration-set|tenant)/[^*?\s]+")


@dataclass(frozen=True, kw_only=True)
class EcsArgs:
    """Where the services run, what they reach, and their sections of stack.yaml (those that are enabled)."""

    name: str
    account_id: str
    region: str
    vpc_id: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    security_group_ids: Mapping[str, pulumi.Input[str]]
    ports: Mapping[str, int]
    proxy_networks: Sequence[str]
    target_group_arns: Mapping[str, pulumi.Input[str]]
    database: Database
    cache: Cache
    image_version: str
    hostname: str
    zone_id: str
    smarthost_host: str
    smarthost_secret_arn: str
    smarthost_kms_key_arn: str
    ses_arns: Sequence[str]
    alerts_topic_arn: pulumi.Input[str]
    alerts_key_arn: pulumi.Input[str]
    alarm_names: Mapping[str, Sequence[pulumi.Input[str]]]
    services: Mapping[str, ServiceSettings]
    migrate: MigrateSettings
    settings: EcsSettings
    pressure: PressureSettings
    scaling: ScalingSettings
    api_balancer: Balancer | None

    def __post_init__(self) -> None:
        """Raises: BadSettings, where terraform/modules/ecs/variables.tf refuses the same."""
        require(
            self.image_version not in ("", "latest"),
            "image_version must be a tag other than latest, which says nothing, or a digest.",
        )
        require(
            {"api", "dashboard"} & self.services.keys() <= self.target_group_arns.keys(),
            "api.enabled and dashboard.enabled need alb.enabled: nobody could reach them.",
        )
        require(
            all(SES_ARN.fullmatch(arn) for arn in self.ses_arns),
            "ses_arns must be whole ARNs of SES, without wildcards: arn:aws:ses:REGION:ACCOUNT:identity/example.com "
            "(aws sesv2 list-email-identities), configuration-set/NAME or tenant/NAME/ID.",
        )
        require(
            not self.smarthost_kms_key_arn or KEY_ARN.fullmatch(self.smarthost_kms_key_arn) is not None,
            "smarthost_kms_key_arn must be the ARN of a key, not of an alias: arn:aws:kms:REGION:ACCOUNT:key/ID "
            "(aws kms describe-key).",
        )
        require(
            not self.smarthost_kms_key_arn or self.smarthost_secret_arn != "",
            "smarthost_kms_key_arn is the key of smarthost_secret_arn: name both, or neither.",
        )
        for each in self.scaling.prewarm.values():
            of = self.services.get(each["service"])
            require(
                of is not None and 1 <= each["min_tasks"] <= of.max_tasks,
                "scaling.prewarm: service must be one that is enabled, and min_tasks 1 to its max_tasks.",
            )


class Ecs(pulumi.ComponentResource):
    """Outputs: names of cluster and services, the repository, and the secret that wants a value."""

    def __init__(self, name: str, args: EcsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("smtp-proxy:infra:Ecs", name, None, opts)
        self._name, self._args, self._settings = name, args, args.settings
        self._child = pulumi.ResourceOptions(parent=self)
        self._storage = Storage(
            name, prefix=args.name, account_id=args.account_id, settings=args.settings, opts=self._child
        )
        self._make_cluster()
        self._make_names()
        self._make_roles()
        self._tasks = self._make_tasks()
        self._definitions = {service: self._define(service) for service in args.services}
        self._define_migrate()
        self._services = {service: self._serve(service) for service in args.services}
        self._scale()
        self.cluster_name = self._cluster.name
        self.service_names = {service: each.name for service, each in self._services.items()}
        self.repository_url = self._storage.repository.repository_url
        self.sealing_secret_arn = self._storage.sealing.arn
        self.task_role_arns = {service: role.arn for service, role in self._roles.items()} | {
            "execution": self._execution.arn,
            "migrate": self._migrate_role.arn,
        }
        self.log_group_names = {service: group.name for service, group in self._logs.items()}
        self.register_outputs({"cluster_name": self.cluster_name})

    def _make_cluster(self) -> None:
        name, args, of = self._name, self._args, self._settings
        # What is typed by way of ECS Exec is kept.
        self._exec = self._log("exec", "exec")
        self._logs = {service: self._log(f"service-{service}", service) for service in args.services}
        self._migrate_log = self._log("migrate", "migrate")
        self._cluster = aws.ecs.Cluster(
            f"{name}-main",
            name=args.name,
            settings=[
                aws.ecs.ClusterSettingArgs(
                    name="containerInsights", value="enabled" if of.container_insights else "disabled"
                )
            ],
            configuration=aws.ecs.ClusterConfigurationArgs(
                execute_command_configuration=aws.ecs.ClusterConfigurationExecuteCommandConfigurationArgs(
                    logging="OVERRIDE",
                    log_configuration=aws.ecs.ClusterConfigurationExecuteCommandConfigurationLogConfigurationArgs(
                        cloud_watch_log_group_name=self._exec.name
                    ),
                )
            ),
            opts=self._child,
        )
        self._capacity = aws.ecs.ClusterCapacityProviders(
            f"{name}-main",
            cluster_name=self._cluster.name,
            capacity_providers=["FARGATE", "FARGATE_SPOT"],
            default_capacity_provider_strategies=[
                aws.ecs.ClusterCapacityProvidersDefaultCapacityProviderStrategyArgs(
                    capacity_provider="FARGATE", base=1, weight=1
                )
            ],
            opts=self._child,
        )

    def _log(self, name: str, what: str) -> aws.cloudwatch.LogGroup:
        return aws.cloudwatch.LogGroup(
            f"{self._name}-{name}",
            name=f"/{self._args.name}/{what}",
            retention_in_days=self._settings.log_retention_days,
            opts=self._child,
        )

    def _make_names(self) -> None:
        """The dashboard finds the API by it; the others are found by the load balancer, or by nobody."""
        name, args = self._name, self._args
        namespace = aws.servicediscovery.PrivateDnsNamespace(
            f"{name}-main",
            name=f"{args.name}.internal",
            description="Names of services within the VPC",
            vpc=args.vpc_id,
            opts=self._child,
        )
        self._names = {
            service: aws.servicediscovery.Service(
                f"{name}-main-{service}",
                name=service,
                dns_config=aws.servicediscovery.ServiceDnsConfigArgs(
                    namespace_id=namespace.id,
                    routing_policy="MULTIVALUE",
                    dns_records=[aws.servicediscovery.ServiceDnsConfigDnsRecordArgs(type="A", ttl=10)],
                ),
                opts=self._child,
            )
            for service in args.services
            if service == "api"
        }

    def _make_roles(self) -> None:
        args, kept = self._args, self._storage
        of = Reach(
            name=args.name,
            region=args.region,
            account_id=args.account_id,
            zone_id=args.zone_id,
            hostname=args.hostname,
            key=kept.key.arn,
            repository=kept.repository.arn,
            bucket=kept.bucket.arn,
            sealing=kept.sealing.arn,
            exec_log=self._exec.arn,
            database=args.database,
            cache=[args.cache.group_arn, args.cache.user_arn],
            smarthost_secret=args.smarthost_secret_arn,
            smarthost_key=args.smarthost_kms_key_arn,
            ses=args.ses_arns,
            alerts_topic=args.alerts_topic_arn,
            alerts_key=args.alerts_key_arn,
        )
        logs = [*(self._logs[service].arn for service in sorted(self._logs)), self._migrate_log.arn]
        execution = execution_role(self._name, of, logs, self._child)
        tasks = {service: task_role(self._name, service, of, self._child) for service in args.services}
        self._execution, self._roles = execution.role, {service: each.role for service, each in tasks.items()}
        # A task that starts before its roles may do anything fails, and when the stack is taken down, one that ends has
        # rights.
        self._may = [execution.policy, *(each.policy for each in tasks.values())]
        self._migrate_role = migrate_role(self._name, of, self._child)

    def _make_tasks(self) -> Tasks:
        args, kept = self._args, self._storage
        separator = "@" if args.image_version.startswith("sha256:") else ":"
        return Tasks(
            settings=args.settings,
            pressure=args.pressure,
            ports=args.ports,
            region=args.region,
            hostname=args.hostname,
            zone_id=args.zone_id,
            smarthost_host=args.smarthost_host,
            smarthost_secret_arn=args.smarthost_secret_arn,
            proxy_networks=args.proxy_networks,
            database=args.database,
            cache=args.cache,
            sealing=kept.sealing.arn,
            bucket=kept.bucket.id,
            alerts_topic=args.alerts_topic_arn,
            image=pulumi.Output.concat(kept.repository.repository_url, separator, args.image_version),
        )

    def _port(self, service: str) -> int | None:
        port = KINDS[service].port
        return None if port is None else self._args.ports[port]

    def _define(self, service: str) -> aws.ecs.TaskDefinition:
        args, of = self._args, self._args.services[service]
        log = self._logs[service].name
        return aws.ecs.TaskDefinition(
            f"{self._name}-main-{service}",
            family=f"{args.name}-{service}",
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(of.cpu),
            memory=str(of.memory),
            execution_role_arn=self._execution.arn,
            task_role_arn=self._roles[service].arn,
            # A revision that is replaced here is still what a service runs, since services ignore this; ECS starts no
            # task of one that is deregistered.
            skip_destroy=True,
            runtime_platform=aws.ecs.TaskDefinitionRuntimePlatformArgs(
                cpu_architecture="ARM64", operating_system_family="LINUX"
            ),
            volumes=[aws.ecs.TaskDefinitionVolumeArgs(name=volume) for volume in VOLUMES],
            container_definitions=pulumi.Output.json_dumps(
                [container(self._tasks, service, of, self._port(service), log)]
            ),
            opts=self._child,
        )

    def _define_migrate(self) -> None:
        """Run by hand, before and after deployments: docs/DEPLOY.md."""
        args, of = self._args, self._args.migrate
        aws.ecs.TaskDefinition(
            f"{self._name}-migrate",
            family=f"{args.name}-migrate",
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(of.cpu),
            memory=str(of.memory),
            execution_role_arn=self._execution.arn,
            task_role_arn=self._migrate_role.arn,
            # As those of services: what a deployment has registered may be run again.
            skip_destroy=True,
            runtime_platform=aws.ecs.TaskDefinitionRuntimePlatformArgs(
                cpu_architecture="ARM64", operating_system_family="LINUX"
            ),
            volumes=[aws.ecs.TaskDefinitionVolumeArgs(name="data")],
            container_definitions=pulumi.Output.json_dumps([migration(self._tasks, of, self._migrate_log.name)]),
            opts=self._child,
        )

    def _serve(self, service: str) -> aws.ecs.Service:
        return self._blue_green(service) if KINDS[service].controller == "CODE_DEPLOY" else self._rolling(service)

    def _scale(self) -> None:
        args = self._args
        targets = {
            service: Scaling(
                self._name,
                service,
                prefix=args.name,
                cluster=self._cluster.name,
                running=self._services[service].name,
                settings=of,
                scaling=args.scaling,
                balancer=args.api_balancer,
                opts=self._child,
            ).target
            for service, of in args.services.items()
            if of.max_tasks > 1
        }
        prewarm(self._name, args.name, args.scaling, targets, self._child)

    def _network(self, service: str) -> aws.ecs.ServiceNetworkConfigurationArgs:
        return aws.ecs.ServiceNetworkConfigurationArgs(
            subnets=self._args.subnet_ids,
            security_groups=[self._args.security_group_ids[KINDS[service].group]],
            assign_public_ip=False,
        )

    def _balanced(self, service: str) -> list[aws.ecs.ServiceLoadBalancerArgs]:
        target, port = KINDS[service].target, self._port(service)
        if target is None or port is None:
            return []
        return [
            aws.ecs.ServiceLoadBalancerArgs(
                target_group_arn=self._args.target_group_arns[target], container_name=service, container_port=port
            )
        ]

    def _blue_green(self, service: str) -> aws.ecs.Service:
        """Deployed by CodeDeploy, which makes a second set of tasks beside the first."""
        args, of = self._args, self._settings
        registry = self._names.get(service)
        return aws.ecs.Service(
            f"{self._name}-blue-green-{service}",
            name=service,
            cluster=self._cluster.arn,
            task_definition=self._definitions[service].arn,
            desired_count=args.services[service].min_tasks,
            launch_type="FARGATE",
            platform_version=of.platform_version,
            enable_execute_command=True,
            enable_ecs_managed_tags=True,
            propagate_tags="SERVICE",
            health_check_grace_period_seconds=of.health_check_grace_seconds,
            deployment_minimum_healthy_percent=100,
            deployment_maximum_percent=200,
            deployment_controller=aws.ecs.ServiceDeploymentControllerArgs(type="CODE_DEPLOY"),
            network_configuration=self._network(service),
            load_balancers=self._balanced(service),
            service_registries=aws.ecs.ServiceServiceRegistriesArgs(registry_arn=registry.arn) if registry else None,
            # What `smtp-proxy deploy` gives the next task set, since ECS takes a change of these from CodeDeploy alone.
            tags={
                "DeployPlatformVersion": of.platform_version,
                "DeploySubnets": pulumi.Output.all(*args.subnet_ids).apply(" ".join),
                "DeploySecurityGroups": args.security_group_ids[KINDS[service].group],
            },
            opts=pulumi.ResourceOptions(
                parent=self,
                ignore_changes=[
                    "desiredCount",
                    "taskDefinition",
                    "loadBalancers",
                    "platformVersion",
                    "networkConfiguration",
                ],
                depends_on=self._may,
            ),
        )

    def _rolling(self, service: str) -> aws.ecs.Service:
        """Rolled by ECS, which goes back by itself where new tasks do not come up."""
        args, of = self._args, self._settings
        spot = args.services[service].spot
        alarms = args.alarm_names.get(service, ())
        strategy = aws.ecs.ServiceCapacityProviderStrategyArgs
        return aws.ecs.Service(
            f"{self._name}-rolling-{service}",
            name=service,
            cluster=self._cluster.arn,
            task_definition=self._definitions[service].arn,
            desired_count=args.services[service].min_tasks,
            platform_version=of.platform_version,
            enable_execute_command=True,
            enable_ecs_managed_tags=True,
            propagate_tags="SERVICE",
            health_check_grace_period_seconds=of.health_check_grace_seconds if KINDS[service].target else None,
            deployment_minimum_healthy_percent=of.deployment_minimum_percent,
            deployment_maximum_percent=of.deployment_maximum_percent,
            # The first task is never on Spot.
            capacity_provider_strategies=[
                strategy(capacity_provider="FARGATE", base=1, weight=1),
                *([strategy(capacity_provider="FARGATE_SPOT", weight=3)] if spot else []),
            ],
            deployment_controller=aws.ecs.ServiceDeploymentControllerArgs(type="ECS"),
            deployment_circuit_breaker=aws.ecs.ServiceDeploymentCircuitBreakerArgs(enable=True, rollback=True),
            # Those that are in alarm when a deployment begins are not looked at, so that a repair can be deployed.
            alarms=aws.ecs.ServiceAlarmsArgs(enable=True, rollback=True, alarm_names=alarms) if alarms else None,
            network_configuration=self._network(service),
            load_balancers=self._balanced(service),
            opts=pulumi.ResourceOptions(
                parent=self,
                ignore_changes=["desiredCount", "taskDefinition"],
                depends_on=[self._capacity, *self._may],
            ),
        )
