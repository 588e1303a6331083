"""What docs/DEPLOY.md has people type is what the stack is called. Pulumi's own engine takes it in tests/infra_full."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
import yaml
from botocore import xform_name
from command_lines import trouble_with, typed_in
from fix_infra import OWN, ROOT
from infra_graph.canonical import Resource, resource
from infra_graph.kinds import KINDS

TEXT = (ROOT / "docs/DEPLOY.md").read_text()
EXAMPLES = ROOT / "terraform/examples"
READMES = {str(each.relative_to(ROOT)): each.read_text() for each in EXAMPLES.rglob("README.md")}
TYPED = {"docs/DEPLOY.md": TEXT, **READMES}
# What tasks can not start without; the key seals the other two.
FIRST = {("aws_ecr_repository", "ecs-main"), ("aws_secretsmanager_secret", "ecs-sealing")}
KEY = ("aws_kms_key", "ecs-main")


def test_what_comes_first_is_in_the_stack_by_these_names(production: Callable[[str], list[Resource]]) -> None:
    """Whole names: a pattern such as `**ecs-main**` would also be the services, before their image is there."""
    addresses = re.findall(r"-target=module\.(\w+)\.(\w+)\.(\w+)", TEXT)
    assert {(kind, f"{module}-{name}") for module, kind, name in addresses} == FIRST
    (project,) = re.findall(r"ECS='urn:pulumi:production::([\w-]+)::smtp-proxy:infra:Ecs'", TEXT)
    assert f"name: {project}\n" in (ROOT / "pulumi/Pulumi.yaml").read_text()
    urns = re.findall(r"""--target "\$ECS"'\$([^']+)::([\w-]+)'""", TEXT)
    assert {(KINDS[kind], name) for kind, name in urns} == FIRST | {KEY}
    assert "".join(blocks(TEXT)).count('--target "$ECS') == len(urns) + 1, "and the component that they belong to"
    assert not re.search(r"^ .*--target-dependents", TEXT, re.MULTILINE)
    for side in ("terraform", "pulumi"):
        made = {(each.kind, each.role) for each in production(side)}
        assert FIRST | {KEY} <= made


def blocks(text: str) -> list[str]:
    """What is typed: the indented blocks, each as a script."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    return [re.sub(r"^    ", "", each, flags=re.MULTILINE) for each in found]


@pytest.mark.parametrize("file", TYPED)
def test_nothing_is_said_on_a_command_line_that_the_next_apply_would_take_back(file: str) -> None:
    assert not re.search(r"^ .*\s-var\b", TYPED[file], re.MULTILINE)


def test_every_variable_of_the_stack_that_is_said_is_one() -> None:
    said = re.findall(r"^    (\w+) += ", TEXT, re.MULTILINE)
    declared = re.findall(r'^variable "(\w+)"', (ROOT / "terraform/variables.tf").read_text(), re.MULTILINE)
    assert {"environment", "account_id", "zone_id", "smtp_hostname", "image_version"} <= set(said) <= set(declared)
    configured = re.findall(r"^    pulumi config set (?:--plaintext |--path ')?(\w+)", TEXT, re.MULTILINE)
    assert {camel(name) for name in said} - {"environment"} == set(configured)


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(each.capitalize() for each in others)


@pytest.mark.parametrize("file", TYPED)
def test_what_is_typed_is_a_script_that_says_all_it_uses(file: str) -> None:
    """No dots to fill in, and no name that nothing before it has set: a new user has nowhere to look them up."""
    scripts = blocks(TYPED[file])
    assert scripts or file == "terraform/examples/README.md"
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), script
        assert "\N{HORIZONTAL ELLIPSIS}" not in re.sub(r"sha256:\S+", "", script), script
        assert not re.search(r"--(task|cluster|region) [A-Z]", script), script
    lines = "".join(scripts).splitlines()
    there: set[str] = set()
    for line in lines:
        there |= set(re.findall(r"(?:^|&& |export )([A-Z][A-Z_]*)=", line))
        assert set(re.findall(r"\$\{?([A-Z][A-Z_]*)", line)) <= there, line


def test_the_region_is_said_before_anything_asks_for_it() -> None:
    region = re.search(r"^general:.*?^  region: (\S+)", dedented(), re.MULTILINE | re.DOTALL)
    assert region
    assert f"export AWS_REGION={region[1]} AWS_DEFAULT_REGION={region[1]}" in blocks(TEXT)[0]


def dedented() -> str:
    """The defaults of stack.yaml."""
    text = (ROOT / "terraform/stack.yaml").read_text()
    return re.sub(r"^  ", "", text, flags=re.MULTILINE)


def test_the_image_that_is_pushed_is_the_one_that_services_begin_with() -> None:
    """Where it is another, tasks want an image that nobody has pushed: they are tried for ever, and say nothing."""
    (pushed,) = re.findall(r'-t "\$REPOSITORY:([\w.-]+)" --push', TEXT)
    minimal = (EXAMPLES / "minimal/main.tf").read_text()
    said = [
        *re.findall(r'^    image_version += "(.*)"', TEXT, re.MULTILINE),
        *re.findall(r"pulumi config set imageVersion (\S+)", TEXT),
        *re.findall(r'deploy migrate .*"\$REPOSITORY:([\w.-]+)"', TEXT),
        *re.findall(
            r'^image_version += "(.*)"', (EXAMPLES / "minimal/terraform.tfvars.example").read_text(), re.MULTILINE
        ),
        *re.findall(r"imageTag=(\S+)", READMES["terraform/examples/production/README.md"]),
    ]
    assert said == [pushed] * 5
    assert re.search(r"^  image_version += var.image_version$", minimal, re.MULTILINE)


def test_nobody_gets_an_image_that_nobody_named() -> None:
    """A default is a tag that may never be pushed, and Fargate tries it for ever."""
    for file in (ROOT / "terraform/variables.tf", *EXAMPLES.glob("*/*.tf")):
        for variable in re.findall(r'^variable "image_version" \{.*?^\}', file.read_text(), re.MULTILINE | re.DOTALL):
            assert not re.search(r"^  default\b", variable, re.MULTILINE), file
    configuration = yaml.safe_load((ROOT / "pulumi/Pulumi.yaml").read_text())["config"]
    assert "default" in configuration["zoneId"]
    assert "default" not in configuration["imageVersion"]


@pytest.mark.parametrize("name", ["minimal", "production"])
def test_an_example_says_what_comes_before_its_first_task(name: str) -> None:
    said = READMES[f"terraform/examples/{name}/README.md"]
    (order,) = re.findall(r"^\*\*Before the first task\*\* come (.*?): part 3 of", said, re.MULTILINE)
    assert re.fullmatch(r"the image.* and then the sealing key", order)
    assert "## 3. The image and the sealing key, before the services" in TEXT
    assert "terraform apply    " in said, "the command itself says that something comes before it"


@pytest.mark.parametrize("side", ["terraform", "pulumi"])
def test_the_grant_for_further_names_is_the_role_s_own_for_another_one(
    side: str, switched: Callable[[str], list[Resource]]
) -> None:
    (typed,) = re.findall(r"cat > further-names\.json <<'END'\n(.*?)\nEND", "".join(blocks(TEXT)), re.DOTALL)
    grant = resource("aws_iam_role_policy", "typed", {"policy": typed}, frozenset()).arguments["policy"]["Statement"]
    (own,) = (each for each in switched(side) if each.name == "aws_iam_role_policy ecs-task-certs")
    (dns,) = (each for each in own.arguments["policy"]["Statement"] if "ChangeResourceRecordSets" in str(each))
    assert grant == json.loads(json.dumps(dns).replace(str(OWN["smtp_hostname"]), "mx.example.com"))
    assert "--role-name smtp-proxy-production-certs " in TEXT


# Of the command line alone, and services that the API calls otherwise.
BY_THE_COMMAND_LINE = {("ecr", "get-login-password")}
GLOBAL = {"query", "output"}
CALLED = {"deploy": "codedeploy", "s3api": "s3"}


def asked_of_aws(script: str) -> list[tuple[str, str, set[str]]]:
    """Service, operation and options of each command, those within commands as well."""
    found = []
    for inner in re.findall(r"\$\(([^()]*)\)", script):
        found += asked_of_aws(inner)
    outer = re.sub(r'"[^"]*"', "TEXT", re.sub(r"\$\([^()]*\)", "FOUND", script))
    for service, operation, said in re.findall(r"\baws ([a-z0-9]+) ([a-z-]+)([^|;\n]*)", outer):
        found.append((service, operation, set(re.findall(r"(?<= --)[a-z-]+", said))))
    return found


@pytest.mark.parametrize("file", TYPED)
def test_our_own_command_line_takes_what_is_typed(file: str) -> None:
    """Only AWS was asked about its part, so `domains add TENANT DOMAIN` stood here, which is no such command."""
    asked = typed_in(TYPED[file])
    assert len(asked) > 12 or file != "docs/DEPLOY.md"
    assert [wrong for command, is_script in asked if (wrong := trouble_with(command, is_script=is_script))] == []


@pytest.mark.parametrize("file", TYPED)
def test_aws_has_what_it_is_asked(file: str) -> None:
    """Operations and options are those of AWS's own model, and what it must be told is said."""
    scripts = itertools.chain(blocks(TYPED[file]), re.findall(r"`([^`\n]+)`", TYPED[file]))
    asked = [each for script in scripts for each in asked_of_aws(script)]
    assert len(asked) > 15 or file != "docs/DEPLOY.md"
    for service, operation, said in asked:
        if (service, operation) in BY_THE_COMMAND_LINE:
            continue
        model = boto3.client(CALLED.get(service, service), region_name="us-east-1").meta.service_model
        names = {xform_name(name, "-"): name for name in model.operation_names}
        taken = model.operation_model(names[operation]).input_shape
        must = {xform_name(each, "-") for each in taken.required_members}
        assert must <= said <= {xform_name(each, "-") for each in taken.members} | GLOBAL, (service, operation)


def test_the_sealing_key_is_made_as_it_is_typed_and_stays_nowhere(tmp_path: Path) -> None:
    """The real command; what stands in for AWS keeps the file's name and that it was a key of this user alone."""
    made, put_away = [script for script in blocks(TEXT) if "sealing-key" in script]
    made = made[made.index("KEYS=") :].replace("../.venv/bin/", f"{Path(sys.executable).parent}/")
    told = tmp_path / "told"
    aws = f'''
        output() {{ echo "arn:$1"; }}
        aws() {{
            for last; do :; done
            stat -c %a "${{last#file://}}" >>"{told}"
            grep -cE "^[0-9a-f]+:[A-Za-z0-9+/=]{{40,}}$" "${{last#file://}}" >>"{told}"
            dirname "${{last#file://}}" >>"{told}"
            echo "$*" >>"{told}"
        }}'''
    changed = ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=all", "terraform", "pulumi"]
    before = subprocess.check_output(changed)
    subprocess.run(["bash", "-euc", f"{aws}\n{made}\n{put_away}"], cwd=ROOT / "terraform", check=True, timeout=60)
    mode, keys, folder, command = told.read_text().splitlines()
    assert (mode, keys) == ("600", "1")
    assert command.startswith(
        "secretsmanager put-secret-value --secret-id arn:sealing_secret_arn --secret-string file:"
    )
    assert not Path(folder).exists()
    assert ROOT not in Path(folder).parents
    assert subprocess.check_output(changed) == before


def test_every_protection_and_every_name_that_stays_is_told_of_where_the_stack_is_taken_down() -> None:
    """Found in stack.yaml, so that one that is new has to be said."""
    numbers = dedented().partition("environments:")[0]
    down = TEXT[TEXT.index("## Taking it down") :]
    sections = re.findall(r"^([a-z]+):(?: .*)?\n((?:  .*\n|\n)+)", numbers, re.MULTILINE)
    wanted = {
        f"{name}.{key}"
        for name, body in sections
        for key in re.findall(r"^  (deletion_protection|\w*secret_recovery_days):", body, re.MULTILINE)
    }
    assert {"alb.deletion_protection", "rds.proxy_secret_recovery_days"} < wanted
    assert [each for each in sorted(wanted) if f"`{each}`" not in down] == []
