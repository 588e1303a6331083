"""The services as both sides describe them: where they run, what they are told, what they may do.

Production, and dev with every switch turned (which has the API and the dashboard as well).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.model import ListShape, Shape, StructureShape
from fix_infra import OWN, ROOT, pulumi_side
from infra_graph.canonical import TOKEN, Resource, argument_name
from pydantic import SecretStr

from smtp_proxy.cli.entry import Service
from smtp_proxy.config import Settings, environment_name

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)

Side = Callable[[str], list[Resource]]
SIDES = pytest.mark.parametrize("side", ["terraform", "pulumi"])
PORTLESS = {"worker"}
NO_PROCESS_YET = {"api", "dashboard"}
# The task that migrates: no service, run by hand.
MIGRATE = "ecs-migrate"


@pytest.fixture(params=["production", "switched"])
def stack(request: pytest.FixtureRequest) -> Side:
    side: Side = request.getfixturevalue(request.param)
    return side


def of_kind(resources: list[Resource], kind: str) -> dict[str, Mapping[str, Any]]:
    return {each.role: each.arguments for each in resources if each.kind == kind}


def services(resources: list[Resource]) -> dict[str, Mapping[str, Any]]:
    return {each["name"]: each for each in of_kind(resources, "aws_ecs_service").values()}


def containers(resources: list[Resource]) -> dict[str, Mapping[str, Any]]:
    """Of services."""
    found = of_kind(resources, "aws_ecs_task_definition")
    return {
        role.removeprefix("ecs-main-"): each["container_definition"] for role, each in found.items() if role != MIGRATE
    }


def migration(resources: list[Resource]) -> Mapping[str, Any]:
    container: Mapping[str, Any] = of_kind(resources, "aws_ecs_task_definition")[MIGRATE]["container_definition"]
    return container


def environment(container: Mapping[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["environment"]}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@SIDES
def test_all_services_run_on_fargate(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-001, REQ-INFRA-ECS-011: on Fargate, and on nothing else."""
    found = services(stack(side))
    assert found.keys() >= {"submission", "submissions", "worker", "certs"}
    for name, each in found.items():
        strategies = as_list(each.get("capacity_provider_strategy", []))
        providers = {strategy["capacity_provider"] for strategy in strategies}
        assert each.get("launch_type") == "FARGATE" or providers <= {"FARGATE", "FARGATE_SPOT"}, name
        assert each.get("launch_type") == "FARGATE" or providers, name
    for definition in of_kind(stack(side), "aws_ecs_task_definition").values():
        assert (definition["requires_compatibility"], definition["network_mode"]) == ("FARGATE", "awsvpc")
    cluster = of_kind(stack(side), "aws_ecs_cluster_capacity_providers")["ecs-main"]
    assert set(cluster["capacity_provider"]) == {"FARGATE", "FARGATE_SPOT"}


@SIDES
def test_services_start_when_their_tasks_can(side: str, production: Side) -> None:
    """With the rights of their roles, and with ways to the image, the secrets and the database."""
    found = [each for each in production(side) if each.kind == "aws_ecs_service"]
    assert len(found) >= 4
    for each in found:
        assert {
            "aws_iam_role_policy ecs-execution",
            f"aws_iam_role_policy ecs-task-{each.arguments['name']}",
            "aws_route vpc-private-a",
            "aws_route_table_association vpc-private-a",
            "aws_vpc_endpoint vpc-s3",
            "aws_vpc_endpoint vpc-interface-ecr.dkr",
            "aws_vpc_security_group_egress_rule vpc-rule-smtp-to-database",
            "aws_vpc_security_group_ingress_rule vpc-rule-database-smtp",
        } <= each.dependencies, each.name


@SIDES
def test_tasks_are_arm64(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-013."""
    for definition in of_kind(stack(side), "aws_ecs_task_definition").values():
        assert definition["runtime_platform"] == {"cpu_architecture": "ARM64", "operating_system_family": "LINUX"}


@SIDES
def test_no_secret_is_in_an_environment(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-004, REQ-INFRA-ECS-010: ARNs of Secrets Manager, which the task reads by itself."""
    forbidden = {environment_name(n) for n, info in Settings.model_fields.items() if info.annotation is SecretStr}
    assert "DB_PASSWORD" in forbidden
    for name, container in [*containers(stack(side)).items(), ("migrate", migration(stack(side)))]:
        assert "secret" not in container, name
        given = environment(container)
        assert given.keys() & forbidden <= {"REDIS_URL"}, name
        assert "@" not in given.get("REDIS_URL", ""), name
        secrets = {key: value for key, value in given.items() if key.endswith("_SECRET")}
        assert name in ("dashboard", "migrate") or "SECRET_KEY_SECRET" in secrets, name
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
            if "rds-db:connect" in as_list(each["action"])
            for resource in as_list(each["resource"])
        }
        of_services = role.startswith("ecs-task-") and role != "ecs-task-dashboard"
        assert found == (logins if of_services else set()), role
        if MASTER in str(statements) or "rds-main" in str([e for e in statements if "kms" in str(e["action"])]):
            readers.add(role)
    assert readers == {MIGRATE}


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


@SIDES
def test_what_tasks_are_told_are_settings(side: str, stack: Side) -> None:
    """A name that is none would be passed over in silence, and a value that is refused would stop the task."""
    known = {environment_name(name) for name in Settings.model_fields}
    migrating = environment(migration(stack(side)))
    assert migrating.keys() <= known
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:of-AbCdEf"
    Settings.load(environ={key: arn if key.endswith("_SECRET") else value for key, value in migrating.items()})
    for name, container in containers(stack(side)).items():
        given = environment(container)
        assert given.keys() <= known, name
        # At the first apply there is neither a schema nor a key, and who ends is given up by ECS.
        assert name == "dashboard" or given["START_WAITS"] == "true", name
        said = {key: arn if key.endswith("_SECRET") else TOKEN.sub("host", value) for key, value in given.items()}
        of = Settings.load(environ=said)
        assert of.mode == "production"
        assert (of.health_port, of.metrics_service, of.metrics_emf) == (8081, name, "on")


@SIDES
def test_smtp_tasks_are_told_of_pressure_and_the_balancer(side: str, production: Side) -> None:
    """REQ-INFRA-SCALE-007: 421 above 50,000; and a PROXY header is believed from the public networks alone."""
    for name in ("submission", "submissions"):
        given = environment(containers(production(side))[name])
        assert (given["INGRESS_READY_DEPTH_HIGH"], given["INGRESS_READY_DEPTH_LOW"]) == ("50000", "40000")
        assert given["SMTP_PROXY_PROTOCOL_NETWORKS"] == "10.40.0.0/24,10.40.1.0/24,10.40.2.0/24"
        assert given["TLS_CERT_SOURCE"] == "store"


@SIDES
def test_tasks_are_told_the_sizes_that_are_reckoned_with(side: str, stack: Side) -> None:
    """REQ-INFRA-SCALE-003: the budget of connections and the plan are of stack.yaml, so tasks must be as it says."""
    of = yaml.safe_load((ROOT / "terraform/stack.yaml").read_text())["defaults"]
    services = {name: each for name, each in containers(stack(side)).items() if "max_tasks" in of[name]}
    assert len(services) >= 4
    for name, container in services.items():
        given = environment(container)
        wanted = [of[name].get(key) for key in ("smtp_max_connections", "db_pool_size")]
        assert [given.get(key) for key in ("SMTP_MAX_CONNECTIONS", "DB_POOL_SIZE")] == [
            None if each is None else str(each) for each in wanted
        ], name
        assert ("DB_POOL_SIZE" in given) == ("DB_HOST" in given), name


@SIDES
def test_every_container_is_asked_whether_it_is_well(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-012, REQ-INFRA-ECS-007: ECS replaces a task that ends, or whose container is not well."""
    for name, container in containers(stack(side)).items():
        serve, process = container["command"]
        assert serve == "serve", name
        # Liveness: by readiness a Postgres that is away would have every task ended.
        assert container["health_check"]["command"] == ["CMD", "smtp-proxy", "healthcheck", "--alive", process], name
        assert name in NO_PROCESS_YET or process in {service.value for service in Service}, name
        assert container["essential"] == "true", name
        assert 4 < int(container["health_check"]["timeout"]) < int(container["health_check"]["interval"]), name
    for name, service in services(stack(side)).items():
        assert int(service["desired_count"]) >= 1, name


@SIDES
def test_tasks_are_given_the_time_to_drain(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-009, REQ-INFRA-SCALE-010: two minutes to stop, and protection while a session lives."""
    for name, container in containers(stack(side)).items():
        assert container["stop_timeout"] == "120", name
        given = environment(container)
        if name in ("submission", "submissions", "worker"):
            assert given["TASK_PROTECTION"] == "on", name
        if name in ("submission", "submissions"):
            assert 0 < int(given["SMTP_SESSION_MAX_SECONDS"]) <= 3600, name


@SIDES
def test_who_deploys_what(side: str, stack: Side) -> None:
    """A port has CodeDeploy and one target group; worker and certs roll, and go back by themselves."""
    for name, service in services(stack(side)).items():
        controller = service["deployment_controller"]["type"]
        assert controller == ("ECS" if name in ("worker", "certs") else "CODE_DEPLOY"), name
        assert ("load_balancer" in service) == (name not in PORTLESS), name
        if controller == "ECS":
            assert service["deployment_circuit_breaker"] == {"enable": "true", "rollback": "true"}, name
        else:
            assert "deployment_circuit_breaker" not in service, name
        assert service["network_configuration"]["assign_public_ip"] == "false", name


@SIDES
def test_a_task_can_be_entered(side: str, stack: Side) -> None:
    """REQ-INFRA-ECS-014: ECS Exec, without NAT, and although nothing else of a container can be written to."""
    assert all(each["enable_execute_command"] == "true" for each in services(stack(side)).values())
    assert "vpc-interface-ssmmessages" in of_kind(stack(side), "aws_vpc_endpoint")
    for name, container in containers(stack(side)).items():
        assert container["readonly_root_filesystem"] == "true", name
        assert container["user"] == "10001", name
        paths = {each["container_path"] for each in container["mount_point"]}
        assert paths == {"/var/lib/smtp-proxy", "/var/lib/amazon", "/var/log/amazon"}, name
    for role, statements in task_policies(stack(side)).items():
        may = {action for each in statements for action in as_list(each["action"])}
        assert ("ssmmessages:OpenDataChannel" in may) == (role not in ("ecs-execution", MIGRATE)), role


@SIDES
def test_images_are_scanned_and_never_changed(side: str, stack: Side) -> None:
    repository = of_kind(stack(side), "aws_ecr_repository")["ecs-main"]
    assert repository["image_tag_mutability"] == "IMMUTABLE"
    assert repository["image_scanning_configuration"] == {"scan_on_push": "true"}
    for name, container in containers(stack(side)).items():
        assert re.search(r"(:first|@sha256:0{64})$", container["image"]), name


def role_policies(resources: list[Resource]) -> dict[str, list[Mapping[str, Any]]]:
    found = of_kind(resources, "aws_iam_role_policy")
    return {role: as_list(each["policy"]["statement"]) for role, each in found.items()}


def task_policies(resources: list[Resource]) -> dict[str, list[Mapping[str, Any]]]:
    return {role: each for role, each in role_policies(resources).items() if role.startswith("ecs-")}


# What AWS gives no resource for, and resources of which a part is known to AWS alone: what, and why.
WILDCARDS = {
    "ecr:GetAuthorizationToken": "has no resource",
    "ssmmessages:CreateControlChannel": "has no resource",
    "ssmmessages:CreateDataChannel": "has no resource",
    "ssmmessages:OpenControlChannel": "has no resource",
    "ssmmessages:OpenDataChannel": "has no resource",
    "logs:DescribeLogGroups": "is asked for all groups by the agent of ECS Exec",
    "logs:CreateLogStream": "streams of one group",
    "logs:DescribeLogStreams": "streams of one group",
    "logs:PutLogEvents": "streams of one group",
    "s3:GetObject": "objects of one bucket",
    "s3:PutObject": "objects of one bucket",
    "ecs:GetTaskProtection": "tasks of one cluster",
    "ecs:UpdateTaskProtection": "tasks of one cluster",
    "route53:GetChange": "the id of a change is not known before",
    "cloudwatch:DescribeAlarms": "has no resource",
    "ses:GetAccount": "has no resource",
    "elasticloadbalancing:DescribeListeners": "has no resource",
    "elasticloadbalancing:DescribeRules": "has no resource",
    "elasticloadbalancing:DescribeTargetGroups": "has no resource",
    "elasticloadbalancing:ModifyListener": "allowed with ModifyRule, of one listener",
    "elasticloadbalancing:ModifyRule": "rules of one listener",
    "ecs:CreateTaskSet": "a condition says of which cluster and services",
    "ecs:DeleteTaskSet": "a condition says of which cluster and services",
}
BARE = {name for name, why in WILDCARDS.items() if why == "has no resource"} | {"logs:DescribeLogGroups"}
TASK_SETS = {"ecs:CreateTaskSet", "ecs:DeleteTaskSet"}


@SIDES
def test_roles_may_do_no_more_than_they_must(side: str, stack: Side) -> None:
    """Least privilege: no action with a wildcard, no resource with one outside the list."""
    policies = role_policies(stack(side))
    assert {"codedeploy-main", "vpc-flow", "ecs-execution"} < policies.keys()
    for role, statements in policies.items():
        for statement in statements:
            assert statement["effect"] == "Allow", role
            actions, resources = as_list(statement["action"]), as_list(statement["resource"])
            assert not [action for action in actions if "*" in action], role
            if any("*" in resource for resource in resources):
                assert set(actions) <= WILDCARDS.keys(), (role, actions)
            if "*" in resources:
                bound = "ecs:cluster" in statement.get("condition", {}).get("arn_equal", {})
                assert set(actions) <= (TASK_SETS if bound else BARE), (role, actions)


# Which of the things that matter each service reaches: nothing that it does not use.
REACH = {
    "submission": {"rds", "sealing", "cache", "protection"},
    "submissions": {"rds", "sealing", "cache", "protection"},
    "worker": {"rds", "sealing", "cache", "protection"},
    "certs": {"rds", "sealing", "backup"},
    "api": {"rds", "sealing", "cache"},
    "dashboard": set(),
}
MASTER = "<aws_db_instance|rds-primary|master_user_secret_secret_arn>"
SIGNS = {
    "rds": ":dbuser:<aws_db_instance|rds-primary|resource_id>/smtp_proxy_app",
    "sealing": "<aws_secretsmanager_secret|ecs-sealing|arn>",
    "cache": "<aws_elasticache_replication_group|elasticache-main|arn>",
    "protection": ":task/",
    "backup": "<aws_s3_bucket|ecs-certificates|arn>",
}


@SIDES
def test_each_role_reaches_what_its_service_uses(side: str, stack: Side) -> None:
    for role, statements in task_policies(stack(side)).items():
        service = role.removeprefix("ecs-task-")
        if service == role:
            continue  # of what starts tasks, and of migrations
        resources = " ".join(str(resource) for each in statements for resource in as_list(each["resource"]))
        assert {what for what, sign in SIGNS.items() if sign in resources} == REACH[service], role


@SIDES
def test_the_worker_alone_sends_by_ses_and_only_with_what_is_named(side: str, production: Side, switched: Side) -> None:
    """Off unless ses_arns is given; and then no more than SendEmail, with these identities and configuration sets, and
    GetAccount, which `smtp-proxy deploy` asks for in the check of the worker: refused, nothing would be deployed."""
    assert ":ses:" not in str(task_policies(production(side)))
    found = {
        role: [each for each in statements if "ses:" in str(each["action"])]
        for role, statements in task_policies(switched(side)).items()
    }
    asks, sends = sorted(found.pop("ecs-task-worker"), key=lambda each: as_list(each["action"]))
    assert sorted(sends["action"]) == ["ses:SendEmail", "ses:SendRawEmail"]
    assert sorted(sends["resource"]) == sorted(OWN["ses_arns"])
    assert as_list(asks["action"]) == ["ses:GetAccount"]
    assert as_list(asks["resource"]) == ["*"]
    assert not any(found.values())


def test_ses_by_a_wildcard_is_refused_by_pulumi_too() -> None:
    """As terraform/tests/stack.tftest.hcl has it of Terraform."""
    with pytest.raises(AssertionError, match="ses_arns must be whole ARNs of SES, without wildcards"):
        pulumi_side(ROOT, "dev", {"ses_arns": ["arn:aws:ses:us-east-1:123456789012:identity/*"]})


@SIDES
def test_the_issuer_alone_tells_people_itself(side: str, stack: Side) -> None:
    """REQ-INFRA-TLS-006: of certificates that can not be had, to the topic of the alarms, with the right to its key."""
    topic = "<aws_sns_topic|cloudwatch-alerts|arn>"
    for name, container in containers(stack(side)).items():
        assert environment(container).get("CERT_ALERT_SNS_TOPIC", "").endswith(topic) == (name == "certs"), name
    for role, statements in task_policies(stack(side)).items():
        may = {
            action: each["resource"]
            for each in statements
            for action in as_list(each["action"])
            if action == "sns:Publish" or "cloudwatch-" in str(each["resource"])
        }
        assert may.keys() == (
            {"sns:Publish", "kms:Decrypt", "kms:GenerateDataKey"} if role == "ecs-task-certs" else set()
        ), role
        assert not may or (may["sns:Publish"].endswith(topic) and "cloudwatch-main" in may["kms:GenerateDataKey"])


@SIDES
def test_the_issuer_may_write_one_name_of_the_zone(side: str, switched: Side) -> None:
    """And of it the records of DNS-01 alone: MX, SPF and everything else of the zone are not its business."""
    change = "route53:ChangeResourceRecordSets"
    for role, statements in task_policies(switched(side)).items():
        found = [each for each in statements if change in as_list(each["action"])]
        assert bool(found) == (role == "ecs-task-certs"), role
        for each in found:
            said = each["condition"][argument_name("ForAllValues:StringEquals")]
            assert said == {
                argument_name(f"{change}NormalizedRecordNames"): f"_acme-challenge.{OWN['smtp_hostname']}",
                argument_name(f"{change}RecordTypes"): "TXT",
                argument_name(f"{change}Actions"): ["DELETE", "UPSERT"],
            }


@SIDES
def test_keys_are_used_by_way_of_a_service(side: str, stack: Side) -> None:
    """Whoever has a task's role decrypts nothing that Secrets Manager, S3 or SNS does not hand out for itself."""
    via = {}
    for role, statements in task_policies(stack(side)).items():
        for each in statements:
            if role.startswith("ecs-") and any(action.startswith("kms:") for action in as_list(each["action"])):
                said = each["condition"][argument_name("StringEquals")]["kms:via_service"]
                via[role, each["resource"]] = said
    assert via
    assert set(via.values()) <= {f"{name}.us-east-1.amazonaws.com" for name in ("secretsmanager", "s3", "sns")} | {
        "secretsmanager.eu-west-1.amazonaws.com"
    }


@SIDES
def test_a_smarthosts_secret_may_have_a_key_of_its_own(side: str, switched: Side) -> None:
    """Without kms:Decrypt a secret under a customer's key can not be read: the worker alone may, in its region."""
    found = {
        role: each
        for role, statements in task_policies(switched(side)).items()
        for each in statements
        if OWN["smarthost_kms_key_arn"] in as_list(each["resource"])
    }
    assert found.keys() == {"ecs-task-worker"}
    assert found["ecs-task-worker"]["action"] == "kms:Decrypt"
    assert "secretsmanager.eu-west-1.amazonaws.com" in str(found["ecs-task-worker"]["condition"])


@SIDES
def test_what_a_service_runs_is_not_deregistered(side: str, stack: Side) -> None:
    """Services ignore the definition of the next apply, and ECS starts no task of one that is deregistered."""
    definitions = of_kind(stack(side), "aws_ecs_task_definition")
    assert definitions
    assert {each["skip_destroy"] for each in definitions.values()} == {"true"}


@SIDES
def test_each_service_has_a_role_and_a_log_of_its_own(side: str, stack: Side) -> None:
    definitions = of_kind(stack(side), "aws_ecs_task_definition")
    for role, definition in definitions.items():
        service = role.removeprefix("ecs-main-") if role != MIGRATE else "migrate"
        own = MIGRATE if role == MIGRATE else f"ecs-task-{service}"
        assert definition["task_role_arn"].endswith(f"<aws_iam_role|{own}|arn>")
        assert definition["execution_role_arn"].endswith("<aws_iam_role|ecs-execution|arn>")
        options = definition["container_definition"]["log_configuration"]["option"]
        assert options["awslogs-group"].endswith(f"/{service}")


def unknown_keys(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """Keys that ECS does not know, which it refuses at apply and not before; names and lists in canonical form."""
    if isinstance(shape, ListShape):
        for each in as_list(value):
            yield from unknown_keys(each, shape.member, path)
    elif isinstance(shape, StructureShape):
        members = {argument_name(name): member for name, member in shape.members.items()}
        for key, inner in value.items():
            if key not in members:
                yield f"{path}.{key}"
            else:
                yield from unknown_keys(inner, members[key], f"{path}.{key}")


@SIDES
def test_containers_have_the_keys_that_ecs_knows(side: str, stack: Side) -> None:
    shape = botocore.session.get_session().get_service_model("ecs").shape_for("ContainerDefinition")
    for name, container in containers(stack(side)).items():
        assert list(unknown_keys(container, shape, name)) == []
    assert list(unknown_keys({"health_chekc": {}}, shape, "x")) == ["x.health_chekc"]


@SIDES
def test_certificates_are_kept_closed_and_in_versions(side: str, stack: Side) -> None:
    resources = stack(side)
    closed = of_kind(resources, "aws_s3_bucket_public_access_block")["ecs-certificates"]
    assert {closed[key] for key in closed if key != "bucket"} == {"true"}
    assert len(closed) == 5
    versions = of_kind(resources, "aws_s3_bucket_versioning")["ecs-certificates"]
    assert versions["versioning_configuration"]["statu"] == "Enabled"  # argument_name takes the last s
    statement = of_kind(resources, "aws_s3_bucket_policy")["ecs-certificates"]["policy"]["statement"]
    assert (statement["effect"], statement["condition"]) == ("Deny", {"bool": {"aws:secure_transport": "false"}})
