"""terraform/examples: each is valid, and plans the stack as it is. REQ-INFRA-ECS-002."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import pytest
from fix_infra import ROOT
from infra_graph.terraform import CannotPlan, Workspace

# Terraform starts the provider (some 700 MB) for each plan.
pytestmark = pytest.mark.timeout(600)

# What is tried is the file that each shows.
EXAMPLES = {"minimal": "dev", "production": "production"}
# In place of the bucket of the example's state, which nobody can reach here.
LOCAL_STATE = 'terraform {\n  backend "local" {}\n}\n'


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(ROOT / "terraform", tmp_path_factory.mktemp("terraform") / "workspace")


def prepared(workspace: Workspace, name: str) -> str:
    """The example, initialised; returns how a command is told of it."""
    folder = workspace.folder / "examples" / name
    (folder / "state_override.tf").write_text(LOCAL_STATE)
    shutil.copy(folder / "terraform.tfvars.example", folder / "terraform.tfvars")
    chosen = f"-chdir=examples/{name}"
    workspace.run(chosen, "init", "-input=false")
    return chosen


def diagnostics(workspace: Workspace, chosen: str) -> list[Any]:
    """Without what makes the provider start offline: laid over a module's provider, that block is called empty."""
    override = workspace.folder / "offline_override.tf"
    text = override.read_text()
    override.unlink()
    found: list[Any] = json.loads(workspace.run(chosen, "validate", "-json"))["diagnostics"]
    override.write_text(text)
    return found


def planned(workspace: Workspace, chosen: str, *given: str) -> dict[str, Any]:
    workspace.run(chosen, "plan", "-input=false", "-out=plan.bin", *given)
    found: dict[str, Any] = json.loads(workspace.run(chosen, "show", "-json", "plan.bin"))
    return found


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_plans_the_stack(name: str, workspace: Workspace) -> None:
    """Every resource that the stack has in this environment, and no other; every output leads somewhere."""
    chosen = prepared(workspace, name)
    assert diagnostics(workspace, chosen) == []
    plan = planned(workspace, chosen)
    given = {key: each["value"] for key, each in plan["variables"].items()}
    own = {key: value for key, value in given.items() if key != "account_id"}
    stack = workspace.plan(EXAMPLES[name], own)
    addresses = [each["address"] for each in plan["resource_changes"]]
    assert all(address.startswith("module.smtp_proxy.") for address in addresses)
    assert {address.removeprefix("module.smtp_proxy.") for address in addresses} == {
        each["address"] for each in stack["resource_changes"]
    }
    assert plan["output_changes"].keys() <= stack["output_changes"].keys()


def test_every_example_is_tried_and_has_a_readme() -> None:
    folders = {each for each in (ROOT / "terraform/examples").iterdir() if each.is_dir()}
    assert {each.name for each in folders} == EXAMPLES.keys()
    assert all((each / "README.md").is_file() for each in folders)


def test_production_knows_every_variable_of_the_stack() -> None:
    """One that is new is said there as well, or an example's readers never learn of it."""
    names = re.findall(r'^variable "(\w+)"', (ROOT / "terraform/variables.tf").read_text(), re.MULTILINE)
    said = re.findall(
        r"^  (\w+) += var\.(\w+)$", (ROOT / "terraform/examples/production/main.tf").read_text(), re.MULTILINE
    )
    assert {left for left, right in said if left == right} | {"environment"} == set(names)


def test_minimal_gets_a_certificate(workspace: Workspace) -> None:
    """Without a host name none is asked for, and no SMTP task is ever ready: so nothing is planned without one."""
    chosen = prepared(workspace, "minimal")
    said = workspace.folder / "examples/minimal/terraform.tfvars"
    said.write_text(re.sub(r"^smtp_hostname.*\n", "", said.read_text(), flags=re.MULTILINE))
    with pytest.raises(CannotPlan, match="No value for required variable"):
        planned(workspace, chosen)
    with pytest.raises(CannotPlan, match="must be a host name in lower case"):
        planned(workspace, chosen, "-var=smtp_hostname=")


def test_production_wants_an_image_by_digest(workspace: Workspace) -> None:
    chosen = prepared(workspace, "production")
    with pytest.raises(CannotPlan, match="image_version must be a digest"):
        planned(workspace, chosen, "-var=image_version=1")
