"""The network, its ways out, its endpoints, and every security group: the twin of terraform/modules/vpc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import pulumi
import pulumi_aws as aws

from . import policies
from .order import after


class Rule(TypedDict):
    """One port between a group and a peer (another group, `world` or `s3`), and why."""

    group: str
    direction: str
    peer: str
    port: str
    why: str


@dataclass(frozen=True, kw_only=True)
class VpcArgs:
    """Sections vpc, ports and security of stack.yaml; networks by the letter of their zone, days."""

    name: str
    region: str
    zones: Mapping[str, str]
    cidr: str
    public_cidrs: Mapping[str, str]
    private_cidrs: Mapping[str, str]
    database_cidrs: Mapping[str, str]
    nat_zones: Sequence[str]
    endpoints: Sequence[str]
    flow_log_retention_days: int
    ports: Mapping[str, int]
    groups: Mapping[str, str]
    rules: Mapping[str, Rule]


class Vpc(pulumi.ComponentResource):
    """Outputs: subnet ids by zone, security group ids by role, the addresses that tasks leave from."""

    def __init__(self, name: str, args: VpcArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("smtp-proxy:infra:Vpc", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._reach: list[pulumi.Resource] = []  # what lets tasks reach anything
        self._network()
        self._ways_out()
        self._routes()
        self._security_groups()
        self._endpoints()
        self._rules()
        self._flow_logs()
        self.vpc_id: pulumi.Output[str] = self._vpc.id
        # A network is public once it has a way out: a load balancer in one without is refused.
        self.public_subnet_ids = {zone: after(subnet.id, *self._open) for zone, subnet in self._public.items()}
        # A task that starts before it can reach its image, its secrets or the database fails.
        self.private_subnet_ids = {zone: after(subnet.id, *self._reach) for zone, subnet in self._private.items()}
        self.database_subnet_ids = {zone: subnet.id for zone, subnet in self._database.items()}
        self.security_group_ids = {role: group.id for role, group in self._groups.items()}
        self.nat_addresses = {zone: address.public_ip for zone, address in self._addresses.items()}
        self.register_outputs({"vpc_id": self.vpc_id})

    def _named(self, suffix: str = "") -> dict[str, str]:
        return {"Name": self._args.name + suffix}

    def _network(self) -> None:
        name, args = self._name, self._args
        self._vpc = aws.ec2.Vpc(
            f"{name}-main",
            cidr_block=args.cidr,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=self._named(),
            opts=self._child,
        )
        # What nobody has chosen a group for gets this one: it lets nothing through.
        aws.ec2.DefaultSecurityGroup(
            f"{name}-closed", vpc_id=self._vpc.id, tags=self._named("-closed"), opts=self._child
        )
        self._internet = aws.ec2.InternetGateway(
            f"{name}-main", vpc_id=self._vpc.id, tags=self._named(), opts=self._child
        )
        self._public = self._subnets("public", args.public_cidrs)
        self._private = self._subnets("private", args.private_cidrs)
        self._database = self._subnets("database", args.database_cidrs)

    def _subnets(self, tier: str, cidrs: Mapping[str, str]) -> dict[str, aws.ec2.Subnet]:
        return {
            zone: aws.ec2.Subnet(
                f"{self._name}-{tier}-{zone}",
                vpc_id=self._vpc.id,
                cidr_block=cidr,
                availability_zone=self._args.zones[zone],
                tags=self._named(f"-{tier}-{zone}"),
                opts=self._child,
            )
            for zone, cidr in cidrs.items()
        }

    def _ways_out(self) -> None:
        name, args = self._name, self._args
        # AWS maps no public address in a VPC that has no gateway yet, and takes no gateway from one that has any.
        opts = pulumi.ResourceOptions(parent=self, depends_on=[self._internet])
        self._addresses = {
            zone: aws.ec2.Eip(f"{name}-nat-{zone}", domain="vpc", tags=self._named(f"-nat-{zone}"), opts=opts)
            for zone in args.nat_zones
        }
        self._gateways = {
            zone: aws.ec2.NatGateway(
                f"{name}-main-{zone}",
                allocation_id=address.id,
                subnet_id=self._public[zone].id,
                tags=self._named(f"-{zone}"),
                opts=opts,
            )
            for zone, address in self._addresses.items()
        }

    def _routes(self) -> None:
        name, args = self._name, self._args
        public = self._table("public")
        way_out = aws.ec2.Route(
            f"{name}-public",
            route_table_id=public.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=self._internet.id,
            opts=self._child,
        )
        associated = [self._associate(f"public-{zone}", subnet, public) for zone, subnet in self._public.items()]
        self._open: list[pulumi.Resource] = [way_out, *associated]
        # A table for each zone, so that a zone's tasks leave through the zone's own gateway where it has one.
        self._private_tables = {zone: self._table(f"private-{zone}") for zone in self._private}
        for zone, table in self._private_tables.items():
            out = aws.ec2.Route(
                f"{name}-private-{zone}",
                route_table_id=table.id,
                destination_cidr_block="0.0.0.0/0",
                nat_gateway_id=self._gateways[zone if zone in args.nat_zones else args.nat_zones[0]].id,
                opts=self._child,
            )
            self._reach += [out, self._associate(f"private-{zone}", self._private[zone], table)]
        # Databases reach nothing outside the VPC: a table without a route.
        database = self._table("database")
        for zone, subnet in self._database.items():
            self._associate(f"database-{zone}", subnet, database)

    def _table(self, suffix: str) -> aws.ec2.RouteTable:
        return aws.ec2.RouteTable(
            f"{self._name}-{suffix}", vpc_id=self._vpc.id, tags=self._named(f"-{suffix}"), opts=self._child
        )

    def _associate(
        self, suffix: str, subnet: aws.ec2.Subnet, table: aws.ec2.RouteTable
    ) -> aws.ec2.RouteTableAssociation:
        return aws.ec2.RouteTableAssociation(
            f"{self._name}-{suffix}", subnet_id=subnet.id, route_table_id=table.id, opts=self._child
        )

    def _endpoints(self) -> None:
        name, args = self._name, self._args
        self._s3 = aws.ec2.VpcEndpoint(
            f"{name}-s3",
            vpc_id=self._vpc.id,
            service_name=f"com.amazonaws.{args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[self._private_tables[zone].id for zone in sorted(self._private_tables)],
            tags=self._named("-s3"),
            opts=self._child,
        )
        self._reach.append(self._s3)
        for service in args.endpoints:
            endpoint = aws.ec2.VpcEndpoint(
                f"{name}-interface-{service}",
                vpc_id=self._vpc.id,
                service_name=f"com.amazonaws.{args.region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=[self._private[zone].id for zone in sorted(self._private)],
                security_group_ids=[self._groups["endpoints"].id],
                tags=self._named(f"-{service}"),
                opts=self._child,
            )
            self._reach.append(endpoint)

    def _security_groups(self) -> None:
        self._groups = {
            role: aws.ec2.SecurityGroup(
                f"{self._name}-role-{role}",
                name=f"{self._args.name}-{role}",
                description=description,
                vpc_id=self._vpc.id,
                tags=self._named(f"-{role}"),
                opts=self._child,
            )
            for role, description in self._args.groups.items()
        }

    def _rules(self) -> None:
        for rule_name, rule in self._args.rules.items():
            kind = {
                "ingress": aws.vpc.SecurityGroupIngressRule,
                "egress": aws.vpc.SecurityGroupEgressRule,
            }[rule["direction"]]
            port, peer = self._args.ports[rule["port"]], rule["peer"]
            made = kind(
                f"{self._name}-rule-{rule_name}",
                security_group_id=self._groups[rule["group"]].id,
                description=rule["why"],
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                cidr_ipv4="0.0.0.0/0" if peer == "world" else None,
                prefix_list_id=self._s3.prefix_list_id if peer == "s3" else None,
                referenced_security_group_id=self._groups[peer].id if peer in self._groups else None,
                opts=self._child,
            )
            self._reach.append(made)

    def _flow_logs(self) -> None:
        name, args = self._name, self._args
        logs = aws.cloudwatch.LogGroup(
            f"{name}-flow",
            name=f"/{args.name}/vpc-flow",
            retention_in_days=args.flow_log_retention_days,
            opts=self._child,
        )
        role = aws.iam.Role(
            f"{name}-flow",
            name=f"{args.name}-vpc-flow",
            assume_role_policy=policies.trust("vpc-flow-logs.amazonaws.com"),
            opts=self._child,
        )
        write = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        aws.iam.RolePolicy(
            f"{name}-flow",
            name="write",
            role=role.id,
            policy=policies.policy(policies.allow(write, [pulumi.Output.concat(logs.arn, ":*")])),
            opts=self._child,
        )
        aws.ec2.FlowLog(
            f"{name}-main",
            vpc_id=self._vpc.id,
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_destination=logs.arn,
            iam_role_arn=role.arn,
            max_aggregation_interval=60,
            tags=self._named(),
            opts=self._child,
        )
