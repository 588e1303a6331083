"""The network load balancer, its groups and its name: the twin of terraform/modules/nlb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from .order import after
from .settings import require, require_health

# How a service is called in the name of its target groups, which has room for 32 characters.
SERVICES = {"submission": "sub", "submissions": "subs"}
COLOURS = ("blue", "green")


@dataclass(frozen=True, kw_only=True)
class NlbSettings:
    """Section nlb of stack.yaml: seconds, and counts of health checks."""

    cross_zone: bool
    deletion_protection: bool
    idle_timeout_seconds: int
    proxy_protocol: bool
    preserve_client_ip: bool
    deregistration_delay_seconds: int
    acme_deregistration_delay_seconds: int
    health_path: str
    acme_health_path: str
    health_interval_seconds: int
    health_timeout_seconds: int
    healthy_threshold: int
    unhealthy_threshold: int

    def __post_init__(self) -> None:
        """Raises: BadSettings, where terraform/modules/nlb/variables.tf refuses the same."""
        require(
            600 <= self.idle_timeout_seconds <= 6000,
            "nlb.idle_timeout_seconds must be 600 to 6000: a client may wait 10 minutes for the answer to its message "
            "(RFC 5321 4.5.3.2.6).",
        )
        require(
            not (self.proxy_protocol and self.preserve_client_ip),
            "nlb: with proxy_protocol, preserve_client_ip must be false: tasks believe a PROXY header from the load "
            "balancer's networks alone, and would see the client's address as the peer.",
        )
        require(
            120 <= self.deregistration_delay_seconds <= 3600,
            "nlb.deregistration_delay_seconds must be 120 to 3600: a task that leaves is sent new connections for some "
            "2 minutes yet.",
        )
        for path in (self.health_path, self.acme_health_path):
            require_health("nlb", path, self.health_interval_seconds, self.health_timeout_seconds)
        require(
            all(2 <= count <= 10 for count in (self.healthy_threshold, self.unhealthy_threshold)),
            "nlb: healthy_threshold and unhealthy_threshold must be 2 to 10.",
        )


@dataclass(frozen=True, kw_only=True)
class NlbArgs:
    """Where the load balancer stands and what it is called; without zone or host name there is no record."""

    name: str
    vpc_id: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    security_group_ids: Sequence[pulumi.Input[str]]
    ports: Mapping[str, int]
    zone_id: str
    hostname: str
    settings: NlbSettings


class Nlb(pulumi.ComponentResource):
    """Outputs: groups and listeners by service, for ECS and CodeDeploy, and what metrics call them."""

    def __init__(self, name: str, args: NlbArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("smtp-proxy:infra:Nlb", name, None, opts)
        self._name, self._args, self._settings = name, args, args.settings
        self._child = pulumi.ResourceOptions(parent=self)
        self._balancer = self._make_balancer()
        self._groups = {
            (service, colour): self._make_group(service, colour) for service in SERVICES for colour in COLOURS
        }
        self._acme = self._make_acme()
        self._listeners = {service: self._listen(service) for service in SERVICES}
        self._always = [self._listen_always(service, colour) for service, colour in self._groups]
        self._listener_acme = self._listen_acme()
        if args.zone_id and args.hostname:
            self._record()
        self._outputs()
        self.register_outputs({"dns_name": self.dns_name})

    def _outputs(self) -> None:
        self.dns_name = self._balancer.dns_name
        self.arn_suffix = self._balancer.arn_suffix
        # ECS refuses a group that no listener leads to yet.
        listeners = [*self._listeners.values(), *self._always, self._listener_acme]
        begin = {service: self._groups[service, "blue"] for service in SERVICES} | {"acme": self._acme}
        self.target_group_arns = {service: after(group.arn, *listeners) for service, group in begin.items()}
        self.target_group_names = {
            service: [self._groups[service, colour].name for colour in COLOURS] for service in SERVICES
        }
        self.target_group_arn_suffixes = {
            service: [self._groups[service, colour].arn_suffix for colour in COLOURS] for service in SERVICES
        } | {"acme": [self._acme.arn_suffix]}
        self.listener_arns = {service: listener.arn for service, listener in self._listeners.items()}

    def _make_balancer(self) -> aws.lb.LoadBalancer:
        args, of = self._args, self._settings
        return aws.lb.LoadBalancer(
            f"{self._name}-main",
            name=f"{args.name}-nlb",
            load_balancer_type="network",
            internal=False,
            subnets=args.subnet_ids,
            security_groups=args.security_group_ids,
            enable_cross_zone_load_balancing=of.cross_zone,
            enable_deletion_protection=of.deletion_protection,
            tags={"Name": f"{args.name}-nlb"},
            opts=self._child,
        )

    def _make_group(self, service: str, colour: str) -> aws.lb.TargetGroup:
        """Two of each service, between which CodeDeploy moves the listener."""
        args, of = self._args, self._settings
        return aws.lb.TargetGroup(
            f"{self._name}-smtp-{service}-{colour}",
            name=f"{args.name}-{SERVICES[service]}-{colour}",
            vpc_id=args.vpc_id,
            target_type="ip",
            protocol="TCP",
            port=args.ports[service],
            # The client's address comes in the PROXY header; the peer is the load balancer, from which alone a header
            # is believed.
            proxy_protocol_v2=of.proxy_protocol,
            preserve_client_ip=str(of.preserve_client_ip).lower(),
            deregistration_delay=of.deregistration_delay_seconds,
            # Sessions of a task that leaves, or is not ready, are ended by its 421 and not by a cut.
            connection_termination=False,
            target_health_states=[
                aws.lb.TargetGroupTargetHealthStateArgs(enable_unhealthy_connection_termination=False)
            ],
            health_check=self._health(self._settings.health_path),
            tags={"Name": f"{args.name}-{service}-{colour}"},
            opts=self._child,
        )

    def _make_acme(self) -> aws.lb.TargetGroup:
        """The issuer answers HTTP-01 in plain HTTP, without a PROXY header, and rolls: one group."""
        args, of = self._args, self._settings
        return aws.lb.TargetGroup(
            f"{self._name}-acme",
            name=f"{args.name}-acme",
            vpc_id=args.vpc_id,
            target_type="ip",
            protocol="TCP",
            port=args.ports["acme"],
            proxy_protocol_v2=False,
            preserve_client_ip=str(of.preserve_client_ip).lower(),
            deregistration_delay=of.acme_deregistration_delay_seconds,
            health_check=self._health(of.acme_health_path),
            tags={"Name": f"{args.name}-acme"},
            opts=self._child,
        )

    def _health(self, path: str) -> aws.lb.TargetGroupHealthCheckArgs:
        of = self._settings
        return aws.lb.TargetGroupHealthCheckArgs(
            protocol="HTTP",
            port=str(self._args.ports["health"]),
            path=path,
            matcher="200",
            interval=of.health_interval_seconds,
            timeout=of.health_timeout_seconds,
            healthy_threshold=of.healthy_threshold,
            unhealthy_threshold=of.unhealthy_threshold,
        )

    def _listen(self, service: str) -> aws.lb.Listener:
        """TCP, since TLS ends in the task."""
        args = self._args
        return aws.lb.Listener(
            f"{self._name}-smtp-{service}",
            load_balancer_arn=self._balancer.arn,
            protocol="TCP",
            port=args.ports[f"{service}_public"],
            tcp_idle_timeout_seconds=self._settings.idle_timeout_seconds,
            default_actions=[
                aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=self._groups[service, "blue"].arn)
            ],
            tags={"Name": f"{args.name}-{service}"},
            # Which of the two is in service is CodeDeploy's to say.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["defaultActions"]),
        )

    def _listen_always(self, service: str, colour: str) -> aws.lb.Listener:
        """Nobody reaches these: no security group opens their ports, and CodeDeploy is not told of them.

        A group that no listener leads to is asked for no health: its tasks would be moved to unasked, and then be
        minutes without an answer.
        """
        args = self._args
        return aws.lb.Listener(
            f"{self._name}-always-{service}-{colour}",
            load_balancer_arn=self._balancer.arn,
            protocol="TCP",
            port=args.ports[f"{service}_{colour}"],
            tcp_idle_timeout_seconds=self._settings.idle_timeout_seconds,
            default_actions=[
                aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=self._groups[service, colour].arn)
            ],
            tags={"Name": f"{args.name}-{service}-{colour}"},
            opts=self._child,
        )

    def _listen_acme(self) -> aws.lb.Listener:
        args = self._args
        return aws.lb.Listener(
            f"{self._name}-acme",
            load_balancer_arn=self._balancer.arn,
            protocol="TCP",
            port=args.ports["http"],
            default_actions=[aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=self._acme.arn)],
            tags={"Name": f"{args.name}-acme"},
            opts=self._child,
        )

    def _record(self) -> None:
        """The name that applications are given."""
        args, balancer = self._args, self._balancer
        aws.route53.Record(
            f"{self._name}-smtp",
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
