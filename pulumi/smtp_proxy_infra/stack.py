"""The AWS stack, in the order in which one thing needs another. terraform/main.tf tells it in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from . import settings
from .alb import Alb, AlbArgs, AlbSettings
from .cloudwatch import CloudWatch, CloudWatchArgs
from .cloudwatch_alarms import Balanced
from .cloudwatch_settings import BudgetSettings, alarms_of, charts_of
from .codedeploy import CodeDeploy, CodeDeployArgs, CodeDeploySettings, Deployed
from .ecs import Ecs, EcsArgs
from .ecs_scaling import Balancer
from .ecs_settings import EcsSettings, MigrateSettings, PressureSettings, ScalingSettings, services_of
from .ecs_tasks import Cache, Database
from .elasticache import ElastiCache, ElastiCacheArgs
from .nlb import Nlb, NlbArgs, NlbSettings
from .rds import Rds, RdsArgs, RdsSettings
from .vpc import Vpc, VpcArgs


@dataclass(frozen=True, kw_only=True)
class Own:
    """What is one account's own beside its number, and optional: terraform/variables.tf describes each."""

    zone_id: str = ""
    smtp_hostname: str = ""
    http_hostname: str = ""
    image_version: str = "first"
    smarthost_host: str = ""
    smarthost_secret_arn: str = ""
    smarthost_kms_key_arn: str = ""
    ses_arns: Sequence[str] = ()
    alert_emails: Sequence[str] = ()


NOTHING = Own()
# Whose roles CodeDeploy passes on, and that of what starts them.
DEPLOYED = ("submission", "submissions", "api", "dashboard", "execution")


def declare(environment: str, account_id: str, own: Own = NOTHING) -> Mapping[str, pulumi.Input[Any] | None]:
    """All resources of an environment; what is returned are the outputs of the stack, named as Terraform's."""
    of = settings.load(environment)
    general, ports = of["general"], of["ports"]
    name = f"{general['name']}-{environment}"
    provider = aws.Provider(
        "aws",
        region=general["region"],
        allowed_account_ids=[account_id],
        default_tags={"tags": {"Project": general["name"], "Environment": environment}},
    )
    opts = pulumi.ResourceOptions(providers={"aws": provider})

    vpc = Vpc(
        "vpc",
        VpcArgs(
            name=name,
            region=general["region"],
            zones=general["zones"],
            ports=ports,
            groups=of["security"]["groups"],
            rules=of["security"]["rules"],
            **of["vpc"],
        ),
        opts,
    )
    public_subnet_ids = [vpc.public_subnet_ids[zone] for zone in sorted(vpc.public_subnet_ids)]
    database_subnet_ids = [vpc.database_subnet_ids[zone] for zone in sorted(vpc.database_subnet_ids)]
    rds = Rds(
        "rds",
        RdsArgs(
            name=name,
            port=ports["postgres"],
            subnet_ids=database_subnet_ids,
            security_group_ids=[vpc.security_group_ids["database"]],
            settings=RdsSettings(**of["rds"]),
        ),
        opts,
    )
    elasticache = ElastiCache(
        "elasticache",
        ElastiCacheArgs(
            name=name,
            port=ports["redis"],
            subnet_ids=database_subnet_ids,
            security_group_ids=[vpc.security_group_ids["cache"]],
            **of["elasticache"],
        ),
        opts,
    )
    nlb = Nlb(
        "nlb",
        NlbArgs(
            name=name,
            settings=NlbSettings(**of["nlb"]),
            ports=ports,
            vpc_id=vpc.vpc_id,
            subnet_ids=public_subnet_ids,
            security_group_ids=[vpc.security_group_ids["nlb"]],
            zone_id=own.zone_id,
            hostname=own.smtp_hostname,
        ),
        opts,
    )
    alb_settings = AlbSettings(**of["alb"])
    alb = (
        Alb(
            "alb",
            AlbArgs(
                name=name,
                account_id=account_id,
                settings=alb_settings,
                ports=ports,
                vpc_id=vpc.vpc_id,
                subnet_ids=public_subnet_ids,
                security_group_ids=[vpc.security_group_ids["alb"]],
                zone_id=own.zone_id,
                hostname=own.http_hostname,
            ),
            opts,
        )
        if alb_settings.enabled
        else None
    )
    services = services_of(of)
    cloudwatch = CloudWatch(
        "cloudwatch",
        CloudWatchArgs(
            name=name,
            environment=environment,
            region=general["region"],
            account_id=account_id,
            alert_emails=own.alert_emails,
            services=sorted(services),
            container_insights=of["ecs"]["container_insights"],
            node_groups=of["elasticache"]["node_groups"],
            replicas_per_node_group=of["elasticache"]["replicas_per_node_group"],
            wholes={
                "max_connections": of["rds"]["max_connections"],
                "allocated_storage": of["rds"]["allocated_storage"] * 1024**3,
                "ready_depth_high": of["pressure"]["ready_depth_high"],
            },
            balanced={
                service: each
                for service, each in (_balanced(nlb) | (_balanced(alb) if alb else {})).items()
                if service in services
            },
            alarms=alarms_of(of["alarms"]),
            charts=charts_of(of["charts"]),
            budget=BudgetSettings(**of["budget"]),
        ),
        opts,
    )
    ecs = Ecs(
        "ecs",
        EcsArgs(
            name=name,
            account_id=account_id,
            region=general["region"],
            vpc_id=vpc.vpc_id,
            subnet_ids=[vpc.private_subnet_ids[zone] for zone in sorted(vpc.private_subnet_ids)],
            security_group_ids=vpc.security_group_ids,
            ports=ports,
            proxy_networks=[of["vpc"]["public_cidrs"][zone] for zone in sorted(of["vpc"]["public_cidrs"])],
            target_group_arns={**nlb.target_group_arns, **(alb.target_group_arns if alb else {})},
            database=Database(
                host=rds.endpoint,
                direct_host=rds.direct_endpoint,
                name=of["rds"]["database_name"],
                owner=of["rds"]["owner_role"],
                user=of["rds"]["app_username"],
                resource_id=rds.resource_id,
                secret_arn=rds.secret_arn,
                kms_key_arn=rds.kms_key_arn,
                services_read_master=of["rds"]["services_read_master"],
                proxy=of["rds"]["proxy"],
                proxy_user=of["rds"]["proxy_username"],
                proxy_resource_id=rds.proxy_resource_id,
                proxy_secret_arn=rds.proxy_secret_arn,
            ),
            cache=Cache(
                host=elasticache.endpoint,
                name=elasticache.replication_group_id,
                user=elasticache.user_id,
                group_arn=elasticache.replication_group_arn,
                user_arn=elasticache.user_arn,
            ),
            image_version=own.image_version,
            hostname=own.smtp_hostname,
            zone_id=own.zone_id,
            smarthost_host=own.smarthost_host,
            smarthost_secret_arn=own.smarthost_secret_arn,
            smarthost_kms_key_arn=own.smarthost_kms_key_arn,
            ses_arns=own.ses_arns,
            alerts_topic_arn=cloudwatch.topic_arn,
            alerts_key_arn=cloudwatch.kms_key_arn,
            alarm_names=cloudwatch.alarm_names,
            services=services,
            migrate=MigrateSettings(**of["migrate"]),
            settings=EcsSettings(**of["ecs"]),
            pressure=PressureSettings(**of["pressure"]),
            scaling=ScalingSettings(**of["scaling"]),
            api_balancer=Balancer(
                arn_suffix=alb.arn_suffix, target_group_arn_suffixes=alb.target_group_arn_suffixes["api"]
            )
            if alb
            else None,
        ),
        opts,
    )
    codedeploy = CodeDeploy(
        "codedeploy",
        CodeDeployArgs(
            name=name,
            region=general["region"],
            account_id=account_id,
            settings=CodeDeploySettings(**of["codedeploy"]),
            cluster_name=ecs.cluster_name,
            alarm_names=cloudwatch.alarm_names,
            task_role_arns=[arn for service, arn in ecs.task_role_arns.items() if service in DEPLOYED],
            services=_deployed("nlb", nlb, ecs) | (_deployed("alb", alb, ecs) if alb else {}),
        ),
        opts,
    )
    return {
        "vpc_id": vpc.vpc_id,
        "nat_addresses": vpc.nat_addresses,
        "database_endpoint": rds.endpoint,
        "database_secret_arn": rds.secret_arn,
        "cache_endpoint": elasticache.endpoint,
        "smtp_endpoint": nlb.dns_name,
        "http_endpoint": alb.dns_name if alb else None,
        "image_repository": ecs.repository_url,
        "sealing_secret_arn": ecs.sealing_secret_arn,
        "deployment_groups": codedeploy.deployment_group_names,
        "alerts_topic_arn": cloudwatch.topic_arn,
    }


def _balanced(of: Nlb | Alb) -> dict[str, Balanced]:
    """By service what metrics call its target groups; those of HTTP-01 are the issuer's."""
    return {
        "certs" if service == "acme" else service: Balanced(
            namespace="AWS/NetworkELB" if isinstance(of, Nlb) else "AWS/ApplicationELB",
            load_balancer=of.arn_suffix,
            target_groups=groups,
        )
        for service, groups in of.target_group_arn_suffixes.items()
    }


def _deployed(balancer: str, of: Nlb | Alb, ecs: Ecs) -> dict[str, Deployed]:
    """Of the services behind a load balancer those that are enabled."""
    return {
        service: Deployed(
            balancer=balancer,
            service_name=ecs.service_names[service],
            listener_arn=arn,
            target_group_names=of.target_group_names[service],
        )
        for service, arn in of.listener_arns.items()
        if service in ecs.service_names
    }
