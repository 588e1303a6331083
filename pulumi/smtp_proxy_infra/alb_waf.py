"""AWS WAF before the application load balancer: a part of `alb`, the twin of terraform/modules/alb."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_aws as aws
from pulumi_aws import wafv2

# By rule set its priority, and the rules of it that only count: a list for the API is larger than 8 KiB,
# and `<a@b.example>` looks like HTML.
RULE_SETS: dict[str, tuple[int, Sequence[str]]] = {
    "AWSManagedRulesAmazonIpReputationList": (1, ()),
    "AWSManagedRulesCommonRuleSet": (2, ("SizeRestrictions_BODY", "CrossSiteScripting_BODY")),
    "AWSManagedRulesKnownBadInputsRuleSet": (3, ()),
}


def guard(
    name: str,
    balancer: aws.lb.LoadBalancer,
    *,
    prefix: str,
    requests_per_address: int,
    opts: pulumi.ResourceOptions,
) -> None:
    """Managed rules and a rate (requests in 5 minutes) for each address."""
    acl = wafv2.WebAcl(
        f"{name}-main",
        name=f"{prefix}-alb",
        description="Managed rules, and a rate for each address",
        scope="REGIONAL",
        default_action=wafv2.WebAclDefaultActionArgs(allow=wafv2.WebAclDefaultActionAllowArgs()),
        rules=[_rate(prefix, requests_per_address), *(_managed(prefix, rule_set) for rule_set in RULE_SETS)],
        # Sampled requests would show what mail holds.
        visibility_config=wafv2.WebAclVisibilityConfigArgs(
            cloudwatch_metrics_enabled=True, metric_name=f"{prefix}-alb", sampled_requests_enabled=False
        ),
        tags={"Name": f"{prefix}-alb"},
        opts=opts,
    )
    wafv2.WebAclAssociation(f"{name}-main", resource_arn=balancer.arn, web_acl_arn=acl.arn, opts=opts)


def _rate(prefix: str, limit: int) -> wafv2.WebAclRuleArgs:
    return wafv2.WebAclRuleArgs(
        name="rate",
        priority=0,
        action=wafv2.WebAclRuleActionArgs(block=wafv2.WebAclRuleActionBlockArgs()),
        statement=wafv2.WebAclRuleStatementArgs(
            rate_based_statement=wafv2.WebAclRuleStatementRateBasedStatementArgs(
                aggregate_key_type="IP", limit=limit, evaluation_window_sec=300
            )
        ),
        visibility_config=_metric(f"{prefix}-rate"),
    )


def _managed(prefix: str, rule_set: str) -> wafv2.WebAclRuleArgs:
    priority, counts = RULE_SETS[rule_set]
    return wafv2.WebAclRuleArgs(
        name=rule_set,
        priority=priority,
        override_action=wafv2.WebAclRuleOverrideActionArgs(
            none=wafv2.WebAclRuleOverrideActionNoneArgs()  # type: ignore[no-untyped-call]  # as it was generated
        ),
        statement=wafv2.WebAclRuleStatementArgs(
            managed_rule_group_statement=wafv2.WebAclRuleStatementManagedRuleGroupStatementArgs(
                name=rule_set,
                vendor_name="AWS",
                rule_action_overrides=[
                    wafv2.WebAclRuleStatementManagedRuleGroupStatementRuleActionOverrideArgs(
                        name=rule,
                        action_to_use=wafv2.WebAclRuleStatementManagedRuleGroupStatementRuleActionOverrideActionToUseArgs(
                            count=wafv2.WebAclRuleStatementManagedRuleGroupStatementRuleActionOverrideActionToUseCountArgs()
                        ),
                    )
                    for rule in counts
                ],
            )
        ),
        visibility_config=_metric(f"{prefix}-{rule_set}"),
    )


def _metric(name: str) -> wafv2.WebAclRuleVisibilityConfigArgs:
    return wafv2.WebAclRuleVisibilityConfigArgs(
        cloudwatch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=False
    )
