"""Terraform's own checks, with the real provider and without a network. REQ-INFRA-ECS-002."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fix_infra import ROOT, Edits, tree
from infra_graph.terraform import CannotPlan, Workspace

# Terraform starts the provider (some 700 MB) for each plan; the first test also waits for what the fixture renders, and
# on a busy machine the two together take longer than the 120 s that other tests have.
pytestmark = pytest.mark.timeout(600)

MODULES = sorted(each for each in (ROOT / "terraform/modules").iterdir() if each.is_dir())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(ROOT / "terraform", tmp_path_factory.mktemp("terraform") / "workspace")


def test_it_is_formatted_and_valid(workspace: Workspace) -> None:
    workspace.run("fmt", "-check", "-recursive")
    assert json.loads(workspace.run("validate", "-json"))["diagnostics"] == []


def test_its_own_tests_pass(workspace: Workspace) -> None:
    said = workspace.run("test")
    assert "0 failed" in said
    assert said.count('run "') >= 10


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_is_five_files(module: Path) -> None:
    assert sorted(each.name for each in module.iterdir() if each.name != ".terraform") == [
        "README.md",
        "main.tf",
        "outputs.tf",
        "variables.tf",
        "versions.tf",
    ]
    assert (ROOT / f"pulumi/smtp_proxy_infra/{module.name}.py").is_file()


STACK = "terraform/stack.yaml"
MULTI_AZ, ENVIRONMENT = "      multi_az: false\n", "  staging:\n    vpc:\n"
EXPECTED = """
mock_provider "aws" {}

run "misspelt" {
  command = plan

  variables {
    environment   = "%s"
    account_id    = "123456789012"
    image_version = "1"
  }

  expect_failures = [var.environment]
}
"""


@pytest.mark.parametrize(
    ("environment", "edits", "said"),
    [
        (
            "dev",
            {STACK: [(MULTI_AZ, "      multiaz: false\n")]},
            "environments.dev has what defaults has not got: rds.multiaz.",
        ),
        (
            "staging",
            {STACK: [(ENVIRONMENT, "  staging:\n    vcp:\n")]},
            "environments.staging has what defaults has not got: vcp.",
        ),
        (
            "production",
            {STACK: [("  dashboard:\n    enabled: false\n", "  dashboard:\n    enabled: true\n")]},
            "api.enabled and dashboard.enabled need alb.enabled",
        ),
    ],
    ids=["a key", "a section", "a service without its load balancer"],
)
def test_what_contradicts_itself_fails(environment: str, edits: Edits, said: str, tmp_path: Path) -> None:
    """Not a warning: the plan is refused, by the variable that chose the environment."""
    workspace = Workspace(tree(tmp_path / "tree", edits) / "terraform", tmp_path / "workspace")
    with pytest.raises(CannotPlan) as caught:
        workspace.plan(environment)
    assert said in " ".join(str(caught.value).replace("│", " ").split())
    (workspace.folder / "misspelt").mkdir()
    (workspace.folder / "misspelt/misspelt.tftest.hcl").write_text(EXPECTED % environment)
    assert "1 passed, 0 failed" in workspace.run("test", "-test-directory=misspelt")


def test_a_missing_provider_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotPlan, match="terraform is not on PATH: install"):
        Workspace(ROOT / "terraform", tmp_path / "workspace")
