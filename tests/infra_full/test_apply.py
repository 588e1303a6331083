"""`terraform apply` of production's stack, and its whole life: to a local AWS (tests/local_aws). REQ-INFRA-ECS-002.

In this order, each after the one before: applied, planned again, edited, its protection lifted, destroyed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from fix_applied import Stack

pytestmark = pytest.mark.timeout(3600)

# Attributes that hold a secret where they hold anything.
SECRET = re.compile(
    r"password(?!_required|_kms|_wo_version|s?_count)|auth_token(?!_update_strategy)|secret_string|secret_binary|secret_key|private_key"
)
# Whose names say `password` and whose values say whether or where, not what.
HARMLESS = {"manage_master_user_password"}


def differing(change: dict[str, Any]) -> set[str]:
    before, after, unknown = change["before"] or {}, change["after"] or {}, change["after_unknown"]
    return {key for key in before.keys() | after.keys() if key in unknown or before.get(key) != after.get(key)}


def test_all_of_it_is_made(applied: Stack) -> None:
    assert {tuple(each["actions"]) for each in applied.planned.values()} == {("create",)}
    made = json.loads(applied.workspace.run("show", "-json"))["values"]["root_module"]
    addresses = {each["address"] for each in resources(made) if each["mode"] == "managed"}
    assert addresses == applied.planned.keys()
    assert len(addresses) > 250


def resources(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from resources(child)


def test_what_was_made_is_what_is_there(applied: Stack) -> None:
    """By AWS's own answer, and not by the state: one of each kind that mail needs."""
    (database,) = applied.api("rds").describe_db_instances()["DBInstances"]
    assert (database["DBInstanceStatus"], database["MultiAZ"], database["StorageEncrypted"]) == (
        "available",
        True,
        True,
    )
    assert database["PubliclyAccessible"] is False
    (cache,) = applied.api("elasticache").describe_replication_groups()["ReplicationGroups"]
    assert (cache["TransitEncryptionMode"], cache["AtRestEncryptionEnabled"]) == ("required", True)
    assert len(cache["MemberClusters"]) == 3
    cluster = "smtp-proxy-production"
    services = applied.api("ecs").describe_services(
        cluster=cluster, services=["submission", "submissions", "worker", "certs"]
    )["services"]
    assert {each["serviceName"]: each["desiredCount"] for each in services} == {
        "submission": 2,
        "submissions": 2,
        "worker": 1,
        "certs": 1,
    }
    (balancer,) = applied.api("elbv2").describe_load_balancers()["LoadBalancers"]
    listeners = applied.api("elbv2").describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    own = {587, 465, 80}
    assert {each["Port"] for each in listeners} == own | {10587, 20587, 10465, 20465}
    always = [each["DefaultActions"][0]["TargetGroupArn"] for each in listeners if each["Port"] not in own]
    assert len(set(always)) == 4, "each group of blue and green is on a listener of its own"
    records = applied.api("route53").list_resource_record_sets(HostedZoneId=applied.own["zone_id"])[
        "ResourceRecordSets"
    ]
    assert [each["Name"] for each in records if each["Type"] == "A"] == ["smtp.example.com."]


def test_a_second_plan_finds_nothing(applied: Stack) -> None:
    """Without an exception: what moto did not tell as AWS does, tests/local_aws tells."""
    assert {address: differing(change) for address, change in applied.again.items()} == {}


def test_no_secret_is_in_the_state(applied: Stack) -> None:
    """Of those that AWS knows by then: the database's password, the smarthost's login, the sealing key."""
    assert len(applied.secrets) == 3
    for secret in applied.secrets:
        assert [part for part in parts(secret) if part in applied.state] == []
    held = {(path, value) for path, value in leaves(json.loads(applied.state)["resources"]) if value}
    named = [path for path, _ in held if SECRET.search(path.split(".")[-1]) and path.split(".")[-1] not in HARMLESS]
    assert named == []


def parts(secret: str) -> list[str]:
    """A secret, and what it has within that is one by itself."""
    try:
        return [secret, json.loads(secret)["password"]]
    except (ValueError, TypeError, KeyError):
        return [secret]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    else:
        yield path, value


def test_an_edit_is_one_update(edited: Stack) -> None:
    assert edited.edit.keys() == {"module.vpc.aws_cloudwatch_log_group.flow"}
    change = edited.edit["module.vpc.aws_cloudwatch_log_group.flow"]
    assert (change["actions"], differing(change)) == (["update"], {"retention_in_days"})
    (group,) = edited.api("logs").describe_log_groups(logGroupNamePrefix="/smtp-proxy-production/vpc-flow")["logGroups"]
    assert group["retentionInDays"] == 60


def test_data_is_asked_for_twice(edited: Stack) -> None:
    """The database and the load balancer refuse, whoever asks."""
    with pytest.raises(ClientError, match="protect"):
        edited.api("rds").delete_db_instance(DBInstanceIdentifier="smtp-proxy-production", SkipFinalSnapshot=True)
    (balancer,) = edited.api("elbv2").describe_load_balancers()["LoadBalancers"]
    with pytest.raises(ClientError, match="protect"):
        edited.api("elbv2").delete_load_balancer(LoadBalancerArn=balancer["LoadBalancerArn"])


def test_the_first_time_is_two_updates(lifted: Stack) -> None:
    assert lifted.lift.keys() == {"module.rds.aws_db_instance.primary", "module.nlb.aws_lb.main"}
    assert {tuple(each["actions"]) for each in lifted.lift.values()} == {("update",)}
    (database,) = lifted.api("rds").describe_db_instances()["DBInstances"]
    assert database["DeletionProtection"] is False


def mine(names: list[str]) -> list[str]:
    """Without what is AWS's own and there in every account."""
    return [name for name in names if "smtp-proxy" in name]


def keys(on: Stack) -> list[dict[str, Any]]:
    """Those that customers have, without AWS's own."""
    api = on.api("kms")
    told = [api.describe_key(KeyId=each["KeyId"])["KeyMetadata"] for each in api.list_keys()["Keys"]]
    return [each for each in told if each["KeyManager"] == "CUSTOMER"]


LEFT: dict[str, Callable[[Stack], list[Any]]] = {
    "databases": lambda on: on.api("rds").describe_db_instances()["DBInstances"],
    "parameters of databases": lambda on: on.api("rds").describe_db_parameter_groups()["DBParameterGroups"],
    "caches": lambda on: on.api("elasticache").describe_replication_groups()["ReplicationGroups"],
    "users of caches": lambda on: on.api("elasticache").describe_users()["Users"],
    "load balancers": lambda on: on.api("elbv2").describe_load_balancers()["LoadBalancers"],
    "target groups": lambda on: on.api("elbv2").describe_target_groups()["TargetGroups"],
    # ECS goes on telling of a cluster that was deleted, as of an inactive one.
    "clusters": lambda on: [
        each["clusterName"]
        for each in on.api("ecs").describe_clusters(clusters=["smtp-proxy-production"])["clusters"]
        if each["status"] != "INACTIVE"
    ],
    "deployments": lambda on: on.api("codedeploy").list_applications()["applications"],
    "images": lambda on: on.api("ecr").describe_repositories()["repositories"],
    "buckets": lambda on: on.api("s3").list_buckets()["Buckets"],
    "logs": lambda on: on.api("logs").describe_log_groups()["logGroups"],
    "alarms": lambda on: on.api("cloudwatch").describe_alarms()["MetricAlarms"],
    "dashboards": lambda on: on.api("cloudwatch").list_dashboards()["DashboardEntries"],
    "topics": lambda on: on.api("sns").list_topics()["Topics"],
    "budgets": lambda on: on.api("budgets").describe_budgets(AccountId="123456789012")["Budgets"],
    "networks": lambda on: [each for each in on.api("ec2").describe_vpcs()["Vpcs"] if not each["IsDefault"]],
    "addresses": lambda on: on.api("ec2").describe_addresses()["Addresses"],
    "endpoints": lambda on: [
        each for each in on.api("ec2").describe_vpc_endpoints()["VpcEndpoints"] if each["State"] != "deleted"
    ],
    "gateways": lambda on: [
        each for each in on.api("ec2").describe_nat_gateways()["NatGateways"] if each["State"] != "deleted"
    ],
    "roles": lambda on: mine([each["RoleName"] for each in on.api("iam").list_roles()["Roles"]]),
    "keys": lambda on: [each["KeyId"] for each in keys(on) if each["KeyState"] != "PendingDeletion"],
    "names": lambda on: [
        each
        for each in on.api("route53").list_resource_record_sets(HostedZoneId=on.own["zone_id"])["ResourceRecordSets"]
        if each["Type"] == "A"
    ],
}


def test_nothing_is_in_the_state_of_what_was_destroyed(destroyed: Stack) -> None:
    assert json.loads(destroyed.state)["resources"] == []


@pytest.mark.parametrize("kind", LEFT)
def test_nothing_is_left(kind: str, destroyed: Stack) -> None:
    assert LEFT[kind](destroyed) == []


def test_the_database_leaves_a_snapshot_called_after_its_key(destroyed: Stack) -> None:
    """Whose deletion can be taken back for 30 days; another time the stack has another key, and so another name."""
    snapshots = destroyed.api("rds").describe_db_snapshots()["DBSnapshots"]
    (final,) = (each["DBSnapshotIdentifier"] for each in snapshots if "-final-" in each["DBSnapshotIdentifier"])
    key = final.removeprefix("smtp-proxy-production-final-")
    of = {each["KeyId"]: each for each in keys(destroyed)}[key]
    assert of["KeyState"] == "PendingDeletion"
    assert of["DeletionDate"] - datetime.now(UTC) > timedelta(days=29)


def test_the_secrets_of_others_stay_and_the_sealing_key_can_be_had_back(destroyed: Stack) -> None:
    vault = destroyed.api("secretsmanager")
    assert [each["Name"] for each in vault.list_secrets()["SecretList"]] == ["relay"]
    gone = vault.describe_secret(SecretId="smtp-proxy-production/secret-key")
    assert gone["DeletedDate"] is not None
