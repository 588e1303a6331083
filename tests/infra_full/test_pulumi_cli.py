"""pulumi/ by Pulumi's own command line and engine, from an empty account to an empty account.

The engine, its state, its order, its previews and the policy pack are real; `aws` answers in memory (tests/pulumi_cli).
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fix_infra import OWN, ROOT, SWITCHED, Edits, tree
from pulumi_cli.aws import Aws, Made, Refused
from pulumi_cli.command import Project, project

from smtp_proxy_policy.tasks import LOOKS

# An update of the whole stack takes half a minute on 2 cores, and five times as long where others want them too.
pytestmark = pytest.mark.timeout(1800)

ACCOUNT = "123456789012"
DEPLOY = (ROOT / "docs/DEPLOY.md").read_text()
PACK = ("--policy-pack", "policy")
# What the environment holds and no file may.
SECRETS = {"PULUMI_CONFIG_PASSPHRASE": "passphrase-of-a-test-Kx7", "AWS_SECRET_ACCESS_KEY": "key-of-a-test-Pq9"}
# Arguments of AWS's resources whose values would be secrets.
SECRET_ARGUMENTS = re.compile(r'"(password|passwords|authToken|secretString|masterPassword|secretKey|accessKey)":')


@contextmanager
def stack(folder: Path, environment: str, edits: Edits) -> Iterator[Project]:
    """A copy of the project in an account that has nothing, configured as docs/DEPLOY.md says."""
    root = tree(folder / "tree", edits)
    for name in (".venv", ".venv-policy"):  # Pulumi.yaml and PulumiPolicy.yaml name them
        (root / name).symlink_to(ROOT / name)
    with project(root / "pulumi", folder / "home", SECRETS) as found:
        found.does("stack", "init", environment)
        found.does("config", "set", "accountId", ACCOUNT)
        found.does("config", "set", "imageVersion", "1")
        found.does("config", "set", "smtpHostname", str(OWN["smtp_hostname"]))
        found.does("config", "set", "httpHostname", str(OWN["http_hostname"]))
        found.does("config", "set", "zoneId", str(OWN["zone_id"]))
        found.does("config", "set", "--path", "alertEmails[0]", "operators@example.com")
        yield found


def typed(pattern: str, command: str) -> list[str]:
    """The arguments of a command in docs/DEPLOY.md, as a shell makes them of what stands there."""
    (found,) = re.findall(pattern, DEPLOY, re.DOTALL)
    script = found.replace(command, "printf '%s\\n'")
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def edit(project: Project, file: str, there: str, instead: str) -> None:
    path = project.folder.parent / file
    text = path.read_text()
    assert text.count(there) == 1, there
    path.write_text(text.replace(there, instead))


def planned(project: Project) -> dict[str, int]:
    """What a preview would do, by what."""
    said = project.does("preview", "--json")
    found: dict[str, int] = json.loads(said[said.index("{") :])["changeSummary"]
    return found


def made(aws: Aws, kind: str, name: str) -> str:
    """Its id."""
    (found,) = [called for called, each in aws.there.items() if (each.kind, each.name) == (kind, name)]
    return found


def leaks(text: str) -> list[str]:
    """What looks like a secret, in a state."""
    named = [value for value in SECRETS.values() if value in text]
    return named + [match[0] for match in (SECRET_ARGUMENTS.search(text), LOOKS.search(text)) if match]


def test_a_stack_from_nothing_to_nothing(tmp_path: Path) -> None:
    """Dev with every switch turned: preview, up, nothing to do, one edit, what others change, destroy."""
    with stack(tmp_path, "dev", SWITCHED) as found:
        first = planned(found)
        assert first.keys() == {"create"}
        assert first["create"] > 300
        assert found.aws.there == {}

        said = found.does("up", "--yes", *PACK)
        assert "smtp-proxy@v0.1.0" in said, "the pack was not asked"
        assert found.changes() == first
        assert len(found.aws.there) > 300
        assert leaks(json.dumps(found.state())) == []
        assert [file for file in found.files() if leaks(file.read_text(errors="replace"))] == []

        found.does("preview", "--expect-no-changes", *PACK)
        one_edit_is_one_update(found)
        what_others_change_is_left(found)

        found.does("destroy", "--yes")
        assert found.aws.there == {}
        assert {verb for verb, _ in found.aws.did} == {"create", "update", "delete"}


def one_edit_is_one_update(found: Project) -> None:
    edit(found, "terraform/stack.yaml", "log_min_duration_ms: 1000", "log_min_duration_ms: 500")
    before = len(found.aws.did)
    found.does("up", "--yes", *PACK)
    assert found.changes()["update"] == 1
    assert found.changes().keys() == {"same", "update"}
    assert found.aws.did[before:] == [("update", "rds-main")]


def what_others_change_is_left(found: Project) -> None:
    """CodeDeploy and scaling change definition, group and count; by hand, somebody changed a delay."""
    service = made(found.aws, "aws_ecs_service", "ecs-blue-green-submission")
    others = {"desiredCount": 3, "taskDefinition": "smtp-proxy-dev-submission:7", "loadBalancers": []}
    found.aws.there[service] = changed(found.aws.there[service], **others)
    found.does("refresh", "--yes")
    found.does("preview", "--expect-no-changes")

    group = made(found.aws, "aws_lb_target_group", "nlb-acme")
    found.aws.there[group] = changed(found.aws.there[group], deregistrationDelay=1)
    found.does("refresh", "--yes")
    assert planned(found)["update"] == 1


def changed(of: Made, **values: object) -> Made:
    return of._replace(inputs={**of.inputs, **values})


def test_what_comes_before_the_services_as_it_is_typed(tmp_path: Path) -> None:
    """docs/DEPLOY.md, 3: key, repository and secret and nothing else, whose names are put out; then all the rest."""
    with stack(tmp_path, "production", {}) as found:
        found.does("up", "--yes", *typed(r"ECS='.*?(?=\n    output)", "pulumi up"))
        assert {(each.kind, each.name) for each in found.aws.there.values()} == {
            ("aws_kms_key", "ecs-main"),
            ("aws_ecr_repository", "ecs-main"),
            ("aws_secretsmanager_secret", "ecs-sealing"),
        }
        for output in ("image_repository", "sealing_secret_arn"):
            assert found.does("stack", "output", output).strip()
        found.does("up", "--yes", *PACK)
        found.does("preview", "--expect-no-changes", *PACK)


def test_what_is_configured_as_it_is_typed(tmp_path: Path) -> None:
    """docs/DEPLOY.md, 2: every name is one that the project declares, with its type."""
    (script,) = re.findall(
        r"^    pulumi stack init production\n((?:    pulumi config set .*\n)+)", DEPLOY, re.MULTILINE
    )
    with stack(tmp_path, "production", {}) as found:
        for line in script.splitlines():
            found.does(*shlex.split(line, comments=True)[1:])
        said = json.loads(found.does("config", "--json"))
        assert said["smtp-proxy:imageVersion"]["value"] == "1"
        assert json.loads(said["smtp-proxy:alertEmails"]["value"]) == ["operators@example.com"]
        found.does("preview")


def test_a_sealing_secret_that_was_had_back_is_taken_in_as_it_is_typed(tmp_path: Path) -> None:
    """docs/DEPLOY.md, taking down: nothing is made in its place, and nothing is said of protection that it has not."""
    first = typed(r"ECS='.*?(?=\n    output)", "pulumi up")
    component, taken_in = re.findall(r"`pulumi (up|import) (--stack production [^`]*\$ECS[^`]*)`", DEPLOY)
    assert (component[0], taken_in[0]) == ("up", "import")
    with stack(tmp_path, "production", {}) as found:
        urn = next(each for each in first if each.endswith("::ecs"))
        found.does("up", "--yes", *first)
        found.does("state", "delete", "--yes", next(each for each in first if each.endswith("::ecs-sealing")))
        arn = made(found.aws, "aws_secretsmanager_secret", "ecs-sealing")

        def words(of: str) -> list[str]:
            return [arn if each == "ARN" else each for each in shlex.split(of.replace("$ECS::ecs", urn))]

        found.does("up", "--yes", *words(component[1]))
        found.does("import", "--yes", *words(taken_in[1]))
        (kept,) = [each for each in found.state()["deployment"]["resources"] if each["urn"].endswith("::ecs-sealing")]
        assert (kept["id"], kept.get("protect", False)) == (arn, False)
        found.does("up", "--yes")
        assert made(found.aws, "aws_secretsmanager_secret", "ecs-sealing") == arn


def test_a_breach_that_a_preview_sees_makes_nothing(tmp_path: Path) -> None:
    row = 'direction: ingress, peer: database, port: postgres, why: "RDS Proxy stands in the same group"'
    edits: Edits = {"terraform/stack.yaml": [(row, row.replace("peer: database", "peer: world"))]}
    with stack(tmp_path, "production", edits) as found:
        done = found.runs("up", "--yes", *PACK)
        assert done.status != 0
        assert "SecurityGroupIngressRule vpc-rule-database-itself: lets 0.0.0.0/0 reach port 5432" in done.said
        assert found.aws.there == {}


def test_a_breach_that_only_an_update_sees_is_not_made(tmp_path: Path) -> None:
    """A container definition has ARNs in it, which a preview does not know. REQ-INFRA-ECS-010."""
    there = '"METRICS_SERVICE": service,'
    edits: Edits = {"pulumi/smtp_proxy_infra/ecs_tasks.py": [(there, f'{there} "DB_PASSWORD": "x",')]}
    with stack(tmp_path, "dev", edits) as found:
        assert "can't run policy 'no-credentials'" in found.does("preview", *PACK)
        done = found.runs("up", "--yes", *PACK)
        assert done.status != 0
        # Of whichever service comes first.
        assert re.search(r"DB_PASSWORD of \w+ holds a credential; give the ARN of its secret", done.said), done.said
        assert {each.kind for each in found.aws.there.values()}.isdisjoint(
            {"aws_ecs_task_definition", "aws_ecs_service"}
        )


def test_production_is_destroyed_only_by_who_asks_twice(tmp_path: Path) -> None:
    """docs/DEPLOY.md: the database and the load balancer refuse; then both are told, without the pack; then destroy."""
    with stack(tmp_path, "production", {}) as found:
        found.does("up", "--yes", *PACK)
        done = found.runs("destroy", "--yes")
        assert done.status != 0
        assert "has deletionProtection" in done.said or "has enableDeletionProtection" in done.said
        assert {"rds-primary", "nlb-main"} <= {each.name for each in found.aws.there.values()}

        unprotect(found)
        refused = found.runs("up", "--yes", *PACK)
        assert refused.status != 0
        assert "may be deleted by one command: deletionProtection is not on" in refused.said
        found.does("up", "--yes")
        found.does("destroy", "--yes")
        assert found.aws.there == {}


def unprotect(found: Project) -> None:
    edit(
        found,
        "terraform/stack.yaml",
        "  production:\n    rds:\n",
        "  production:\n    nlb: {deletion_protection: false}\n    rds:\n      deletion_protection: false\n",
    )


# -- whether what answers here would notice


def test_what_answers_as_aws_refuses_what_aws_would() -> None:
    aws = Aws()
    vpc = Made("aws_vpc", "main", {})
    subnet = Made("aws_subnet", "a", {"vpcId": "<aws_vpc|main|id>"})
    with pytest.raises(Refused, match="aws_subnet a refers to aws_vpc main, which is not there"):
        aws.could_make(subnet)
    aws.there = {"1": vpc, "2": subnet}
    aws.could_make(Made("aws_subnet", "b", subnet.inputs))
    with pytest.raises(Refused, match="aws_vpc main is there already"):
        aws.could_make(vpc)
    with pytest.raises(Refused, match="aws_vpc main is used by aws_subnet a"):
        aws.could_delete(vpc)
    with pytest.raises(Refused, match="aws_lb x has enableDeletionProtection"):
        aws.could_delete(Made("aws_lb", "x", {"enableDeletionProtection": True}))
    group = Made("aws_lb_target_group", "g", {})
    service = Made("aws_ecs_service", "s", {"loadBalancers": [{"targetGroupArn": "arn:<aws_lb_target_group|g|arn>"}]})
    aws.there = {"1": group}
    with pytest.raises(Refused, match="g of s does not have an associated load balancer"):
        aws.could_make(service)
    aws.there["2"] = Made(
        "aws_lb_listener", "l", {"defaultActions": [{"targetGroupArn": "<aws_lb_target_group|g|arn>"}]}
    )
    aws.could_make(service)


@pytest.mark.parametrize(
    "state",
    ['{"password": "x"}', '{"url": "rediss://u:hunter2@cache"}', '{"note": "key-of-a-test-Pq9"}', '{"authToken": "x"}'],
)
def test_a_secret_in_a_state_would_be_found(state: str) -> None:
    assert leaks(state)
