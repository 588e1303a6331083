"""HTTPS for the API and the dashboard, by switch: the twin of terraform/modules/alb."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from . import alb_waf
from .alb_logs import AccessLogs
from .order import after
from .settings import require

# How a service is called in the name of its target groups, which has room for 32 characters.
SERVICES = {"api": "api", "dashboard": "dash"}
COLOURS = ("blue", "green")


@dataclass(frozen=True, kw_only=True)
class AlbSettings:
    """Section alb of stack.yaml: seconds, days, and counts of health checks."""

    enabled: bool
    deletion_protection: bool
    idle_timeout_seconds: int
    ssl_policy: str
    http2: bool
    api_paths: Sequence[str]
    api_health_path: str
    dashboard_health_path: str
    health_interval_seconds: int
    health_timeout_seconds: int
    healthy_threshold: int
    unhealthy_threshold: int
    deregistration_delay_seconds: int
    access_log_retention_days: int
    waf: bool
    waf_requests_per_address: int

    def __post_init__(self) -> None:
        """Raises: BadSettings, where terraform/modules/alb/variables.tf refuses the same."""
        require(
            re.fullmatch(r"ELBSecurityPolicy-TLS13-1-[23]-(Res-)?2021-06", self.ssl_policy) is not None,
            "alb.ssl_policy must have TLS 1.3 and nothing below 1.2: ELBSecurityPolicy-TLS13-1-2-2021-06, -1-2-Res- or "
            "-1-3-.",
        )
        paths = [*self.api_paths, self.api_health_path, self.dashboard_health_path]
        require(
            bool(self.api_paths) and all(path.startswith("/") for path in paths),
            "alb: api_paths (at least one), api_health_path and dashboard_health_path must begin with /.",
        )
        require(
            self.health_timeout_seconds < self.health_interval_seconds,
            "alb.health_timeout_seconds must be less than alb.health_interval_seconds.",
        )
        require(self.waf_requests_per_address >= 10, "alb.waf_requests_per_address must be at least 10, in 5 minutes.")


@dataclass(frozen=True, kw_only=True)
class AlbArgs:
    """Where the load balancer stands, and what it is called."""

    name: str
    account_id: str
    vpc_id: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    security_group_ids: Sequence[pulumi.Input[str]]
    ports: Mapping[str, int]
    zone_id: str
    hostname: str
    settings: AlbSettings

    def __post_init__(self) -> None:
        """Raises: BadSettings without a name to have a certificate for."""
        for setting, value in (("zoneId", self.zone_id), ("httpHostname", self.hostname)):
            require(
                bool(value),
                f"alb.enabled needs {setting} (pulumi config set): without it there is no certificate, and without a "
                "certificate no HTTPS.",
            )


class Alb(pulumi.ComponentResource):
    """Outputs: groups and listeners by service, for ECS and CodeDeploy, and what metrics call them."""

    def __init__(self, name: str, args: AlbArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("smtp-proxy:infra:Alb", name, None, opts)
        self._name, self._args, self._settings = name, args, args.settings
        self._child = pulumi.ResourceOptions(parent=self)
        self._certify()
        self._balancer = self._make_balancer()
        self._groups = {
            (service, colour): self._make_group(service, colour) for service in SERVICES for colour in COLOURS
        }
        self._https = self._listen()
        self._api_rule = self._make_rule()
        self._redirect()
        self._record()
        if args.settings.waf:
            alb_waf.guard(
                name,
                self._balancer,
                prefix=args.name,
                requests_per_address=args.settings.waf_requests_per_address,
                opts=self._child,
            )
        self._outputs()
        self.register_outputs({"dns_name": self.dns_name})

    def _outputs(self) -> None:
        self.dns_name = self._balancer.dns_name
        self.arn_suffix = self._balancer.arn_suffix
        # ECS refuses a group that no listener leads to yet.
        self.target_group_arns = {
            service: after(self._groups[service, "blue"].arn, self._https, self._api_rule) for service in SERVICES
        }
        self.target_group_names = {
            service: [self._groups[service, colour].name for colour in COLOURS] for service in SERVICES
        }
        self.target_group_arn_suffixes = {
            service: [self._groups[service, colour].arn_suffix for colour in COLOURS] for service in SERVICES
        }
        self.listener_arns = dict.fromkeys(SERVICES, self._https.arn)

    def _certify(self) -> None:
        """A certificate that Route 53 proves to be for this name: one name, so one record."""
        name, args = self._name, self._args
        self._certificate = aws.acm.Certificate(
            f"{name}-main",
            domain_name=args.hostname,
            validation_method="DNS",
            tags={"Name": f"{args.name}-alb"},
            opts=self._child,
        )
        proof = self._certificate.domain_validation_options[0]
        record = aws.route53.Record(
            f"{name}-proof",
            zone_id=args.zone_id,
            name=proof.resource_record_name.apply(str),
            type="CNAME",
            ttl=300,
            records=[proof.resource_record_value.apply(str)],
            allow_overwrite=True,
            opts=self._child,
        )
        self._valid = aws.acm.CertificateValidation(
            f"{name}-main",
            certificate_arn=self._certificate.arn,
            validation_record_fqdns=[record.fqdn],
            opts=self._child,
        )

    def _make_balancer(self) -> aws.lb.LoadBalancer:
        args, of = self._args, self._settings
        logs = AccessLogs(
            self._name,
            prefix=args.name,
            account_id=args.account_id,
            retention_days=of.access_log_retention_days,
            keep=of.deletion_protection,
            opts=self._child,
        )
        return aws.lb.LoadBalancer(
            f"{self._name}-main",
            name=f"{args.name}-alb",
            load_balancer_type="application",
            internal=False,
            subnets=args.subnet_ids,
            security_groups=args.security_group_ids,
            idle_timeout=of.idle_timeout_seconds,
            enable_http2=of.http2,
            drop_invalid_header_fields=True,
            enable_deletion_protection=of.deletion_protection,
            access_logs=aws.lb.LoadBalancerAccessLogsArgs(enabled=True, bucket=logs.bucket.id),
            tags={"Name": f"{args.name}-alb"},
            # It tries to write when logs are switched on.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[logs.ready]),
        )

    def _make_group(self, service: str, colour: str) -> aws.lb.TargetGroup:
        """Two of each service, between which CodeDeploy shifts requests."""
        args, of = self._args, self._settings
        return aws.lb.TargetGroup(
            f"{self._name}-web-{service}-{colour}",
            name=f"{args.name}-{SERVICES[service]}-{colour}",
            vpc_id=args.vpc_id,
            target_type="ip",
            protocol="HTTP",
            port=args.ports[service],
            deregistration_delay=of.deregistration_delay_seconds,
            health_check=aws.lb.TargetGroupHealthCheckArgs(
                protocol="HTTP",
                port="traffic-port",
                path={"api": of.api_health_path, "dashboard": of.dashboard_health_path}[service],
                matcher="200",
                interval=of.health_interval_seconds,
                timeout=of.health_timeout_seconds,
                healthy_threshold=of.healthy_threshold,
                unhealthy_threshold=of.unhealthy_threshold,
            ),
            tags={"Name": f"{args.name}-{service}-{colour}"},
            opts=self._child,
        )

    def _listen(self) -> aws.lb.Listener:
        args, of = self._args, self._settings
        return aws.lb.Listener(
            f"{self._name}-https",
            load_balancer_arn=self._balancer.arn,
            protocol="HTTPS",
            port=args.ports["https"],
            ssl_policy=of.ssl_policy,
            certificate_arn=self._certificate.arn,
            routing_http_response_strict_transport_security_header_value="max-age=31536000",
            default_actions=[
                aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=self._groups["dashboard", "blue"].arn)
            ],
            tags={"Name": f"{args.name}-https"},
            # A certificate that is not issued yet is refused; and which group is in service is CodeDeploy's to say.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self._valid], ignore_changes=["defaultActions"]),
        )

    def _make_rule(self) -> aws.lb.ListenerRule:
        args, of = self._args, self._settings
        return aws.lb.ListenerRule(
            f"{self._name}-api",
            listener_arn=self._https.arn,
            priority=10,
            conditions=[
                aws.lb.ListenerRuleConditionArgs(
                    path_pattern=aws.lb.ListenerRuleConditionPathPatternArgs(values=of.api_paths)
                )
            ],
            actions=[aws.lb.ListenerRuleActionArgs(type="forward", target_group_arn=self._groups["api", "blue"].arn)],
            tags={"Name": f"{args.name}-api"},
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["actions"]),
        )

    def _redirect(self) -> None:
        args = self._args
        aws.lb.Listener(
            f"{self._name}-redirect",
            load_balancer_arn=self._balancer.arn,
            protocol="HTTP",
            port=args.ports["http"],
            default_actions=[
                aws.lb.ListenerDefaultActionArgs(
                    type="redirect",
                    redirect=aws.lb.ListenerDefaultActionRedirectArgs(
                        protocol="HTTPS", port=str(args.ports["https"]), status_code="HTTP_301"
                    ),
                )
            ],
            tags={"Name": f"{args.name}-redirect"},
            opts=self._child,
        )

    def _record(self) -> None:
        args, balancer = self._args, self._balancer
        aws.route53.Record(
            f"{self._name}-web",
            zone_id=args.zone_id,
            name=args.hostname,
            type="A",
            aliases=[
                aws.route53.RecordAliasArgs(
                    name=balancer.dns_name, zone_id=balancer.zone_id, evaluate_target_health=False
                )
            ],
            opts=self._child,
        )
