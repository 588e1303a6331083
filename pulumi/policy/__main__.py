"""The policy pack `smtp-proxy`, as Pulumi's command line runs it (`--policy-pack`): the rules, told to the SDK.

Nothing else here knows the SDK, which wants an older protobuf than the program does: .venv-policy, `make setup-policy`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

# Where smtp_proxy_infra/settings.py is, which knows how stack.yaml is read.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from smtp_proxy_policy.reading import Found, Unknown
from smtp_proxy_policy.rules import RULES, STACK_RULES, Rule, StackRule


def plain(value: Any) -> Any:
    """Out of the SDK's proxies, which raise where something is not known yet: that becomes `Unknown`."""
    if isinstance(value, Mapping):
        return {key: _item(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_item(value, index) for index in range(len(value))]
    return value


def _item(container: Any, key: Any) -> Any:
    try:
        return plain(container[key])
    except UnknownValueError as error:
        return Unknown(error)


def found_of(args: Any) -> Found:
    """What the SDK says of a resource: of `ResourceValidationArgs`, and of the resources of a stack."""
    provider = plain(args.provider.props) if args.provider is not None else None
    return Found(kind=args.resource_type, name=args.name, urn=args.urn, props=plain(args.props), provider=provider)


def resource_policy(rule: Rule) -> Policy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        found = found_of(args)
        # One by one, so that what was found is kept where the next question meets something unknown.
        for problem in rule.problems(found):
            report(f"{found.title}: {problem}", found.urn)

    return ResourceValidationPolicy(
        name=rule.name, description=rule.must, validate=validate, enforcement_level=_level(rule)
    )


def stack_policy(rule: StackRule) -> Policy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        found = {each.urn: found_of(each) for each in args.resources}
        for each in args.resources:
            of = found[each.urn]
            of.depends_on.extend(found[other.urn] for other in each.dependencies)
            of.given_by.update(
                {key: [found[other.urn] for other in others] for key, others in each.property_dependencies.items()}
            )
        for blamed, problem in rule.problems(list(found.values())):
            report(f"{blamed.title}: {problem}" if blamed else problem, blamed.urn if blamed else None)

    return StackValidationPolicy(
        name=rule.name, description=rule.must, validate=validate, enforcement_level=_level(rule)
    )


def _level(rule: Rule | StackRule) -> EnforcementLevel:
    return EnforcementLevel.ADVISORY if rule.advice else EnforcementLevel.MANDATORY


PolicyPack(
    name="smtp-proxy",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[*map(resource_policy, RULES), *map(stack_policy, STACK_RULES)],
)
