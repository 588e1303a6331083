"""Answers as the provider `aws`: keeps what was made, and refuses what AWS would refuse."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from infra_graph.canonical import TOKEN, arn, token
from infra_graph.kinds import COMPUTED, FIXED, KINDS, NESTED
from infra_graph.pulumi_program import camel, nested, snake
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc
from pulumi.runtime.rpc import UNKNOWN

Inputs = Mapping[str, Any]
# Arguments by which AWS is told to keep what it is told to delete.
PROTECTING = ("deletionProtection", "enableDeletionProtection")


class Made(NamedTuple):
    kind: str
    name: str
    inputs: Inputs

    @property
    def refers_to(self) -> set[tuple[str, str]]:
        found = {(match[1], match[2]) for match in TOKEN.finditer(json.dumps(self.inputs))}
        return found - {(self.kind, self.name)}


class Refused(Exception):
    """What AWS would say no to."""


def plain(struct: Struct) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(struct)
    return found


def packed(values: Inputs) -> Struct:
    found = Struct()
    found.update(values)
    return found


def outputs(kind: str, name: str, inputs: Inputs, *, preview: bool) -> dict[str, Any]:
    """What was given, and what only AWS knows; of that, in a preview, nothing."""
    known: dict[str, Any] = {"arn": arn(kind, name)} | {each: token(kind, name, snake(each)) for each in COMPUTED}
    for block, attributes in NESTED.get(kind, {}).items():
        known[camel(block.removesuffix("s")) + "s"] = [
            {camel(each): nested(kind, name, block, each) for each in attributes}
        ]
    if preview:
        known = dict.fromkeys(known, UNKNOWN)
    return known | FIXED.get(kind, {}) | dict(inputs)


class Aws(provider_pb2_grpc.ResourceProviderServicer):
    """`there`: what exists, by id. `did`: what was done, in its order."""

    def __init__(self) -> None:
        self.there: dict[str, Made] = {}
        self.did: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    # -- the provider itself

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse()

    def Attach(self, request: Any, context: Any) -> Any:
        return Empty()

    def Cancel(self, request: Any, context: Any) -> Any:
        return Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="6.83.4")

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return _difference(plain(request.old_inputs), plain(request.news))

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    # -- resources

    def Check(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: Any) -> Any:
        return _difference(plain(request.old_inputs), plain(request.news))

    def Create(self, request: Any, context: Any) -> Any:
        kind, name, inputs = KINDS[request.type], request.name, plain(request.properties)
        found = outputs(kind, name, inputs, preview=request.preview)
        if request.preview:
            return provider_pb2.CreateResponse(properties=packed(found))
        made, called = Made(kind, name, inputs), token(kind, name, "id")
        with self._lock, _refusals(context):
            self.could_make(made)
            self.there[called] = made
            self.did.append(("create", name))
        return provider_pb2.CreateResponse(id=called, properties=packed(found))

    def Update(self, request: Any, context: Any) -> Any:
        kind, name, inputs = KINDS[request.type], request.name, plain(request.news)
        if not request.preview:
            with self._lock:
                self.there[request.id] = Made(kind, name, inputs)
                self.did.append(("update", name))
        return provider_pb2.UpdateResponse(properties=packed(outputs(kind, name, inputs, preview=False)))

    def Read(self, request: Any, context: Any) -> Any:
        with self._lock:
            made = self.there.get(request.id)
        if made is None:
            return provider_pb2.ReadResponse()
        found = packed(outputs(made.kind, made.name, made.inputs, preview=False))
        return provider_pb2.ReadResponse(id=request.id, properties=found, inputs=packed(made.inputs))

    def Delete(self, request: Any, context: Any) -> Any:
        with self._lock, _refusals(context):
            self.could_delete(self.there[request.id])
            self.did.append(("delete", self.there.pop(request.id).name))
        return Empty()

    # -- what AWS would refuse

    def could_make(self, made: Made) -> None:
        there = {(each.kind, each.name) for each in self.there.values()}
        if (made.kind, made.name) in there:
            raise Refused(f"{made.kind} {made.name} is there already")
        for kind, name in sorted(made.refers_to - there):
            raise Refused(f"{made.kind} {made.name} refers to {kind} {name}, which is not there")
        if made.kind == "aws_ecs_service":
            self._is_listened_to(made)

    def _is_listened_to(self, service: Made) -> None:
        """ECS: "The target group does not have an associated load balancer"."""
        leading = [each for each in self.there.values() if each.kind in ("aws_lb_listener", "aws_lb_listener_rule")]
        for kind, name in service.refers_to:
            if kind == "aws_lb_target_group" and not any((kind, name) in each.refers_to for each in leading):
                raise Refused(f"the target group {name} of {service.name} does not have an associated load balancer")

    def could_delete(self, made: Made) -> None:
        for key in PROTECTING:
            if made.inputs.get(key) is True:
                raise Refused(f"{made.kind} {made.name} has {key}")
        for each in self.there.values():
            if (made.kind, made.name) in each.refers_to:
                raise Refused(f"{made.kind} {made.name} is used by {each.kind} {each.name}")


@contextmanager
def _refusals(context: Any) -> Iterator[None]:
    """Turns `Refused` into what the engine hears of AWS."""
    try:
        yield
    except Refused as refused:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refused))


def _differing(olds: Inputs, news: Inputs) -> Iterator[str]:
    for key in sorted(olds.keys() | news.keys()):
        if not key.startswith("__") and olds.get(key) != news.get(key):
            yield key


def _difference(olds: Inputs, news: Inputs) -> Any:
    changed = list(_differing(olds, news))
    response = provider_pb2.DiffResponse
    return response(changes=response.DIFF_SOME if changed else response.DIFF_NONE, diffs=changed)
