"""Who reaches what, and by TLS."""

from __future__ import annotations

from policy_breaches.breach import ARN, EGRESS, INGRESS, LISTENER, SERVICE, Breach, given, parameter, within, without

BREACHES = [
    Breach(
        "entrances",
        INGRESS,
        "vpc-rule-nlb-http",
        given(fromPort=22, toPort=22),
        "lets 0.0.0.0/0 reach port 22; the world may reach 587, 465, 80, 443 alone",
    ),
    Breach("entrances", INGRESS, "vpc-rule-nlb-http", given(fromPort=1), "lets 0.0.0.0/0 reach port 1 to 80;"),
    Breach("entrances", INGRESS, "vpc-rule-nlb-http", given(ipProtocol="-1"), "lets 0.0.0.0/0 reach all ports;"),
    Breach(
        "entrances",
        INGRESS,
        "vpc-rule-database-itself",
        given(cidrIpv4="128.0.0.0/1"),
        "lets 128.0.0.0/1 reach port 5432; the world",
    ),
    Breach(
        "entrances", INGRESS, "vpc-rule-cache-worker", given(cidrIpv6="::/0"), "lets ::/0 reach port 6379; the world"
    ),
    Breach(
        "exits",
        EGRESS,
        "vpc-rule-worker-to-mx",
        given(fromPort=0, toPort=65535),
        "may reach port 0 to 65535 of 0.0.0.0/0",
    ),
    Breach(
        "rules-explained", EGRESS, "vpc-rule-worker-to-mx", without("description"), "does not say why it is there; give"
    ),
    Breach(
        "groups-bare",
        "aws:ec2/securityGroup:SecurityGroup",
        "vpc-role-database",
        given(ingress=[{"fromPort": 0, "toPort": 0, "protocol": "-1", "cidrBlocks": ["0.0.0.0/0"]}]),
        "ingress within the group is looked at by nobody; make",
    ),
    Breach(
        "groups-bare",
        "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
        "vpc-closed",
        given(egress=[{"fromPort": 0, "toPort": 0, "protocol": "-1", "cidrBlocks": ["0.0.0.0/0"]}]),
        "egress within the group is looked at by nobody; make",
    ),
    Breach(
        "addresses-private",
        SERVICE,
        "ecs-rolling-worker",
        within("networkConfiguration", assignPublicIp=True),
        "gives tasks addresses of the Internet; set",
    ),
    Breach(
        "addresses-private",
        "aws:ec2/subnet:Subnet",
        "vpc-private-a",
        given(mapPublicIpOnLaunch=True),
        "gives tasks add",
    ),
    Breach(
        "listeners-by-tls",
        LISTENER,
        "alb-https",
        given(sslPolicy="ELBSecurityPolicy-2016-08"),
        "ELBSecurityPolicy-2016-08 is not TLS 1.2 and 1.3 alone; set",
        "switched",
    ),
    Breach(
        "listeners-by-tls", LISTENER, "alb-https", without("sslPolicy"), "None is not TLS 1.2 and 1.3 alone", "switched"
    ),
    Breach(
        "listeners-by-tls", LISTENER, "alb-https", without("certificateArn"), "has no certificate; give", "switched"
    ),
    Breach(
        "listeners-by-tls",
        LISTENER,
        "alb-redirect",
        given(defaultActions=[{"type": "forward", "targetGroupArn": ARN}]),
        "answers in clear text; redirect",
        "switched",
    ),
    Breach("listeners-by-tls", LISTENER, "nlb-acme", given(protocol="UDP"), "speaks UDP; SMTP is TCP"),
    Breach("listeners-by-tls", LISTENER, "alb-https", given(port=10587), "is open at 10587; the world", "switched"),
    Breach("listeners-by-tls", LISTENER, "nlb-acme", given(port=8080), "is open at 8080; the world reaches"),
    Breach(
        "database-by-tls",
        "aws:rds/parameterGroup:ParameterGroup",
        "rds-main",
        parameter("rds.force_ssl", "0"),
        "in clear",
    ),
    Breach(
        "database-by-tls",
        "aws:rds/parameterGroup:ParameterGroup",
        "rds-main",
        parameter("ssl_min_protocol_version", "TLSv1.1"),
        "takes TLSv1.1; set ssl_min_protocol_version",
    ),
    Breach(
        "proxy-by-tls", "aws:rds/proxy:Proxy", "rds-main", given(requireTls=False), "in clear text; set", "switched"
    ),
]
