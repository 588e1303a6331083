"""The AWS stack, in the order in which one thing needs another. terraform/main.tf tells it in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from . import settings
from .elasticache import ElastiCache, ElastiCacheArgs
from .rds import Rds, RdsArgs, RdsSettings
from .vpc import Vpc, VpcArgs


def declare(environment: str, account_id: str) -> Mapping[str, pulumi.Input[Any]]:
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
    return {
        "vpc_id": vpc.vpc_id,
        "nat_addresses": vpc.nat_addresses,
        "database_endpoint": rds.endpoint,
        "database_secret_arn": rds.secret_arn,
        "cache_endpoint": elasticache.endpoint,
    }
