"""pulumi/policy as Pulumi's engine runs it: a process in .venv-policy that is spoken to by gRPC."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc
from pulumi.runtime.rpc import UNKNOWN

from infra_graph.canonical import TOKEN

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-policy/bin/python"
Resource = dict[str, Any]


class Said(NamedTuple):
    """What a policy says."""

    policy: str
    stops: bool
    urn: str
    message: str


class PackFailed(Exception):
    """The pack did not start."""


def graph(root: Path, environment: str, own: Mapping[str, Any] = MappingProxyType({})) -> list[Resource]:
    """What the engine hands to the pack, of pulumi/ in `root`."""
    path = os.pathsep.join([str(ROOT / "tests"), str(root / "pulumi")])
    command = [sys.executable, "-P", "-m", "infra_graph.analysed", environment, json.dumps(dict(own))]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PULUMI_", "PYTHON"))}
    done = subprocess.run(
        command, env=kept | {"PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=60, cwd=root
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[Resource] = json.loads(done.stdout)
    return found


def previewed(resources: Iterable[Resource]) -> list[Resource]:
    """As a first preview has them: whatever has a token of AWS in it is not known."""
    return [each | {"inputs": _unknown(each["inputs"]), "outputs": _unknown(each["outputs"])} for each in resources]


def _unknown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unknown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unknown(inner) for inner in value]
    return UNKNOWN if isinstance(value, str) and TOKEN.search(value) else value


class Pack:
    """The running pack."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._stub = analyzer_pb2_grpc.AnalyzerStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def policies(self) -> dict[str, bool]:
        """By name, whether it stops what it finds."""
        told = self._stub.GetAnalyzerInfo(Empty(), timeout=30)
        return {each.name: each.enforcementLevel == analyzer_pb2.MANDATORY for each in told.policies}

    def asks(self, one: Resource, providers: Mapping[str, Resource]) -> list[Said]:
        """Of one resource."""
        request = analyzer_pb2.AnalyzeRequest(
            type=one["type"], urn=one["urn"], name=one["name"], properties=_struct(one["inputs"])
        )
        if one["provider"]:
            request.provider.CopyFrom(_provider(providers[one["provider"]]))
        return list(_said(self._stub.Analyze(request, timeout=30)))

    def asks_each(self, resources: Iterable[Resource]) -> list[Said]:
        """Of each resource by itself, as the engine does before it makes it."""
        there = list(resources)
        providers = providers_of(there)
        return [said for each in there for said in self.asks(each, providers)]

    def asks_all(self, resources: Iterable[Resource]) -> list[Said]:
        """Of the stack, as the engine does at the end."""
        there = list(resources)
        providers = providers_of(there)
        return list(
            _said(
                self._stub.AnalyzeStack(
                    analyzer_pb2.AnalyzeStackRequest(resources=[_whole(each, providers) for each in there]), timeout=60
                )
            )
        )


def providers_of(resources: Iterable[Resource]) -> dict[str, Resource]:
    return {each["urn"]: each for each in resources if each["type"].startswith("pulumi:providers:")}


def _struct(values: Mapping[str, Any]) -> Struct:
    found = Struct()
    found.update(values)
    return found


def _provider(one: Resource) -> analyzer_pb2.AnalyzerProviderResource:
    return analyzer_pb2.AnalyzerProviderResource(
        type=one["type"], urn=one["urn"], name=one["name"], properties=_struct(one["inputs"])
    )


def _whole(one: Resource, providers: Mapping[str, Resource]) -> analyzer_pb2.AnalyzerResource:
    found = analyzer_pb2.AnalyzerResource(
        type=one["type"],
        urn=one["urn"],
        name=one["name"],
        parent=one["parent"],
        properties=_struct(one["outputs"]),
        dependencies=one["dependencies"],
    )
    for key, urns in one["of_properties"].items():
        found.propertyDependencies[key].urns.extend(urns)
    if one["provider"]:
        found.provider.CopyFrom(_provider(providers[one["provider"]]))
    return found


def _said(answer: analyzer_pb2.AnalyzeResponse) -> Iterator[Said]:
    for each in answer.diagnostics:
        yield Said(each.policyName, each.enforcementLevel == analyzer_pb2.MANDATORY, each.urn, each.message)


@contextmanager
def running(pack: Path = ROOT / "pulumi/policy") -> Iterator[Pack]:
    """Raises: PackFailed."""
    if not PYTHON.exists():
        raise PackFailed("what runs pulumi/policy is not installed: make setup-policy")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PULUMI_", "PYTHON"))}
    # As the engine starts it; the first line is the port. The address is of an engine, which it does not ask here.
    command = [str(PYTHON), "-u", "-m", "pulumi.policy", "127.0.0.1:1", str(pack)]
    with subprocess.Popen(command, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not re.fullmatch(r"[0-9]+\n", line):
                process.kill()
                raise PackFailed(f"{line}{process.communicate()[1][-3000:]}")
            found = Pack(int(line))
            yield found
            found.close()
        finally:
            process.kill()
