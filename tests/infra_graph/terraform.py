"""Terraform's side: two plans of a copy of terraform/, without a network and without an account.

The first is `terraform plan` with the real provider, which checks what it can check; it says which resources there are,
which arguments are written, and what is not known yet. The second is `terraform test` of a mocked provider in which
every id and ARN is a token that names its resource: it says what each argument refers to, through modules and locals.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from infra_graph.canonical import TOKEN, Resource, arn, is_named, resource, token
from infra_graph.kinds import FIXED, NESTED

ACCOUNT = "123456789012"
# Variables that have a default.
Own = Mapping[str, str | list[str]]
PROVIDER = "registry.terraform.io/hashicorp/aws/5.100.0"
# Where Terraform itself looks for providers, and where machines without a way to the registry may have them.
MIRRORS = (
    Path("~/.terraform.d/plugins").expanduser(),
    Path("~/.local/share/terraform/plugins").expanduser(),
    Path("/usr/local/share/terraform/plugins"),
    Path("/usr/share/terraform/plugins"),
    *sorted(Path("/opt").glob("*")),
)
BLOCK = re.compile(r'^resource "(\w+)" "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
# Lets the provider start without asking AWS who it is.
OFFLINE = """
provider "aws" {
  access_key                  = "offline"
  secret_key                  = "offline"
  allowed_account_ids         = []
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
}
"""


class CannotPlan(Exception):
    """Terraform or its provider is missing, or refuses the configuration; the message says what to do."""


class Workspace:
    """A copy of terraform/ that may be changed, initialised with the provider of this machine."""

    def __init__(
        self, source: Path, folder: Path, provider: str = OFFLINE, environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """`provider` is laid over the stack's own, `environment` over that of the commands."""
        self.folder = folder
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        (folder / "offline_override.tf").write_text(provider)
        self._environment = _environment(folder.parent) | environment
        self.run("init", "-backend=false")

    def run(self, *arguments: str, timeout: float = 300) -> str:
        """Standard output of a terraform command."""
        command = ["terraform", *arguments, "-no-color"]
        if arguments[0] in {"init", "plan"}:
            command.append("-input=false")
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if done.returncode != 0:
            raise CannotPlan(f"terraform {arguments[0]}: {(done.stderr or done.stdout)[-3000:]}")
        return done.stdout

    def plan(self, environment: str, own: Own = MappingProxyType({})) -> dict[str, Any]:
        """The first plan, as `terraform show -json` says it; `own` are variables that have a default."""
        given = [
            f"-var={name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in _variables(environment, own).items()
        ]
        self.run("plan", *given, "-out=plan.bin")
        found: dict[str, Any] = json.loads(self.run("show", "-json", "plan.bin"))
        return found

    def mocked(self, environment: str, own: Own, first: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Arguments and attributes of the second plan by address."""
        tests = self.folder / "parity"
        shutil.rmtree(tests, ignore_errors=True)
        tests.mkdir()
        overrides = "".join(_override(change) for change in first["resource_changes"])
        given = "".join(f"  {name} = {json.dumps(value)}\n" for name, value in _variables(environment, own).items())
        variables = f"variables {{\n{given}}}\n"
        run = variables + 'run "plan" {\n  command = plan\n}\n'
        (tests / "parity.tftest.hcl").write_text(f'mock_provider "aws" {{}}\n{overrides}{run}')
        messages = [
            json.loads(line) for line in self.run("test", "-test-directory=parity", "-json", "-verbose").splitlines()
        ]
        plan = next(each["test_plan"] for each in messages if each["type"] == "test_plan")
        return {change["address"]: change["change"]["after"] for change in plan["resource_changes"]}


def _variables(environment: str, own: Own) -> dict[str, str | list[str]]:
    return {"environment": environment, "account_id": ACCOUNT, "image_version": "first", **own}


def render(source: Path, folder: Path, environment: str, own: Own) -> list[Resource]:
    """The canonical list of terraform/ in `source`; `folder` must not exist yet."""
    workspace = Workspace(source, folder)
    first = workspace.plan(environment, own)
    values = workspace.mocked(environment, own, first)
    written = dict(_written(first["configuration"]["root_module"]))
    names = {change["address"]: f"{change['type']} {role(change)}" for change in first["resource_changes"]}
    tokens: dict[str, str] = {}
    for change in first["resource_changes"]:
        tokens |= _tokens(change, values[change["address"]], written[_static(change["address"])][0])
    ignored = dict(_ignored(source))
    found, referred = [], {}
    for change in first["resource_changes"]:
        expressions, waits, referred[names[change["address"]]] = written[_static(change["address"])]
        arguments = _chosen(values[change["address"]], change["change"]["after"], expressions)
        for block in NESTED.get(change["type"], {}):
            arguments.pop(block, None)  # what AWS answers, not what is written
        explicit = {name for address, name in names.items() if _static(address) in waits}
        found.append(
            resource(
                change["type"],
                role(change),
                _replaced(arguments, tokens),
                frozenset(explicit),
                ignored.get(_static(change["address"]), ()),
            )
        )
    orders = list(_orders(first["configuration"]["root_module"]))
    found = [
        _ordered(one, change["address"], orders, names)
        for one, change in zip(found, first["resource_changes"], strict=True)
    ]
    by_address = {address: next(each for each in found if each.name == name) for address, name in names.items()}
    return [_with_names(each, by_address, referred[each.name]) for each in found]


def _with_names(one: Resource, others: Mapping[str, Resource], referred: set[str]) -> Resource:
    """With those that it refers to by a name, which is known beforehand and so has no token."""
    by_name = {each.name for address, each in others.items() if _static(address) in referred and is_named(each, one)}
    return replace(one, dependencies=(one.dependencies | by_name) - {one.name})


def _ignored(source: Path) -> Iterator[tuple[str, list[str]]]:
    """By address without keys: what `lifecycle` ignores, which no plan says. Written as `terraform fmt` writes it."""
    for file in sorted(source.glob("**/*.tf")):
        module = "".join(f"module.{name}." for name in file.relative_to(source).parts[1:-1])
        for kind, name, body in BLOCK.findall(file.read_text()):
            for names in re.findall(r"ignore_changes\s*=\s*\[(.*?)\]", body, re.DOTALL):
                yield f"{module}{kind}.{name}", re.findall(r"\w+", names)


Order = tuple[str, set[str], set[str]]


def _orders(module: Mapping[str, Any], prefix: str = "") -> Iterator[Order]:
    """Of outputs with `depends_on`: their module, whose ids or ARNs they give, and what these are given after."""
    for output in module.get("outputs", {}).values():
        if "depends_on" in output:
            given = {
                prefix + name for name in re.findall(r'"(aws_[a-z0-9_]+\.[a-z0-9_]+)', json.dumps(output["expression"]))
            }
            yield prefix, given, {prefix + name for name in output["depends_on"]}
    for name, call in module.get("module_calls", {}).items():
        yield from _orders(call["module"], f"{prefix}module.{name}.")


def _ordered(one: Resource, address: str, orders: Iterable[Order], names: Mapping[str, str]) -> Resource:
    """With what it waits for because of an id or an ARN that came by such an output."""
    found = TOKEN.findall(json.dumps(one.arguments))
    given_to = {f"{kind} {role}" for kind, role, attribute in found if attribute in ("id", "arn")}
    waits: set[str] = set()
    for module, given, after in orders:
        if not _static(address).startswith(module) and any(
            name in given_to and _static(each) in given for each, name in names.items()
        ):
            waits |= {name for each, name in names.items() if _static(each) in after}
    return replace(one, dependencies=one.dependencies | waits)


def _static(address: str) -> str:
    return re.sub(r"\[[^\]]*\]", "", address)


def role(change: Mapping[str, Any]) -> str:
    """The name that Pulumi's side gives it: pulumi/README.md."""
    module = _static(change.get("module_address", "")).removeprefix("module.")
    key = change.get("index")
    parts = [module, change["name"], *([str(key)] if isinstance(key, str) else [])]
    return "-".join(part for part in parts if part).replace("_", "-")


def _environment(scratch: Path) -> dict[str, str]:
    if shutil.which("terraform") is None:
        raise CannotPlan(
            "terraform is not on PATH: install Terraform 1.9 or newer (developer.hashicorp.com/terraform/install)"
        )
    mirror = next((each for each in MIRRORS if (each / PROVIDER).is_dir()), None)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "TF_VAR_"))}
    environment |= {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "AWS_EC2_METADATA_DISABLED": "true"}
    # Without a mirror the registry is asked, as the machine's own configuration of Terraform says; a file that is not
    # there only makes it complain.
    configured = environment.get("TF_CLI_CONFIG_FILE")
    if mirror is not None:
        settings = scratch / "terraformrc"
        settings.write_text(
            "provider_installation {\n  filesystem_mirror {\n"
            f'    path    = "{mirror}"\n    include = ["registry.terraform.io/hashicorp/*"]\n  }}\n}}\n'
        )
        environment["TF_CLI_CONFIG_FILE"] = str(settings)
    elif configured and not Path(configured).exists():
        del environment["TF_CLI_CONFIG_FILE"]
    return environment


def _override(change: Mapping[str, Any]) -> str:
    """Tokens for what only AWS knows of one resource, known in the plan already."""
    kind, name, unknown = change["type"], role(change), change["change"]["after_unknown"]
    values: dict[str, Any] = dict(FIXED.get(kind, {}))
    if unknown.get("id") is True:
        values["id"] = token(kind, name, "id")
    if unknown.get("arn") is True:
        values["arn"] = arn(kind, name)
    for block, attributes in NESTED.get(kind, {}).items():
        if unknown.get(block):
            values[block] = [{each: _nested(kind, name, block, each) for each in attributes}]
    return (
        f"override_resource {{\n  target          = {change['address']}\n  override_during = plan\n"
        f"  values          = {json.dumps(values)}\n}}\n"
    )


def _nested(kind: str, name: str, block: str, attribute: str) -> str:
    found = token(kind, name, f"{block}_{attribute}")
    return f"arn:aws:mock:us-east-1:{ACCOUNT}:{found}" if attribute.endswith("arn") else found


def _tokens(change: Mapping[str, Any], values: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, str]:
    """What the mocked provider made up for attributes that have no token of ours, and the token in its place."""
    return {
        values[key]: token(change["type"], role(change), key)
        for key, unknown in change["change"]["after_unknown"].items()
        if unknown is True and key not in written and re.fullmatch(r"[a-z0-9]{8}", str(values.get(key)))
    }


def _replaced(value: Any, tokens: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(inner, tokens) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, tokens) for inner in value]
    if isinstance(value, str):
        return re.sub(r"(?<![a-z0-9])[a-z0-9]{8}(?![a-z0-9])", lambda found: tokens.get(found[0], found[0]), value)
    return value


Written = tuple[Mapping[str, Any], set[str], set[str]]


def _written(module: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Written]]:
    """By address without keys: the expressions of a resource, what it explicitly waits for, what it refers to."""
    for each in module.get("resources", ()):
        waits = {prefix + name for name in each.get("depends_on", ())}
        refers = {prefix + name for name in re.findall(r'"(aws_[a-z0-9_]+\.[a-z0-9_]+)', json.dumps(each))}
        yield prefix + each["address"], (each.get("expressions", {}), waits, refers)
    for name, call in module.get("module_calls", {}).items():
        yield from _written(call["module"], f"{prefix}module.{name}.")


def _chosen(value: Any, planned: Any, written: Any) -> Any:
    """Of all arguments, those that are written: a provider's defaults are no difference.

    Terraform does not say what a `dynamic` block holds; of that, and of blocks, everything that has a value is taken.
    """
    # An expression, not a block: what is written is the whole value.
    if isinstance(written, dict) and written.keys() <= {"constant_value", "references"}:
        return value
    if isinstance(value, dict) and isinstance(written, dict):
        known = planned if isinstance(planned, dict) else {}
        return {
            key: _chosen(inner, known.get(key), written.get(key))
            for key, inner in value.items()
            if key in written or (isinstance(known.get(key), list) and any(isinstance(e, dict) for e in known[key]))
        }
    if isinstance(value, list) and isinstance(written, list) and len(value) == len(written):
        if all(isinstance(each, dict) for each in written):
            # A set of blocks comes back in an order of its own, so that what one of them writes is taken of each.
            written = [{key: inner for each in reversed(written) for key, inner in each.items()}] * len(written)
        plans = planned if isinstance(planned, list) and len(planned) == len(value) else [None] * len(value)
        return [_chosen(*each) for each in zip(value, plans, written, strict=True)]
    return value
