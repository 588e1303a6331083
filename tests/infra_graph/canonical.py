"""The canonical form of a resource, and how two lists of them differ.

What both tools write differently for the same thing is evened out here, on both sides alike: the case and number of
argument names, a block of one beside a list of one, numbers as strings, the order of sets, how JSON inside strings is
laid out. The names in JSON stay as they are, and those of tags: they are AWS's, which refuses others, or our own.
The price: the order within lists is compared in ORDERED alone, and an empty list is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra_graph.kinds import CALLED, FIXED

# What stands for an attribute that only AWS knows: whose it is, and which.
TOKEN = re.compile(r"<(aws_[a-z0-9_]+)\|([^|<>]+)\|([a-z0-9_]+)>")


def token(kind: str, role: str, attribute: str) -> str:
    return f"<{kind}|{role}|{attribute}>"


def arn(kind: str, role: str) -> str:
    """As an ARN, since the provider checks where it is used that it is one."""
    return f"arn:aws:mock:us-east-1:123456789012:{token(kind, role, 'arn')}"


@dataclass(frozen=True)
class Resource:
    """A resource as both tools mean it: `kind` as Terraform calls it, arguments and dependencies in canonical form."""

    kind: str
    role: str
    arguments: Mapping[str, Any]
    dependencies: frozenset[str]
    # Arguments that are looked at when the resource is made, and not any more: `ignore_changes`.
    ignored: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"{self.kind} {self.role}"


def resource(
    kind: str, role: str, arguments: Mapping[str, Any], explicit: frozenset[str], ignored: Iterable[str] = ()
) -> Resource:
    """Of what a tool says; `explicit` are names of resources that it waits for though no argument refers to them."""
    form = normal({CALLED.get(kind, {}).get(key, key): value for key, value in arguments.items()})
    found = {f"{match[1]} {match[2]}" for match in TOKEN.finditer(json.dumps(form))}
    waits = frozenset(found | explicit) - {f"{kind} {role}"}
    return Resource(kind, role, form or {}, waits, frozenset(map(argument_name, ignored)))


# Arguments that are a resource's name in AWS, given by us and so known beforehand.
NAMES = ("name", "identifier", "replication_group_id", "user_group_id", "user_id", "resource_id")


def is_named(target: Resource, by: Resource) -> bool:
    """Whether an argument of `by` is the name of `target`."""
    given = [*(target.arguments.get(key) for key in NAMES), FIXED.get(target.kind, {}).get("name")]
    # A group's list of users has the argument name of one user's id; it is no name.
    # Also within an ARN, or before an @.
    said = {part for leaf in _leaves(by.arguments) for part in (leaf, *re.split("[@/:]", leaf))}
    return not {name for name in given if isinstance(name, str)}.isdisjoint(said)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, str):
        yield value


def argument_name(name: str) -> str:
    """`subnetIds` and `subnet_ids`, `parameters` and `parameter`: one name."""
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match[1].lower(), name).lower()
    snake = re.sub(r"aliases$", "alias", snake)
    return re.sub(r"ies$", "y", snake) if snake.endswith("ies") else re.sub(r"(?<!s)s$", "", snake)


# Lists whose order means something: whose argument, and which; within JSON by its names. Terraform has sets for most
# others.
ORDERED = frozenset(
    {
        ("container_definition", "command"),
        ("container_definition", "entryPoint"),
        ("healthCheck", "command"),
        ("target_group_pair_info", "target_group"),  # blue, and then green
        ("properties", "metrics"),  # of a chart: namespace, metric, and name and value of each dimension
    }
)


def normal(value: Any, at: tuple[str, str] = ("", ""), called: Callable[[str], str] = argument_name) -> Any:
    """The canonical form of an argument; None where nothing is said.

    `at`: whose argument it is, and which. `called`: the name of what a tool calls so.
    """
    if isinstance(value, Mapping):
        named = {key if at[1] == "tag" else called(key): inner for key, inner in value.items()}
        pairs = {key: normal(inner, (at[1], key), called) for key, inner in named.items()}
        # An empty block says something by being there: `allow {}`.
        return {key: inner for key, inner in sorted(pairs.items()) if inner is not None}
    if isinstance(value, list | tuple):
        items = [each for each in (normal(inner, at, called) for inner in value) if each is not None]
        if at not in ORDERED:
            items.sort(key=json.dumps)
        return items[0] if len(items) == 1 else items or None
    return _text(value, at) if isinstance(value, str) else _scalar(value)


def _text(value: str, at: tuple[str, str]) -> Any:
    if value[:1] not in ("{", "["):
        return value
    try:
        return normal(json.loads(value), at, str)
    except ValueError:
        return value


def _scalar(value: Any) -> str | None:
    """Pulumi's numbers are floats, and either side writes some of them, and truths, as strings."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def differences(terraform: list[Resource], pulumi: list[Resource]) -> Iterator[str]:
    """One line for each thing that one side says and the other does not."""
    left, right = ({each.name: each for each in side} for side in (terraform, pulumi))
    for name in sorted(left.keys() | right.keys()):
        if name not in right:
            yield f"{name}: only in terraform"
        elif name not in left:
            yield f"{name}: only in pulumi"
        else:
            # Through outputs and variables Terraform does not say whose name a known value is; Pulumi does.
            names = {
                other for other in right[name].dependencies if other in right and is_named(right[other], right[name])
            }
            yield from _within(name, left[name], right[name], names)


def _within(name: str, terraform: Resource, pulumi: Resource, by_name: set[str]) -> Iterator[str]:
    for key in sorted(terraform.arguments.keys() | pulumi.arguments.keys()):
        one, other = terraform.arguments.get(key), pulumi.arguments.get(key)
        if one != other:
            yield f"{name}: {key}: terraform {json.dumps(one)}, pulumi {json.dumps(other)}"
    for only, side in (
        (terraform.dependencies - pulumi.dependencies, "terraform"),
        (pulumi.dependencies - terraform.dependencies - by_name, "pulumi"),
    ):
        if only:
            yield f"{name}: waits for {', '.join(sorted(only))} only in {side}"
    if terraform.ignored != pulumi.ignored:
        yield f"{name}: ignores changes: terraform {sorted(terraform.ignored)}, pulumi {sorted(pulumi.ignored)}"
