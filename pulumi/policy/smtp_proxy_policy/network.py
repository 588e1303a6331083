"""What the world reaches, and how: the ports of stack.yaml, by load balancers alone, and TLS that is current."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network

from .reading import Found, as_list, block, is_on

# Of `ports` in stack.yaml, those that the world may reach, and those that tasks may reach in the world.
ENTRANCES = ("submission_public", "submissions_public", "http", "https")
# Those of the load balancer of SMTP that nobody reaches, since no rule opens them: each keeps a target group in use.
UNREACHED = ("submission_blue", "submission_green", "submissions_blue", "submissions_green")
EXITS = ("mx", "submission_public", "submissions_public", "https")
# TLS 1.3, and nothing below 1.2.
POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
CURRENT = re.compile(
    r"ELBSecurityPolicy-TLS13-1-[23]-(Res-)?(FIPS-)?[0-9-]+|ELBSecurityPolicy-TLS13-1-[23]-(Res-)?PQ-[0-9-]+"
)


def _is_outside(found: Found, cidr: str) -> bool:
    network, vpc = ip_network(cidr, strict=False), ip_network(found.settings["vpc"]["cidr"])
    return network.version != vpc.version or not network.subnet_of(vpc)  # type: ignore[arg-type]


def peer_outside(found: Found) -> str | None:
    """A network that reaches beyond the VPC."""
    for key in ("cidrIpv4", "cidrIpv6"):
        cidr = found.props.get(key)
        if cidr and _is_outside(found, cidr):
            return str(cidr)
    return None


def _span(found: Found) -> str:
    first, last = found.props.get("fromPort"), found.props.get("toPort")
    ports = f"{first or 0:g}" if first == last else f"{first or 0:g} to {last or 65535:g}"
    return "all ports" if found.props.get("ipProtocol") == "-1" else f"port {ports}"


def _is_one_of(found: Found, names: tuple[str, ...]) -> bool:
    props, ports = found.props, {found.settings["ports"][name] for name in names}
    return (
        props.get("ipProtocol") == "tcp"
        and props.get("fromPort") == props.get("toPort")
        and props.get("fromPort") in ports
    )


def ingress(found: Found) -> Iterator[str]:
    peer = peer_outside(found)
    if peer and not _is_one_of(found, ENTRANCES):
        ports = ", ".join(str(found.settings["ports"][name]) for name in ENTRANCES)
        yield f"lets {peer} reach {_span(found)}; the world may reach {ports} alone: let in a security group instead"


def egress(found: Found) -> Iterator[str]:
    peer = peer_outside(found)
    if peer and not _is_one_of(found, EXITS):
        ports = ", ".join(str(found.settings["ports"][name]) for name in EXITS)
        yield f"may reach {_span(found)} of {peer}; tasks reach {ports} of the world alone: name a security group"


def reasons(found: Found) -> Iterator[str]:
    if len(str(found.props.get("description") or "")) < 10:
        yield "does not say why it is there; give description (`why` of the rule in terraform/stack.yaml)"


def group(found: Found) -> Iterator[str]:
    for key in ("ingress", "egress"):
        if found.props.get(key):
            yield f"{key} within the group is looked at by nobody; make it a row of `rules` in terraform/stack.yaml"


def addresses(found: Found) -> Iterator[str]:
    of_service = block(found.props, "networkConfiguration").get("assignPublicIp")
    if is_on(of_service) or is_on(found.props.get("mapPublicIpOnLaunch")):
        yield "gives tasks addresses of the Internet; set it to False: they leave by NAT, and load balancers reach them"


def listener(found: Found) -> Iterator[str]:
    props, ports = found.props, found.settings["ports"]
    protocol = props.get("protocol")
    if protocol in ("HTTPS", "TLS"):
        if not CURRENT.fullmatch(str(props.get("sslPolicy"))):
            yield f"{props.get('sslPolicy')} is not TLS 1.2 and 1.3 alone; set ssl_policy={POLICY}"
        if not props.get("certificateArn"):
            yield "has no certificate; give certificate_arn"
    elif protocol == "HTTP":
        if any(each.get("type") != "redirect" for each in as_list(props.get("defaultActions"))):
            yield "answers in clear text; redirect to HTTPS"
    elif protocol != "TCP":
        yield f"speaks {protocol}; SMTP is TCP, whose TLS ends in the task, and the web is HTTPS"
    named = ENTRANCES + UNREACHED if protocol == "TCP" else ENTRANCES
    if props.get("port") not in {ports[name] for name in named}:
        yield f"is open at {props.get('port'):g}; the world reaches {', '.join(ENTRANCES)} of stack.yaml alone"


def database_tls(found: Found) -> Iterator[str]:
    given = {each["name"]: str(each.get("value")) for each in as_list(found.props.get("parameters"))}
    if given.get("rds.force_ssl") != "1":
        yield "takes connections in clear text; set rds.force_ssl to 1"
    if given.get("ssl_min_protocol_version", "TLSv1.2") not in ("TLSv1.2", "TLSv1.3"):
        yield f"takes {given['ssl_min_protocol_version']}; set ssl_min_protocol_version to TLSv1.2, or leave it"


def proxy_tls(found: Found) -> Iterator[str]:
    if not is_on(found.props.get("requireTls")):
        yield "takes connections in clear text; set require_tls=True"
