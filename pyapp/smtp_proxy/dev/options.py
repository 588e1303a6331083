"""What `smtp-proxy dev` was asked for. The command line fills it in, the supervisor reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DevOptions:
    """The contract with anyone's test harness; see docs/DEV.md.

    A port that is None is chosen free; `data_dir` None is the setting `data_dir`.
    """

    ready_file: Path | None = None
    data_dir: Path | None = None
    smarthost: tuple[str, int] | None = None  # deliver there instead of to the built-in sink
    without: frozenset[str] = frozenset()  # names of services not to start
    overrides: Mapping[str, str] = field(default_factory=dict)  # `--set KEY=VALUE`
    plaintext_port: int | None = None  # None: no plaintext listener; 0: chosen free
    accept_only: bool = False
    starttls_port: int | None = None
    tls_port: int | None = None
    sink_port: int | None = None
