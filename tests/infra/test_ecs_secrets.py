"""No secret is where it can be read: not in an environment, not in the state; and who logs in to Postgres as whom."""

from __future__ import annotations

from pathlib import Path

import pytest
from fix_infra import OWN, SIDES, SWITCHED, Side, pulumi_side, terraform_side, tree
from infra_graph.services import MASTER, MIGRATE, as_list, containers, environment, migration, of_kind, task_policies
from pydantic import SecretStr

from smtp_proxy.config import Settings, environment_name

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)


@SIDES
def test_no_secret_is_in_an_environment(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-004, REQ-INFRA-ECS-010: ARNs of Secrets Manager, which the task reads by itself."""
    forbidden = {environment_name(n) for n, info in Settings.model_fields.items() if info.annotation is SecretStr}
    assert "DB_PASSWORD" in forbidden
    for name, container in [*containers(stack(side)).items(), ("migrate", migration(stack(side)))]:
        assert "secrets" not in container, name
        given = environment(container)
        assert given.keys() & forbidden <= {"REDIS_URL"}, name
        assert "@" not in given.get("REDIS_URL", ""), name
        secrets = {key: value for key, value in given.items() if key.endswith("_SECRET")}
        opens = name in ("submission", "submissions", "worker", "certs")
        assert ("SECRET_KEY_SECRET" in secrets) == opens, name
        assert all(value.startswith("arn:aws:") for value in secrets.values()), name


@SIDES
def test_services_log_in_to_postgres_by_iam_and_migrations_as_the_master(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-004, least privilege: no service is told the master's secret, or reads it; decision 0043."""
    resources = stack(side)
    proxy = "aws_db_proxy" in {each.kind for each in resources}
    host, behind = "<aws_db_instance|rds-primary|address>", "<aws_db_proxy|rds-main|endpoint>"
    verified = {"DB_SSLMODE": "verify-full", "DB_CA_FILE": "/etc/smtp-proxy/rds-ca.pem"}
    for name, container in containers(resources).items():
        given = {key: value for key, value in environment(container).items() if key.startswith(("DB_", "MIGRATE_"))}
        if name == "dashboard":
            assert given == {}
            continue
        direct = {"DB_POOLER": "transaction", "DB_DIRECT_HOST": host, "DB_DIRECT_USER": "smtp_proxy_app"}
        assert given == {
            **verified,
            "DB_HOST": behind if proxy else host,
            "DB_PORT": "5432",
            "DB_NAME": "smtp_proxy",
            "DB_USER": "smtp_proxy_pooled" if proxy else "smtp_proxy_app",
            "DB_IAM": "true",
            "DB_POOL_SIZE": "8",
            **(direct if proxy else {}),
        }, name
    given = environment(migration(resources))
    assert given.items() >= {**verified, "DB_HOST": host, "MIGRATE_OWNER": "smtp_proxy_owner"}.items()
    assert given["MIGRATE_LOGIN"] == "smtp_proxy_app"
    assert given["DB_SECRET"].endswith(MASTER)
    assert ("MIGRATE_PROXY_SECRET" in given, given.get("MIGRATE_PROXY_LOGIN")) == (
        (True, "smtp_proxy_pooled") if proxy else (False, None)
    )
    assert of_kind(resources, "aws_db_instance")["rds-primary"]["iam_database_authentication_enabled"] == "true"


@SIDES
def test_no_service_reads_the_masters_secret(side: str, stack: Side) -> None:
    """Each logs in as one role of Postgres itself, and one of RDS Proxy; the migration's role does neither."""
    resources = stack(side)
    proxy = "aws_db_proxy" in {each.kind for each in resources}
    at = "arn:aws:rds-db:us-east-1:123456789012:dbuser:"
    logins = {f"{at}<aws_db_instance|rds-primary|resource_id>/smtp_proxy_app"}
    if proxy:
        logins.add(f"{at}<aws_db_proxy|rds-main|arn>/smtp_proxy_pooled")
    readers = set()
    for role, statements in task_policies(resources).items():
        found = {
            resource
            for each in statements
            if "rds-db:connect" in as_list(each["Action"])
            for resource in as_list(each["Resource"])
        }
        of_services = role.startswith("ecs-task-") and role != "ecs-task-dashboard"
        assert found == (logins if of_services else set()), role
        if MASTER in str(statements) or "rds-main" in str([e for e in statements if "kms" in str(e["Action"])]):
            readers.add(role)
    assert readers == {MIGRATE}


def test_for_one_step_those_read_it_that_there_were_before(tmp_path: Path) -> None:
    """Decision 0043: tasks of the release before, which had no process `api`. The internet talks to that one."""
    edits = [*SWITCHED["terraform/stack.yaml"], ("services_read_master: false", "services_read_master: true")]
    root = tree(tmp_path / "tree", {"terraform/stack.yaml": edits})
    for resources in (pulumi_side(root, "dev", OWN), terraform_side(root, tmp_path, "dev", OWN)):
        roles = {role for role, statements in task_policies(resources).items() if MASTER in str(statements)}
        assert roles == {MIGRATE, *(f"ecs-task-{name}" for name in ("submission", "submissions", "worker", "certs"))}


@SIDES
def test_the_proxy_is_logged_in_to_by_iam_and_has_a_secret_of_its_own(side: str, switched: Side) -> None:
    """The password in it is made up by the migration, and read by the proxy: by no service, and not the master's."""
    resources = switched(side)
    secret = "<aws_secretsmanager_secret|rds-proxy|arn>"
    auth = of_kind(resources, "aws_db_proxy")["rds-main"]["auth"]
    assert (auth["iam_auth"], auth["auth_scheme"]) == ("REQUIRED", "SECRETS")
    assert auth["secret_arn"].endswith(secret)
    policies = of_kind(resources, "aws_iam_role_policy")
    assert {role for role, each in policies.items() if secret in str(each)} == {MIGRATE, "rds-proxy"}
    assert {role for role, each in policies.items() if "PutSecretValue" in str(each)} == {MIGRATE}


@SIDES
def test_no_secret_has_its_value_in_the_state(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-004: made empty, or by RDS; a version would be a value in the state."""
    kinds = {each.kind for each in stack(side)}
    assert "aws_secretsmanager_secret" in kinds
    assert "aws_secretsmanager_secret_version" not in kinds
    assert of_kind(stack(side), "aws_db_instance")["rds-primary"]["manage_master_user_password"] == "true"
