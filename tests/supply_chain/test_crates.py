"""The crates against `deny.toml`, as `cargo deny` would look at them, with nothing but cargo itself.

`cargo deny` takes minutes to build, so CI has not got it; what it would say of licences, bans and sources is said here.
What is known of vulnerabilities and withdrawn releases is not: `make audit`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from spdx import NotSpdx, accepted_with

ROOT = Path(__file__).resolve().parents[2]
DENY: dict[str, Any] = tomllib.loads((ROOT / "deny.toml").read_text())
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
WORKSPACES = (".", "core_rs/fuzz")
# Of the fuzzer alone, which is never shipped: libFuzzer itself is the University of Illinois'.
OF_THE_FUZZER = frozenset({"NCSA"})


@cache
def metadata(workspace: str) -> dict[str, Any]:
    cargo = shutil.which("cargo") or str(Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "bin/cargo")
    command = [cargo, "metadata", "--locked", "--all-features", "--format-version", "1"]
    done = subprocess.run(command, cwd=ROOT / workspace, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def packages(workspace: str) -> list[dict[str, Any]]:
    """Others' crates."""
    return [package for package in metadata(workspace)["packages"] if package["source"] is not None]


def lock(workspace: str) -> list[dict[str, Any]]:
    return list(tomllib.loads((ROOT / workspace / "Cargo.lock").read_text())["package"])


def dependents(name: str) -> set[str]:
    """Who depends on it directly, in any build of ours."""
    names = {package["id"]: package["name"] for package in metadata(".")["packages"]}
    return {
        names[node["id"]]
        for node in metadata(".")["resolve"]["nodes"]
        if any(names[dependency["pkg"]] == name for dependency in node["deps"])
    }


@pytest.mark.parametrize("workspace", WORKSPACES)
def test_licences(workspace: str) -> None:
    allowed = frozenset(DENY["licenses"]["allow"]) | (OF_THE_FUZZER if workspace != "." else frozenset())
    used: set[str] = set()
    for package in packages(workspace):
        met = accepted_with(package["license"] or "", allowed)
        assert met is not None, f"{package['name']} is under {package['license']}"
        used |= met
    if workspace == ".":
        # `unused-allowed-license`: the list says what is there. A choice may be met by another entry of it.
        offered = " ".join(package["license"] for package in packages(workspace))
        assert all(licence in used or licence in offered for licence in allowed)


@pytest.mark.parametrize("workspace", WORKSPACES)
def test_sources(workspace: str) -> None:
    """crates.io or our own, and each download has its checksum."""
    own = {package["name"] for package in metadata(workspace)["packages"] if package["source"] is None}
    assert own == {name for name in own if name.startswith("smtp-proxy")}
    for package in lock(workspace):
        if package["name"] not in own:
            assert package["source"] == CRATES_IO, package["name"]
            assert len(package["checksum"]) == 64, package["name"]


def built() -> set[str]:
    """Ids of what is built into what is shipped, or for it: not what only tests and benches need."""
    nodes = {node["id"]: node["deps"] for node in metadata(".")["resolve"]["nodes"]}
    found: set[str] = set()
    waiting = list(metadata(".")["workspace_members"])
    while waiting:
        if (package := waiting.pop()) not in found:
            found.add(package)
            waiting += [d["pkg"] for d in nodes[package] if any(kind["kind"] != "dev" for kind in d["dep_kinds"])]
    return found


def test_versions() -> None:
    """One of each, but for those that `skip` gives a reason for, and no reason without need."""
    counts = Counter(package["name"] for package in metadata(".")["packages"] if package["id"] in built())
    assert DENY["bans"]["multiple-versions"] == "deny"
    assert {name for name, count in counts.items() if count > 1} == {entry["crate"] for entry in DENY["bans"]["skip"]}
    assert all(entry["reason"] for entry in DENY["bans"]["skip"])


@pytest.mark.parametrize("entry", DENY["bans"]["deny"], ids=lambda entry: entry["crate"])
def test_banned(entry: dict[str, Any]) -> None:
    """It is not there at all, or only those that may depend on it do."""
    wrappers = set(entry.get("wrappers", ()))
    if wrappers:
        assert dependents(entry["crate"]) <= wrappers
        assert dependents(entry["crate"])
    else:
        assert entry["crate"] not in {package["name"] for package in lock(".")}


def test_no_wildcards() -> None:
    """`version = "*"` takes whatever comes; our own crates name each other by path."""
    for workspace in WORKSPACES:
        for package in metadata(workspace)["packages"]:
            if package["source"] is None:
                assert not [d["name"] for d in package["dependencies"] if d["req"] == "*" and d["path"] is None]


def test_the_two_locks_agree() -> None:
    """What is fuzzed is built of what is shipped."""
    shipped = {(package["name"], package["version"]) for package in lock(".")}
    ours = {package["name"] for package in metadata("core_rs/fuzz")["packages"] if package["source"] is None}
    fuzzed = next(p for p in lock("core_rs/fuzz") if p["name"] == "smtp-proxy-proto")
    for name in fuzzed["dependencies"]:
        version = next(p["version"] for p in lock("core_rs/fuzz") if p["name"] == name)
        assert name in ours or (name, version) in shipped, f"{name} {version} is another in core_rs/fuzz/Cargo.lock"


@pytest.mark.parametrize(
    ("expression", "met"),
    [
        ("MIT", {"MIT"}),
        ("GPL-3.0", None),
        ("GPL-3.0 OR MIT", {"MIT"}),
        ("GPL-3.0 AND MIT", None),
        ("Unlicense/MIT", {"MIT"}),
        ("(MIT OR GPL-3.0) AND ISC", {"MIT", "ISC"}),
        ("(MIT OR ISC) AND GPL-3.0", None),
        ("Apache-2.0 WITH LLVM-exception", None),
        ("Apache-2.0 WITH LLVM-exception OR ISC", {"ISC"}),
    ],
)
def test_how_an_expression_is_read(expression: str, met: set[str] | None) -> None:
    assert accepted_with(expression, {"MIT", "ISC", "Apache-2.0"}) == met


@pytest.mark.parametrize("expression", ["", "MIT OR", "(MIT", "MIT ISC", "AND MIT", "MIT)"])
def test_what_is_no_expression(expression: str) -> None:
    with pytest.raises(NotSpdx):
        accepted_with(expression, {"MIT"})
