"""A language host for Python: what the engine asks to run a program, or a policy pack, in its virtual environment."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

TESTS = Path(__file__).resolve().parents[1]


def python_of(info: Any) -> str:
    """As the real host: `virtualenv` of the project's file, seen from there."""
    options = MessageToDict(info.options)
    return str(Path(info.root_directory) / options["virtualenv"] / "bin/python")


class Language(language_pb2_grpc.LanguageRuntimeServicer):
    """Runs what it is told to run; what the program writes is kept in `written`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment`: what programs are run in, as the command line is."""
        self._environment = dict(environment)
        self._engine = ""
        self.written: list[str] = []

    def Handshake(self, request: Any, context: Any) -> Any:
        self._engine = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="3.0.0")

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:
        """None to be fetched: the one provider is attached."""
        return language_pb2.GetRequiredPackagesResponse()

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:
        return language_pb2.GetProgramDependenciesResponse()

    def About(self, request: Any, context: Any) -> Any:
        return language_pb2.AboutResponse()

    def InstallDependencies(self, request: Any, context: Any) -> Iterator[Any]:
        """They are: `make setup-infra`, `make setup-policy`."""
        return iter(())

    def Cancel(self, request: Any, context: Any) -> Any:
        return Empty()

    def Run(self, request: Any, context: Any) -> Any:
        settings = {
            "project": request.project,
            "stack": request.stack,
            "parallel": request.parallel,
            "dry_run": request.dryRun,
            "organization": request.organization,
            "monitor": request.monitor_address,
            "engine": self._engine,
            "root_directory": request.info.root_directory,
        }
        said = json.dumps({"settings": settings, "config": dict(request.config)})
        program = Path(request.info.program_directory) / request.info.entry_point / "__main__.py"
        done = subprocess.run(
            [python_of(request.info), "-u", "-m", "pulumi_cli.program", str(program)],
            cwd=request.pwd,
            env=self._environment | {"PULUMI_RUN": said, "PYTHONPATH": str(TESTS)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.written.append(done.stdout)
        return language_pb2.RunResponse(error="" if done.returncode == 0 else done.stdout[-3000:])

    def RunPlugin(self, request: Any, context: Any) -> Iterator[Any]:
        """A policy pack, until the engine hangs up. Its first line is its port."""
        command = [python_of(request.info), "-u", "-m", "pulumi.policy", *request.args, request.info.program_directory]
        kept = dict(each.split("=", 1) for each in request.env)
        with subprocess.Popen(
            command, cwd=request.pwd, env=kept or None, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            hung_up = threading.Thread(target=_until, args=(context, process), daemon=True)
            hung_up.start()
            assert process.stdout is not None
            for line in process.stdout:
                yield language_pb2.RunPluginResponse(stdout=line)
            yield language_pb2.RunPluginResponse(exitcode=process.wait())


def _until(context: Any, process: subprocess.Popen[bytes]) -> None:
    over = threading.Event()
    if not context.add_callback(over.set):
        over.set()
    over.wait()
    process.kill()
