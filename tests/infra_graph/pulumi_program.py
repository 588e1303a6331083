"""`python -m infra_graph.pulumi_program ENVIRONMENT OWN`: the whole program against mocks; its resources as JSON.

OWN is the fields of `stack.Own`, as JSON.

A process of its own, because Pulumi's runtime is global and lives in threads. Nothing is asked of AWS: every resource
answers with what it was given, and with tokens for what only AWS would know.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

import pulumi
from pulumi.runtime import mocks

from infra_graph.canonical import arn, token
from infra_graph.kinds import COMPUTED, FIXED, KINDS, NESTED
from smtp_proxy_infra.stack import Own, declare

ACCOUNT = "123456789012"


class UnknownKind(Exception):
    """A resource type without a row in infra_graph/kinds.py."""


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match[1].lower(), name)


def camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


class Answers(mocks.Mocks):
    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        if not args.typ.startswith("aws:"):
            return f"{args.name}-id", args.inputs
        if args.typ not in KINDS:
            raise UnknownKind(f"{args.typ} ({args.name}): add it to KINDS in tests/infra_graph/kinds.py")
        kind = KINDS[args.typ]
        known = {"arn": arn(kind, args.name)} | {each: token(kind, args.name, snake(each)) for each in COMPUTED}
        known |= FIXED.get(kind, {})
        for block, attributes in NESTED.get(kind, {}).items():
            known[camel(block.removesuffix("s")) + "s"] = [
                {camel(each): nested(kind, args.name, block, each) for each in attributes}
            ]
        return token(kind, args.name, "id"), known | args.inputs

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        raise AssertionError(f"{args.token}: the stack asks AWS for nothing, so that a plan needs no account")


def nested(kind: str, role: str, block: str, attribute: str) -> str:
    """An ARN where it is one."""
    name = f"{block}_{attribute}"
    return (
        f"arn:aws:mock:us-east-1:{ACCOUNT}:{token(kind, role, name)}"
        if name.endswith("arn")
        else token(kind, role, name)
    )


class Monitor(mocks.MockMonitor):
    """Keeps what was registered with its dependencies, which mocks are not told."""

    def __init__(self) -> None:
        super().__init__(Answers())
        self.registered: list[dict[str, Any]] = []

    def RegisterResource(self, request: Any) -> Any:
        if request.type.startswith("aws:"):
            inputs = pulumi.runtime.rpc.deserialize_properties(request.object)
            waits = [urn.rpartition("::") for urn in request.dependencies]
            self.registered.append(
                {
                    "kind": KINDS.get(request.type, request.type),
                    "role": request.name,
                    "arguments": inputs,
                    "ignored": list(request.ignoreChanges),
                    "dependencies": [
                        f"{KINDS[typ.rpartition('$')[2]]} {name}"
                        for typ, name in ((head.rpartition("::")[2], name) for head, _, name in waits)
                        if typ.rpartition("$")[2] in KINDS
                    ],
                }
            )
        return super().RegisterResource(request)


def run(environment: str, own: Own, monitor: Monitor) -> None:
    asyncio.set_event_loop(asyncio.new_event_loop())
    mocks.set_mocks(Answers(), project="smtp-proxy", stack=environment, monitor=monitor)

    @mocks.test
    def program() -> None:
        declare(environment, ACCOUNT, own)

    program()


def render(environment: str, own: Own) -> list[dict[str, Any]]:
    monitor = Monitor()
    run(environment, own, monitor)
    return monitor.registered


if __name__ == "__main__":
    json.dump(render(sys.argv[1], Own(**json.loads(sys.argv[2]))), sys.stdout)
