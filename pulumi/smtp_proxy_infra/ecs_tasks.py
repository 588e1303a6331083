"""What runs in a task, and its settings: a part of `ecs`, the twin of terraform/modules/ecs.

No `secrets`: they would be environment variables. The application reads Secrets Manager by the ARNs (decision 0039).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from .ecs_settings import EcsSettings, MigrateSettings, PressureSettings, ServiceSettings

DATA = "/var/lib/smtp-proxy"
# Written by the application or by ECS Exec; everything else of a container can not be written to. The second and third
# are the agent's, of ECS Exec.
VOLUMES = {"data": DATA, "ssm-lib": "/var/lib/amazon", "ssm-log": "/var/log/amazon"}

# A task has an address of its own, and its security group lets in whom it may.
EVERYWHERE = "0.0.0.0"  # noqa: S104

Environment = Mapping[str, pulumi.Input[str]]

# No service, but a task that is run before and after a deployment.
MIGRATE = "migrate"
# The image has AWS's CAs there (devstack/Dockerfile): a token is shown to nobody else.
VERIFIED: Environment = {"DB_SSLMODE": "verify-full", "DB_CA_FILE": "/etc/smtp-proxy/rds-ca.pem"}


@dataclass(frozen=True, kw_only=True)
class Database:
    """Hosts, roles and resource ids of Postgres and of RDS Proxy, the master's secret, the proxy's, their key."""

    host: pulumi.Input[str]
    direct_host: pulumi.Input[str]
    name: str
    owner: str
    user: str
    resource_id: pulumi.Input[str]
    secret_arn: pulumi.Input[str]
    kms_key_arn: pulumi.Input[str]
    services_read_master: bool
    proxy: bool
    proxy_user: str
    proxy_resource_id: pulumi.Input[str]
    proxy_secret_arn: pulumi.Input[str]


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Configuration endpoint of the cache, its name and its user for IAM, and the two ARNs of elasticache:Connect."""

    host: pulumi.Input[str]
    name: pulumi.Input[str]
    user: pulumi.Input[str]
    group_arn: pulumi.Input[str]
    user_arn: pulumi.Input[str]


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """What the settings of tasks are made of."""

    settings: EcsSettings
    pressure: PressureSettings
    ports: Mapping[str, int]
    region: str
    hostname: str
    zone_id: str
    smarthost_host: str
    smarthost_secret_arn: str
    proxy_networks: Sequence[str]
    database: Database
    cache: Cache
    sealing: pulumi.Output[str]
    bucket: pulumi.Output[str]
    alerts_topic: pulumi.Input[str]
    image: pulumi.Output[str]


def environment(of: Tasks, service: str, settings: ServiceSettings | MigrateSettings) -> Environment:
    """The settings of a service's tasks, or of migrations, by the names of smtp_proxy.config."""
    if isinstance(settings, MigrateSettings):
        return {**_any(), **_migration(of)}
    own: dict[str, Environment] = {
        "submission": _smtp(of),
        "submissions": _smtp(of),
        "worker": _worker(of),
        "certs": _certs(of),
        "api": _api(of),
        "dashboard": {},
    }
    return {**_all(of), "METRICS_SERVICE": service, **_sizes(settings), **own[service]}


def _sizes(settings: ServiceSettings) -> Environment:
    """What the plan and the budget of connections reckon with, so that they hold for what runs."""
    sizes = {"SMTP_MAX_CONNECTIONS": settings.smtp_max_connections, "DB_POOL_SIZE": settings.db_pool_size}
    return {name: str(size) for name, size in sizes.items() if size is not None}


def _any() -> Environment:
    return {"SMTP_PROXY_MODE": "production", "SMTP_PROXY_DATA_DIR": DATA, "LOG_FORMAT": "json"}


def _all(of: Tasks) -> Environment:
    return {
        **_any(),
        "METRICS_EMF": "on",
        "HEALTH_HOST": EVERYWHERE,
        "HEALTH_PORT": str(of.ports["health"]),
        **({"SMTP_PROXY_HOSTNAME": of.hostname} if of.hostname else {}),
    }


def _database(of: Tasks) -> Environment:
    database = of.database
    return {
        **VERIFIED,
        # Tasks begin before there is a schema, or a key: who ended then three times would have ECS give the service up.
        "START_WAITS": "true",
        "DB_HOST": database.host,
        "DB_PORT": str(of.ports["postgres"]),
        "DB_NAME": database.name,
        "DB_USER": database.proxy_user if database.proxy else database.user,
        "DB_IAM": "true",
        **(
            {"DB_POOLER": "transaction", "DB_DIRECT_HOST": database.direct_host, "DB_DIRECT_USER": database.user}
            if database.proxy
            else {}
        ),
    }


def _sealing(of: Tasks) -> Environment:
    """What opens the secrets in the database."""
    return {"SECRET_KEY_SECRET": of.sealing}


def _migration(of: Tasks) -> Environment:
    """The one task that knows the master."""
    database = of.database
    return {
        **VERIFIED,
        "DB_HOST": database.direct_host,
        "DB_PORT": str(of.ports["postgres"]),
        "DB_NAME": database.name,
        "DB_SECRET": database.secret_arn,
        "MIGRATE_OWNER": database.owner,
        "MIGRATE_LOGIN": database.user,
        **(
            {"MIGRATE_PROXY_LOGIN": database.proxy_user, "MIGRATE_PROXY_SECRET": database.proxy_secret_arn}
            if database.proxy
            else {}
        ),
    }


def _cache(of: Tasks) -> Environment:
    url = pulumi.Output.concat("rediss://", of.cache.host, f":{of.ports['redis']}")
    login = pulumi.Output.concat(of.cache.user, "@", of.cache.name)  # decision 0040
    return {"REDIS_URL": url, "REDIS_CLUSTER": "true", "REDIS_IAM": login}


def _protection(of: Tasks) -> Environment:
    return {"TASK_PROTECTION": "on", "TASK_PROTECTION_MINUTES": str(of.settings.protection_minutes)}


def _smtp(of: Tasks) -> Environment:
    return {
        **_database(of),
        **_sealing(of),
        **_cache(of),
        **_protection(of),
        "SMTP_HOST": EVERYWHERE,
        "SMTP_STARTTLS_PORT": str(of.ports["submission"]),
        "SMTP_TLS_PORT": str(of.ports["submissions"]),
        "SMTP_PROXY_PROTOCOL_NETWORKS": ",".join(of.proxy_networks),
        "SMTP_SESSION_MAX_SECONDS": str(of.settings.session_max_seconds),
        "INGRESS_READY_DEPTH_HIGH": str(of.pressure.ready_depth_high),
        "INGRESS_READY_DEPTH_LOW": str(of.pressure.ready_depth_low),
        "TLS_CERT_SOURCE": "store",
        "TLS_CERT_DIR": f"{DATA}/certs",
    }


def _worker(of: Tasks) -> Environment:
    return {
        **_database(of),
        **_sealing(of),
        **_cache(of),
        **_protection(of),
        **(
            {"SMARTHOST_HOST": of.smarthost_host, "SMARTHOST_PORT": str(of.ports["submission_public"])}
            if of.smarthost_host
            else {}
        ),
        **({"SMARTHOST_SECRET": of.smarthost_secret_arn} if of.smarthost_secret_arn else {}),
    }


def _api(of: Tasks) -> Environment:
    return {**_database(of), "API_HOST": EVERYWHERE, "API_PORT": str(of.ports["api"])}


def _certs(of: Tasks) -> Environment:
    return {
        **_database(of),
        **_sealing(of),
        "ACME_HTTP_HOST": EVERYWHERE,
        "ACME_HTTP_PORT": str(of.ports["acme"]),
        "CERT_BACKUP_BUCKET": of.bucket,
        "CERT_ALERT_SNS_TOPIC": of.alerts_topic,
        **({"ACME_CERTIFICATES": of.hostname + ("@dns-01" if of.zone_id else "")} if of.hostname else {}),
        **({"ACME_DNS": "route53", "ACME_ROUTE53_ZONE_ID": of.zone_id} if of.zone_id else {}),
    }


def container(
    of: Tasks, service: str, settings: ServiceSettings, port: int | None, log: pulumi.Output[str]
) -> dict[str, Any]:
    """The one container of a service's tasks."""
    wanted = of.settings
    return {
        **_base(of, service, settings, log),
        "ulimits": [{"name": "nofile", "softLimit": wanted.nofile, "hardLimit": wanted.nofile}],
        "portMappings": [
            {"containerPort": each, "protocol": "tcp"} for each in (port, of.ports["health"]) if each is not None
        ],
        "mountPoints": [_mount(volume) for volume in VOLUMES],
        # Whether it runs, not whether it is ready: ECS ends whom this fails, and while Postgres is away that were all
        # tasks of all services at once. Load balancers ask for readiness.
        "healthCheck": {
            "command": ["CMD", "smtp-proxy", "healthcheck", "--alive", settings.command[1]],
            "interval": wanted.health_check_interval_seconds,
            "timeout": wanted.health_check_timeout_seconds,
            "retries": wanted.health_check_retries,
            "startPeriod": wanted.health_check_start_seconds,
        },
    }


def migration(of: Tasks, settings: MigrateSettings, log: pulumi.Output[str]) -> dict[str, Any]:
    """The one container of the task that migrates: nobody asks it how it is, or reaches it."""
    return {**_base(of, MIGRATE, settings, log), "mountPoints": [_mount("data")]}


def _base(of: Tasks, name: str, settings: ServiceSettings | MigrateSettings, log: pulumi.Output[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": of.image,
        "essential": True,
        "command": list(settings.command),
        "user": "10001",
        "readonlyRootFilesystem": True,
        "stopTimeout": of.settings.stop_timeout_seconds,
        "linuxParameters": {"initProcessEnabled": True},
        "environment": [
            {"name": key, "value": value} for key, value in sorted(environment(of, name, settings).items(), key=_name)
        ],
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {"awslogs-group": log, "awslogs-region": of.region, "awslogs-stream-prefix": "task"},
        },
    }


def _mount(volume: str) -> dict[str, Any]:
    return {"sourceVolume": volume, "containerPath": VOLUMES[volume], "readOnly": False}


def _name(pair: tuple[str, pulumi.Input[str]]) -> str:
    return pair[0]
