"""The AWS stack, in the order in which one thing needs another. terraform/main.tf tells it in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from . import settings
from .alb import Alb, AlbArgs, AlbSettings
from .codedeploy import CodeDeploy, CodeDeployArgs, CodeDeploySettings, Deployed
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


NOTHING = Own()


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
    codedeploy = CodeDeploy(
        "codedeploy",
        CodeDeployArgs(
            name=name,
            region=general["region"],
            account_id=account_id,
            settings=CodeDeploySettings(**of["codedeploy"]),
            cluster_name=name,
            services={
                service: each
                for service, each in (_deployed("nlb", nlb) | (_deployed("alb", alb) if alb else {})).items()
                if of[service]["enabled"]
            },
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
        "deployment_groups": codedeploy.deployment_group_names,
    }


def _deployed(balancer: str, of: Nlb | Alb) -> dict[str, Deployed]:
    return {
        service: Deployed(balancer=balancer, listener_arn=arn, target_group_names=of.target_group_names[service])
        for service, arn in of.listener_arns.items()
    }
