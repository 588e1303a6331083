"""checkov over terraform/: nothing is found that is not skipped with a reason, and every skip is needed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from fix_infra import ROOT

CHECKOV = ROOT / ".venv-checkov/bin/checkov"
SETTINGS = ROOT / "terraform/.checkov.yaml"
SKIP = re.compile(r"^  - (CKV2?_\w+)(.*)$", re.MULTILINE)


def copied(folder: Path) -> Path:
    """What checkov reads of terraform/, without its settings, which it would find by itself."""
    source = ROOT / "terraform"
    for file in source.rglob("*"):
        if file.suffix == ".tf" and ".terraform" not in file.parts:
            target = folder / "terraform" / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return folder


def failed(folder: Path, *arguments: str) -> set[str]:
    """The checks that fail."""
    assert CHECKOV.exists(), "checkov is not installed: make setup-checkov"
    command = [str(CHECKOV), *arguments, "--output", "json", "--soft-fail"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 100, report["summary"]
    assert report["summary"]["parsing_errors"] == 0, report["summary"]
    return {each["check_id"] for each in report["results"]["failed_checks"]}


def test_nothing_is_found() -> None:
    assert failed(ROOT, "--config-file", str(SETTINGS)) == set()


def test_every_skip_is_needed_and_has_its_reason(tmp_path: Path) -> None:
    skips = dict(SKIP.findall(SETTINGS.read_text()))
    bare = failed(copied(tmp_path), "-d", "terraform", "--framework", "terraform", "--skip-download")
    assert set(skips) == bare, "left: not needed any more; right: neither mended nor skipped"
    assert [name for name, reason in skips.items() if not re.match(r"  # \w.{20,}", reason)] == []


@pytest.mark.parametrize(
    ("file", "there", "instead", "check"),
    [
        (
            "modules/rds/main.tf",
            "storage_encrypted                     = true",
            "storage_encrypted = false",
            "CKV_AWS_16",
        ),
        ("modules/ecs/main.tf", "restrict_public_buckets = true", "restrict_public_buckets = false", "CKV_AWS_56"),
    ],
    ids=["a database in clear text", "a bucket that may be public"],
)
def test_it_notices(file: str, there: str, instead: str, check: str, tmp_path: Path) -> None:
    edited = copied(tmp_path) / "terraform" / file
    text = edited.read_text()
    assert text.count(there) == 1
    edited.write_text(text.replace(there, instead))
    assert check in failed(tmp_path, "--config-file", str(SETTINGS))
