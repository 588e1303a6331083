"""`pulumi`, with its state in a folder, and both plugins in this process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from pulumi.runtime.proto import language_pb2_grpc, provider_pb2_grpc

from pulumi_cli.aws import Aws
from pulumi_cli.language import Language

ROOT = Path(__file__).resolve().parents[2]
PULUMI = ROOT / ".venv/bin/pulumi"
# Messages of the engine may be larger than gRPC's 4 MiB.
SIZES = [("grpc.max_receive_message_length", 400 << 20), ("grpc.max_send_message_length", 400 << 20)]


@dataclass(frozen=True)
class Done:
    """Of one run: its exit status and all that was said."""

    status: int
    said: str


@dataclass(frozen=True)
class Project:
    """A project in its folder, its account and its language host."""

    folder: Path
    home: Path
    aws: Aws
    language: Language
    environment: dict[str, str]

    def runs(self, *arguments: str) -> Done:
        done = subprocess.run(
            [str(PULUMI), *arguments, "--non-interactive", "--color", "never"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=600,
        )
        return Done(done.returncode, done.stdout)

    def does(self, *arguments: str) -> str:
        """What must succeed."""
        done = self.runs(*arguments)
        assert done.status == 0, (
            f"pulumi {' '.join(arguments)}: {done.said[-4000:]}\n{''.join(self.language.written[-1:])}"
        )
        return done.said

    def changes(self) -> dict[str, int]:
        """Of the last update: how many resources were created, updated, deleted or left the same."""
        (last,) = json.loads(self.does("stack", "history", "--json", "--page-size", "1", "--page", "1"))
        found: dict[str, int] = last["resourceChanges"]
        return found

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.does("stack", "export"))
        return found

    def files(self) -> list[Path]:
        """Everything that the command line keeps."""
        return [each for each in self.home.rglob("*") if each.is_file()]


@contextmanager
def project(folder: Path, home: Path, secrets: dict[str, str]) -> Iterator[Project]:
    """Pulumi.yaml is in `folder`; `secrets`: variables of the environment that may be written nowhere."""
    assert PULUMI.exists(), "Pulumi's command line is not there: devstack/pulumi.sh"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PULUMI_", "PYTHON"))}
    kept |= secrets
    aws, language = Aws(), Language(kept)
    server = grpc.server(ThreadPoolExecutor(max_workers=32), options=SIZES)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(aws, server)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(language, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    state = home / "state"
    state.mkdir(parents=True)
    environment = kept | {
        "PULUMI_HOME": str(home / "home"),
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DEBUG_LANGUAGES": f"python:{port}",
        "PULUMI_DEBUG_PROVIDERS": f"aws:{port}",
    }
    try:
        yield Project(folder, home, aws, language, environment)
    finally:
        server.stop(0).wait()
