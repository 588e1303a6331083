"""The load balancers, as production has them: where the world comes in, who is asked for health, how tasks leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from fix_infra import SIDES, Side
from infra_graph.canonical import Resource

from smtp_proxy.config import Settings
from smtp_proxy_infra import settings
from smtp_proxy_infra.alb import AlbArgs, AlbSettings
from smtp_proxy_infra.nlb import NlbSettings

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)

ENVIRONMENTS = ("dev", "staging", "production")
FAILOVER_SECONDS = 120  # the longest that RDS names for a fail-over of a Multi-AZ instance
DRAINING_SECONDS = 120  # how long a network load balancer goes on sending connections to a target that was deregistered


def of_kind(resources: list[Resource], kind: str) -> dict[str, Mapping[str, Any]]:
    return {each.role: each.arguments for each in resources if each.kind == kind}


@SIDES
def test_each_port_leads_to_its_service(side: str, production: Side) -> None:
    """587 and 465 are two services with a listener each, since CodeDeploy takes one; 80 is HTTP-01."""
    listeners = of_kind(production(side), "aws_lb_listener")
    leads = {
        (each["port"], each["protocol"], each["default_action"]["target_group_arn"].rpartition("<")[2])
        for role, each in listeners.items()
        if role.startswith("nlb-") and not role.startswith("nlb-always-")
    }
    assert leads == {
        ("587", "TCP", "aws_lb_target_group|nlb-smtp-submission-blue|arn>"),
        ("465", "TCP", "aws_lb_target_group|nlb-smtp-submissions-blue|arn>"),
        ("80", "TCP", "aws_lb_target_group|nlb-acme|arn>"),
    }
    groups = of_kind(production(side), "aws_lb_target_group")
    assert {role: groups[role]["port"] for role in groups if role.startswith("nlb-")} == {
        "nlb-smtp-submission-blue": "2587",
        "nlb-smtp-submission-green": "2587",
        "nlb-smtp-submissions-blue": "2465",
        "nlb-smtp-submissions-green": "2465",
        "nlb-acme": "8089",
    }


@SIDES
def test_both_groups_of_a_service_are_asked_for_health_before_traffic_comes(side: str, production: Side) -> None:
    """REQ-INFRA-ECS-012: a group that no listener leads to is not; CodeDeploy takes the public one from each in turn.

    What leads to a group for good is nothing that CodeDeploy may move, and nothing that anybody reaches.
    """
    resources = production(side)
    ours = {role for role in of_kind(resources, "aws_lb_target_group") if role.startswith("nlb-")}
    moved = of_kind(resources, "aws_codedeploy_deployment_group").values()
    movable = {
        each["load_balancer_info"]["target_group_pair_info"]["prod_traffic_route"]["listener_arn"] for each in moved
    }
    assert len(movable) == 2
    lasting = {
        each.arguments["default_action"]["target_group_arn"].split("|")[1]: each.arguments["port"]
        for each in resources
        if each.kind == "aws_lb_listener"
        and not each.ignored
        and not any(f"<aws_lb_listener|{each.role}|arn>" in arn for arn in movable)
    }
    assert lasting.keys() == ours
    entered = {
        each["from_port"]
        for role, each in of_kind(resources, "aws_vpc_security_group_ingress_rule").items()
        if "<aws_security_group|vpc-role-nlb|" in each["security_group_id"]
    }
    assert entered == {"587", "465", "80"}
    assert len(set(lasting.values())) == len(ours)
    assert {role for role, port in lasting.items() if port in entered} == {"nlb-acme"}


def waits(resources: list[Resource], name: str) -> set[str]:
    """All that a resource waits for, by name, and what that waits for."""
    of, found, ahead = {each.name: each.dependencies for each in resources}, set(), [name]
    while ahead:
        new = of[ahead.pop()] - found
        found |= new
        ahead += new
    return found


@SIDES
def test_what_has_a_public_address_waits_for_the_gateway(side: str, switched: Side) -> None:
    """AWS refuses it in a VPC without one; and takes no gateway away before these are gone."""
    resources = switched(side)
    public = [each.name for each in resources if each.kind in ("aws_eip", "aws_nat_gateway", "aws_lb")]
    assert {"aws_eip vpc-nat-a", "aws_nat_gateway vpc-main-a", "aws_lb nlb-main", "aws_lb alb-main"} <= set(public)
    for name in public:
        assert "aws_internet_gateway vpc-main" in waits(resources, name), name
    ways = {f"aws_route_table_association vpc-public-{zone}" for zone in "abc"} | {"aws_route vpc-public"}
    for name in ("aws_lb nlb-main", "aws_lb alb-main"):
        assert ways <= waits(resources, name), name


@SIDES
def test_no_group_is_without_a_health_check(side: str, production: Side) -> None:
    """REQ-INFRA-ECS-012: nothing takes traffic unasked. Health is a real answer over HTTP, not an open port."""
    groups = of_kind(production(side), "aws_lb_target_group")
    assert len(groups) >= 5
    for role, group in groups.items():
        check = group["health_check"]
        assert (check["protocol"], check["matcher"]) == ("HTTP", "200"), role
        # The one issuer waits for the schema at the first apply, and ECS would give it up. SMTP's tasks are not ended
        # for a database that is away.
        assert check["path"] == ("/healthz" if role == "nlb-acme" else "/targetz"), role


@SIDES
def test_https_has_a_certificate_and_nothing_else_is_http(side: str, switched: Side) -> None:
    """Also REQ-INFRA-ECS-012 for what is switched off in production: its groups ask for health as well."""
    listeners = {
        role: each for role, each in of_kind(switched(side), "aws_lb_listener").items() if role.startswith("alb-")
    }
    assert {(each["protocol"], each["port"]) for each in listeners.values()} == {("HTTPS", "443"), ("HTTP", "80")}
    for each in listeners.values():
        if each["protocol"] == "HTTPS":
            assert "<aws_acm_certificate|alb-main|arn>" in each["certificate_arn"]
            assert each["ssl_policy"].startswith("ELBSecurityPolicy-TLS13-1-2")
        else:
            assert each["default_action"]["redirect"] == {"port": "443", "protocol": "HTTPS", "status_code": "HTTP_301"}
    waits = next(each for each in switched(side) if each.name == "aws_lb_listener alb-https").dependencies
    assert "aws_acm_certificate_validation alb-main" in waits
    checks = [each["health_check"] for each in of_kind(switched(side), "aws_lb_target_group").values()]
    assert len(checks) == 9
    assert all((each["protocol"], each["matcher"]) == ("HTTP", "200") for each in checks)


@SIDES
def test_the_firewall_blocks_rates_and_lets_mail_through(side: str, switched: Side) -> None:
    (acl,) = of_kind(switched(side), "aws_wafv2_web_acl").values()
    assert acl["default_action"] == {"allow": {}}
    rules = {rule["name"]: rule for rule in acl["rule"]}
    assert rules["rate"]["action"] == {"block": {}}
    common = rules["AWSManagedRulesCommonRuleSet"]["statement"]["managed_rule_group_statement"]
    counted = {each["name"] for each in common["rule_action_override"]}
    assert counted == {"SizeRestrictions_BODY", "CrossSiteScripting_BODY"}


@SIDES
def test_access_logs_are_written_by_load_balancers_alone(side: str, switched: Side) -> None:
    (policy,) = (each for role, each in of_kind(switched(side), "aws_s3_bucket_policy").items() if role == "alb-logs")
    granted = [each for each in policy["policy"]["Statement"] if each["Effect"] == "Allow"]
    assert [each["Principal"] for each in granted] == [{"Service": "logdelivery.elasticloadbalancing.amazonaws.com"}]
    assert granted[0]["Action"] == "s3:PutObject"
    assert granted[0]["Resource"].endswith("/AWSLogs/123456789012/*")


@SIDES
def test_a_task_that_leaves_keeps_its_sessions(side: str, production: Side) -> None:
    """REQ-INFRA-SCALE-002: it is told to stop after the load balancer has stopped sending, and nothing is cut."""
    groups = of_kind(production(side), "aws_lb_target_group")
    smtp = {role: group for role, group in groups.items() if role.startswith("nlb-smtp-")}
    assert len(smtp) == 4
    for role, group in smtp.items():
        assert int(group["deregistration_delay"]) >= DRAINING_SECONDS, role
        assert group["connection_termination"] == "false", role
        assert group["target_health_state"] == {"enable_unhealthy_connection_termination": "false"}, role


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_server_ends_a_session_before_the_load_balancer_does(environment: str) -> None:
    idle = settings.load(environment)["nlb"]["idle_timeout_seconds"]
    waits = {name: Settings.model_fields[name].default for name in Settings.model_fields}
    assert idle > max(waits["smtp_command_timeout_seconds"], waits["smtp_data_timeout_seconds"])
    assert idle > 600  # RFC 5321 4.5.3.2.6: what a client waits for the last reply


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_fail_over_of_the_database_replaces_no_task(environment: str) -> None:
    nlb = settings.load(environment)["nlb"]
    assert nlb["health_interval_seconds"] * nlb["unhealthy_threshold"] > FAILOVER_SECONDS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"idle_timeout_seconds": 350}, "idle_timeout_seconds must be 600"),
        ({"preserve_client_ip": True}, "preserve_client_ip must be false"),
        ({"deregistration_delay_seconds": 60}, "deregistration_delay_seconds must be 120"),
        ({"health_timeout_seconds": 15}, "health_timeout_seconds must be less"),
        ({"unhealthy_threshold": 11}, "unhealthy_threshold must be 2 to 10"),
    ],
)
def test_what_terraform_refuses_pulumi_refuses(change: dict[str, Any], said: str) -> None:
    """Terraform's half is in terraform/tests/nlb.tftest.hcl."""
    NlbSettings(**settings.load("production")["nlb"])
    with pytest.raises(settings.BadSettings, match=said):
        NlbSettings(**settings.load("production")["nlb"] | change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ssl_policy": "ELBSecurityPolicy-2016-08"}, "ssl_policy must have TLS 1.3"),
        ({"api_paths": ["api/*"]}, "must begin with /"),
        ({"api_paths": []}, "at least one"),
        ({"health_timeout_seconds": 15}, "health_timeout_seconds must be less"),
        ({"waf_requests_per_address": 1}, "at least 10"),
    ],
)
def test_what_terraform_refuses_of_alb_pulumi_refuses(change: dict[str, Any], said: str) -> None:
    """Terraform's half is in terraform/tests/alb.tftest.hcl."""
    AlbSettings(**settings.load("production")["alb"])
    with pytest.raises(settings.BadSettings, match=said):
        AlbSettings(**settings.load("production")["alb"] | change)


@pytest.mark.parametrize("missing", ["zone_id", "hostname"])
def test_no_https_without_a_certificate(missing: str) -> None:
    given: dict[str, Any] = {"zone_id": "Z0123456789ABC", "hostname": "mail.example.com"} | {missing: ""}
    with pytest.raises(settings.BadSettings, match="without a certificate no HTTPS"):
        AlbArgs(
            name="smtp-proxy-dev",
            account_id="123456789012",
            vpc_id="vpc-a",
            subnet_ids=["subnet-a"],
            security_group_ids=["sg-a"],
            ports={},
            settings=AlbSettings(**settings.load("dev")["alb"]),
            **given,
        )
