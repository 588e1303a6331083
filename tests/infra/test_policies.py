"""pulumi/policy over the real graph: nothing is found in it, and each policy finds what it is there for.

The pack runs in its own environment, spoken to as Pulumi's engine does; resources are those of the program itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fix_infra import OWN, ROOT, SWITCHED, tree
from infra_graph.policy_pack import Pack, PackFailed, Resource, graph, previewed, providers_of, running

from smtp_proxy_policy import access, reading, rules, storage

Graph = list[Resource]
Inputs = dict[str, Any]

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
CACHE = "aws:elasticache/replicationGroup:ReplicationGroup"
CLOSED = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
DATABASE = "aws:rds/instance:Instance"
DEFINITION = "aws:ecs/taskDefinition:TaskDefinition"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
ENCRYPTION = "aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2"
GROUP = "aws:codedeploy/deploymentGroup:DeploymentGroup"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
KEY = "aws:kms/key:Key"
LISTENER = "aws:lb/listener:Listener"
POLICY = "aws:iam/rolePolicy:RolePolicy"
PROVIDER = "pulumi:providers:aws"
REPOSITORY = "aws:ecr/repository:Repository"
ROLE = "aws:iam/role:Role"
SECRET = "aws:secretsmanager/secret:Secret"
SERVICE = "aws:ecs/service:Service"
TOPIC_POLICY = "aws:sns/topicPolicy:TopicPolicy"
USER = "aws:elasticache/user:User"


@pytest.fixture(scope="session")
def pack() -> Iterator[Pack]:
    with running() as found:
        yield found


@pytest.fixture(scope="session")
def switched_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("policies") / "tree", SWITCHED)


@pytest.fixture(scope="session")
def graphs(switched_tree: Path) -> Callable[[str], Graph]:
    """By environment, or `switched`: dev with every switch turned. What is handed out is a copy."""
    known: dict[str, str] = {}

    def of(name: str) -> Graph:
        if name not in known:
            found = graph(switched_tree, "dev", OWN) if name == "switched" else graph(ROOT, name)
            known[name] = json.dumps(found)
        copied: Graph = json.loads(known[name])
        return copied

    return of


def found(resources: Graph, kind: str, name: str) -> Resource:
    (one,) = [each for each in resources if (each["type"], each["name"]) == (kind, name)]
    return one


# -- the stack as it is


@pytest.mark.parametrize("name", ["dev", "staging", "production"])
def test_nothing_is_found(name: str, pack: Pack, graphs: Callable[[str], Graph]) -> None:
    """REQ-INFRA-ECS-004, REQ-INFRA-ECS-010: nor a credential in any task definition."""
    resources = graphs(name)
    assert len(resources) > 250
    assert pack.asks_each(resources) == []
    # Who is told is for whoever has the account; that nobody is, is said and stops nothing.
    assert {each.policy for each in pack.asks_all(resources)} == {"alarms-heard"}


def test_nothing_is_found_with_every_switch_turned(switched_tree: Path, graphs: Callable[[str], Graph]) -> None:
    resources = graphs("switched")
    assert len(resources) > 300
    with running(switched_tree / "pulumi/policy") as pack:  # which reads the stack.yaml beside it
        assert pack.asks_each(resources) == []
        assert pack.asks_all(resources) == []


def test_all_but_one_stop_what_they_find(pack: Pack) -> None:
    policies = pack.policies()
    assert len(policies) == len(rules.RULES) + len(rules.STACK_RULES) > 45
    assert [name for name, stops in policies.items() if not stops] == ["alarms-heard"]


def test_a_preview_stops_nothing_and_says_what_it_could_not_ask(pack: Pack, graphs: Callable[[str], Graph]) -> None:
    """Policy documents and containers have ARNs in them, which are not known before: `up` asks again."""
    resources = previewed(graphs("production"))
    said = pack.asks_each(resources) + pack.asks_all(resources)
    assert [each for each in said if each.stops] == []
    assert {each.policy for each in said} == {
        "actions-named",
        "alarms-heard",
        "buckets-by-tls",
        "containers-hardened",
        "images-pinned",
        "no-credentials",
        "principals-named",
        "resources-named",
        "roles-passed",
    }
    assert all("can't run policy" in each.message for each in said if each.policy != "alarms-heard")


# -- breaches, one by one


class Breach(NamedTuple):
    """What is done to one resource, and what is said then."""

    policy: str
    kind: str
    name: str
    change: Callable[[Inputs], object]
    said: str
    graph: str = "production"


def without(*keys: str) -> Callable[[Inputs], object]:
    return lambda inputs: [inputs.pop(key) for key in keys]


def given(**values: Any) -> Callable[[Inputs], object]:
    return lambda inputs: inputs.update(values)


def within(key: str, **values: Any) -> Callable[[Inputs], object]:
    """A block, changed."""
    return lambda inputs: inputs[key].update(values)


def statements(key: str, change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Inputs], object]:
    """Of a policy document."""

    def edit(inputs: Inputs) -> None:
        document = json.loads(inputs[key])
        change(document["Statement"])
        inputs[key] = json.dumps(document)

    return edit


def more(**statement: Any) -> Callable[[Inputs], object]:
    return statements("policy", lambda each: each.append({"Effect": "Allow", **statement}))


def container(**values: Any) -> Callable[[Inputs], object]:
    def edit(inputs: Inputs) -> None:
        (one,) = json.loads(inputs["containerDefinitions"])
        inputs["containerDefinitions"] = json.dumps([one | values])

    return edit


def variable(name: str, value: str) -> Callable[[Inputs], object]:
    def edit(inputs: Inputs) -> None:
        (one,) = json.loads(inputs["containerDefinitions"])
        one["environment"].append({"name": name, "value": value})
        inputs["containerDefinitions"] = json.dumps([one])

    return edit


def parameter(name: str, value: str) -> Callable[[Inputs], object]:
    def edit(inputs: Inputs) -> None:
        kept = [each for each in inputs["parameters"] if each["name"] != name]
        inputs["parameters"] = [*kept, {"name": name, "value": value}]

    return edit


ARN = "arn:aws:s3:::somewhere"
LATEST = "123456789012.dkr.ecr.us-east-1.amazonaws.com/smtp-proxy-production:latest"
KEY_OF_AWS = "AKIA" + "ABCDEFGH234567AB"  # no key: test_secrets.py would find one
BREACHES = [
    # ---- storage
    Breach(
        "database-encrypted", DATABASE, "rds-primary", given(storageEncrypted=False), "is not encrypted at rest; set"
    ),
    Breach("database-encrypted", DATABASE, "rds-primary", without("kmsKeyId"), "give kms_key_id"),
    Breach(
        "database-encrypted", DATABASE, "rds-primary", without("performanceInsightsKmsKeyId"), "Performance Insights"
    ),
    Breach("database-encrypted", DATABASE, "rds-primary", given(publiclyAccessible=True), "has an address of the"),
    Breach(
        "database-password", DATABASE, "rds-primary", given(password="hunter2"), "would be in the state; leave it to"
    ),
    Breach("database-password", DATABASE, "rds-primary", without("manageMasterUserPassword"), "nobody rotates its"),
    Breach(
        "cache-encrypted", CACHE, "elasticache-main", given(atRestEncryptionEnabled=False), "is not encrypted at rest"
    ),
    Breach(
        "cache-encrypted", CACHE, "elasticache-main", given(transitEncryptionMode="preferred"), "takes clear text; set"
    ),
    Breach("cache-encrypted", CACHE, "elasticache-main", given(authToken="hunter2"), "its token would be in the state"),
    Breach("cache-encrypted", CACHE, "elasticache-main", without("userGroupIds"), "lets everybody in who reaches it"),
    Breach(
        "cache-logins", USER, "elasticache-tasks", given(passwords=["hunter2"]), "its password would be in the state"
    ),
    Breach("cache-logins", USER, "elasticache-tasks", without("authenticationMode"), "logs in without IAM; set"),
    Breach(
        "cache-logins", USER, "elasticache-default", given(accessString="on ~* +@all"), "logs in without", "switched"
    ),
    Breach("keys-rotated", KEY, "rds-main", given(enableKeyRotation=False), "is never rotated; set"),
    Breach("keys-rotated", KEY, "ecs-main", given(deletionWindowInDays=7), "gone in less than 30 days"),
    Breach("secrets-keyed", SECRET, "ecs-sealing", without("kmsKeyId"), "give kms_key_id"),
    Breach("secrets-keyed", SECRET, "ecs-sealing", given(recoveryWindowInDays=0), "is gone at once when deleted; set"),
    Breach("topics-encrypted", "aws:sns/topic:Topic", "cloudwatch-alerts", without("kmsMasterKeyId"), "in clear text"),
    Breach(
        "images-kept", REPOSITORY, "ecs-main", without("encryptionConfigurations"), "encrypted with a key that others"
    ),
    Breach(
        "images-kept", REPOSITORY, "ecs-main", given(imageTagMutability="MUTABLE"), "a tag may come to mean another"
    ),
    Breach("images-kept", REPOSITORY, "ecs-main", without("imageScanningConfiguration"), "images are not looked over"),
    Breach(
        "buckets-encrypted",
        ENCRYPTION,
        "ecs-certificates",
        given(rules=[{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}]),
        "objects are not encrypted with a key of ours; set",
    ),
    Breach(
        "buckets-closed", CLOSED, "ecs-certificates", given(blockPublicPolicy=False), "may become public: blockPublicP"
    ),
    Breach("buckets-closed", CLOSED, "alb-logs", without("restrictPublicBuckets"), "restrictPublicBuckets", "switched"),
    Breach(
        "buckets-by-tls",
        BUCKET_POLICY,
        "ecs-certificates",
        statements("policy", lambda each: each[0]["Condition"]["Bool"].update({"aws:SecureTransport": "true"})),
        "may be read in clear text; deny",
    ),
    # ---- access
    Breach("actions-named", POLICY, "ecs-task-worker", more(Action="s3:Get*", Resource=ARN), "allows s3:Get*; name"),
    Breach(
        "actions-named", POLICY, "codedeploy-main", more(NotAction=["iam:*"], Resource=ARN), "NotAction allows every"
    ),
    Breach("actions-named", BUCKET_POLICY, "ecs-certificates", more(Action="s3:*", Resource=ARN), "allows s3:*; name"),
    Breach(
        "resources-named",
        POLICY,
        "ecs-task-worker",
        more(Action=["secretsmanager:GetSecretValue"], Resource="*"),
        "allows secretsmanager:GetSecretValue of *; name",
    ),
    Breach(
        "resources-named",
        POLICY,
        "ecs-task-certs",
        more(Action=["s3:DeleteObject"], Resource=[f"{ARN}/*"]),
        f"allows s3:DeleteObject of {ARN}/*; name",
    ),
    Breach(
        "resources-named",
        POLICY,
        "ecs-task-certs",
        more(Action="s3:PutObject", Resource="*"),
        "allows s3:PutObject of *",
    ),
    Breach(
        "resources-named",
        POLICY,
        "codedeploy-main",
        more(Action=["ecs:CreateTaskSet"], Resource="*"),
        "allows ecs:CreateTaskSet of *; name",
    ),
    Breach(
        "principals-named",
        TOPIC_POLICY,
        "cloudwatch-alerts",
        more(Action="sns:Publish", Resource=ARN, Principal={"AWS": "*"}),
        "lets in everybody who has an account of AWS; name",
    ),
    Breach(
        "principals-named",
        TOPIC_POLICY,
        "cloudwatch-alerts",
        statements("policy", lambda each: each[0].pop("Condition")),
        "lets in cloudwatch.amazonaws.com for any account; add",
    ),
    Breach(
        "principals-named",
        KEY,
        "cloudwatch-main",
        more(Action="kms:Decrypt", Resource="*", Principal="*"),
        "lets in everybody who has an account of AWS; name",
    ),
    Breach(
        "roles-passed",
        POLICY,
        "codedeploy-main",
        statements("policy", lambda each: each[-1].pop("Condition")),
        "may hand roles on to any service; add",
    ),
    Breach(
        "roles-trusted",
        ROLE,
        "ecs-task-api",
        statements(
            "assumeRolePolicy", lambda each: each[0].update(Principal={"AWS": "arn:aws:iam::999999999999:root"})
        ),
        "may be taken by {'AWS': 'arn:aws:iam::999999999999:root'}; trust",
        "switched",
    ),
    Breach(
        "roles-trusted",
        ROLE,
        "ecs-execution",
        statements("assumeRolePolicy", lambda each: each[0].update(Principal={"Service": "ec2.amazonaws.com"})),
        "may be taken by ec2.amazonaws.com; trust",
    ),
    Breach(
        "roles-trusted", ROLE, "ecs-execution", given(managedPolicyArns=[ARN]), "grants where nobody looks; make it"
    ),
    Breach(
        "policies-ours",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        "rds-monitoring",
        given(policyArn="arn:aws:iam::aws:policy/AdministratorAccess"),
        "grants arn:aws:iam::aws:policy/AdministratorAccess, which AWS may widen; write out",
    ),
    # ---- network
    Breach(
        "entrances",
        INGRESS,
        "vpc-rule-nlb-http",
        given(fromPort=22, toPort=22),
        "lets 0.0.0.0/0 reach port 22; the world may reach 587, 465, 80, 443 alone",
    ),
    Breach("entrances", INGRESS, "vpc-rule-nlb-http", given(fromPort=1), "lets 0.0.0.0/0 reach port 1 to 80;"),
    Breach("entrances", INGRESS, "vpc-rule-nlb-http", given(ipProtocol="-1"), "lets 0.0.0.0/0 reach all ports;"),
    Breach(
        "entrances",
        INGRESS,
        "vpc-rule-database-itself",
        given(cidrIpv4="128.0.0.0/1"),
        "lets 128.0.0.0/1 reach port 5432; the world",
    ),
    Breach(
        "entrances", INGRESS, "vpc-rule-cache-worker", given(cidrIpv6="::/0"), "lets ::/0 reach port 6379; the world"
    ),
    Breach(
        "exits",
        EGRESS,
        "vpc-rule-worker-to-mx",
        given(fromPort=0, toPort=65535),
        "may reach port 0 to 65535 of 0.0.0.0/0",
    ),
    Breach(
        "rules-explained", EGRESS, "vpc-rule-worker-to-mx", without("description"), "does not say why it is there; give"
    ),
    Breach(
        "groups-bare",
        "aws:ec2/securityGroup:SecurityGroup",
        "vpc-role-database",
        given(ingress=[{"fromPort": 0, "toPort": 0, "protocol": "-1", "cidrBlocks": ["0.0.0.0/0"]}]),
        "ingress within the group is looked at by nobody; make",
    ),
    Breach(
        "groups-bare",
        "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
        "vpc-closed",
        given(egress=[{"fromPort": 0, "toPort": 0, "protocol": "-1", "cidrBlocks": ["0.0.0.0/0"]}]),
        "egress within the group is looked at by nobody; make",
    ),
    Breach(
        "addresses-private",
        SERVICE,
        "ecs-rolling-worker",
        within("networkConfiguration", assignPublicIp=True),
        "gives tasks addresses of the Internet; set",
    ),
    Breach(
        "addresses-private",
        "aws:ec2/subnet:Subnet",
        "vpc-private-a",
        given(mapPublicIpOnLaunch=True),
        "gives tasks add",
    ),
    Breach(
        "listeners-by-tls",
        LISTENER,
        "alb-https",
        given(sslPolicy="ELBSecurityPolicy-2016-08"),
        "ELBSecurityPolicy-2016-08 is not TLS 1.2 and 1.3 alone; set",
        "switched",
    ),
    Breach(
        "listeners-by-tls", LISTENER, "alb-https", without("sslPolicy"), "None is not TLS 1.2 and 1.3 alone", "switched"
    ),
    Breach(
        "listeners-by-tls", LISTENER, "alb-https", without("certificateArn"), "has no certificate; give", "switched"
    ),
    Breach(
        "listeners-by-tls",
        LISTENER,
        "alb-redirect",
        given(defaultActions=[{"type": "forward", "targetGroupArn": ARN}]),
        "answers in clear text; redirect",
        "switched",
    ),
    Breach("listeners-by-tls", LISTENER, "nlb-acme", given(protocol="UDP"), "speaks UDP; SMTP is TCP"),
    Breach("listeners-by-tls", LISTENER, "nlb-acme", given(port=8080), "is open at 8080; the world reaches"),
    Breach(
        "database-by-tls",
        "aws:rds/parameterGroup:ParameterGroup",
        "rds-main",
        parameter("rds.force_ssl", "0"),
        "in clear",
    ),
    Breach(
        "database-by-tls",
        "aws:rds/parameterGroup:ParameterGroup",
        "rds-main",
        parameter("ssl_min_protocol_version", "TLSv1.1"),
        "takes TLSv1.1; set ssl_min_protocol_version",
    ),
    Breach(
        "proxy-by-tls", "aws:rds/proxy:Proxy", "rds-main", given(requireTls=False), "in clear text; set", "switched"
    ),
    # ---- tasks
    Breach(
        "no-credentials",
        DEFINITION,
        "ecs-main-worker",
        variable("DB_PASSWORD", "hunter2"),
        "DB_PASSWORD of worker holds a",
    ),
    Breach(
        "no-credentials",
        DEFINITION,
        "ecs-main-worker",
        variable("UPSTREAM", "rediss://default:hunter2@cache:6379"),
        "a string of worker looks like a credential; give",
    ),
    Breach(
        "no-credentials",
        DEFINITION,
        "ecs-main-certs",
        container(command=["serve", KEY_OF_AWS]),
        "a string of certs looks",
    ),
    Breach(
        "no-credentials",
        DEFINITION,
        "ecs-main-certs",
        container(secrets=[{"name": "DB_PASSWORD", "valueFrom": ARN}]),
        "certs would have secrets in its environment; it reads them by ARN",
    ),
    Breach(
        "images-pinned", DEFINITION, "ecs-main-worker", container(image=LATEST), "worker runs an image that may change"
    ),
    Breach(
        "images-pinned", DEFINITION, "ecs-main-worker", container(image="registry:5000/smtp-proxy"), "may change; set"
    ),
    Breach(
        "containers-hardened",
        DEFINITION,
        "ecs-main-worker",
        container(readonlyRootFilesystem=False),
        "can change its own",
    ),
    Breach(
        "containers-hardened", DEFINITION, "ecs-main-worker", container(user="0:0"), "worker runs as root; set user"
    ),
    Breach(
        "containers-hardened",
        DEFINITION,
        "ecs-main-worker",
        container(privileged=True),
        "worker runs as root; set user",
    ),
    Breach(
        "containers-hardened",
        DEFINITION,
        "ecs-main-worker",
        container(healthCheck=None),
        "asked by nobody whether it is",
    ),
    Breach(
        "containers-hardened",
        DEFINITION,
        "ecs-main-worker",
        container(logConfiguration=None),
        "what worker logs is lost",
    ),
    Breach(
        "containers-hardened",
        DEFINITION,
        "ecs-main-submission",
        container(stopTimeout=30),
        "killed while sessions drain",
    ),
    Breach(
        "on-fargate", DEFINITION, "ecs-main-worker", given(requiresCompatibilities=["EC2"]), "does not run on Fargate"
    ),
    Breach("on-fargate", DEFINITION, "ecs-main-worker", without("taskRoleArn"), "has no role of its own; give"),
    Breach(
        "services-go-back", SERVICE, "ecs-rolling-worker", without("deploymentCircuitBreaker"), "stays down after a"
    ),
    Breach(
        "services-go-back",
        SERVICE,
        "ecs-rolling-worker",
        within("alarms", rollback=False),
        "and keeps it; set rollback",
    ),
    Breach(
        "deployments-go-back",
        GROUP,
        "codedeploy-service-submission",
        within("autoRollbackConfiguration", events=["DEPLOYMENT_FAILURE"]),
        "does not go back by itself; set",
    ),
    Breach(
        "deployments-go-back",
        GROUP,
        "codedeploy-service-submission",
        within("alarmConfiguration", alarms=[]),
        "is watched by no alarm; set",
    ),
    Breach(
        "services-counted",
        SERVICE,
        "ecs-rolling-worker",
        given(desiredCount=11),
        "with 11 tasks; stack.yaml says 1 to 10",
    ),
    Breach(
        "services-counted", SERVICE, "ecs-rolling-worker", given(name="miner"), "is no service of terraform/stack.yaml"
    ),
    # ---- watch
    Breach(
        "logs-expire", "aws:cloudwatch/logGroup:LogGroup", "vpc-flow", without("retentionInDays"), "keeps logs for ever"
    ),
    Breach(
        "alarms-act", ALARM, "cloudwatch-metric-database-cpu", without("alarmActions"), "does nothing when it goes off"
    ),
    Breach(
        "alarms-act", ALARM, "cloudwatch-metric-database-cpu", given(actionsEnabled=False), "does nothing when it goes"
    ),
    Breach(
        "alarms-act", ALARM, "cloudwatch-metric-database-cpu", without("treatMissingData"), "what no data means; set"
    ),
    Breach(
        "alarms-act", ALARM, "cloudwatch-metric-database-cpu", without("alarmDescription"), "say what it means; give"
    ),
    Breach("alarms-act", ALARM, "cloudwatch-metric-database-cpu", without("metricName"), "watches no metric; give"),
    Breach(
        "budgets-tell",
        "aws:budgets/budget:Budget",
        "cloudwatch-monthly",
        lambda inputs: [each.update(subscriberSnsTopicArns=[]) for each in inputs["notifications"]],
        "tells nobody; give",
    ),
    Breach(
        "account-named", PROVIDER, "aws", without("allowedAccountIds"), "whatever account its credentials are of; give"
    ),
    Breach("account-named", PROVIDER, "aws", given(secretKey="hunter2"), "secretKey would be in the state; leave"),
    Breach("account-named", PROVIDER, "aws", without("defaultTags"), "tags nothing; give default_tags"),
    Breach(
        "database-survives", DATABASE, "rds-primary", given(multiAz=False), "is lost with its zone: multiAz is not on"
    ),
    Breach(
        "database-survives", DATABASE, "rds-primary", given(deletionProtection=False), "may be deleted by one command"
    ),
    Breach(
        "database-survives", DATABASE, "rds-primary", given(skipFinalSnapshot=True), "leaves nothing behind when it is"
    ),
    Breach("database-survives", DATABASE, "rds-primary", given(backupRetentionPeriod=1), "can not go back a week; set"),
    Breach(
        "cache-survives",
        CACHE,
        "elasticache-main",
        given(multiAzEnabled=False),
        "is lost with its zone: multiAzEnabled",
    ),
    Breach(
        "cache-survives",
        CACHE,
        "elasticache-main",
        given(automaticFailoverEnabled=False),
        "stays down when a node does",
    ),
    Breach("cache-survives", CACHE, "elasticache-main", given(snapshotRetentionLimit=0), "has no snapshot; set"),
    Breach(
        "balancers-survive",
        "aws:lb/loadBalancer:LoadBalancer",
        "nlb-main",
        given(enableDeletionProtection=False),
        "may be deleted by one command: enableDeletionProtection is not on",
    ),
    Breach(
        "buckets-survive",
        "aws:s3/bucketV2:BucketV2",
        "ecs-certificates",
        given(forceDestroy=True),
        "with all that is in it",
    ),
]


def breached(resources: Graph, breach: Breach) -> Resource:
    one = found(resources, breach.kind, breach.name)
    breach.change(one["inputs"])
    return one


@pytest.mark.parametrize("breach", BREACHES, ids=[f"{each.policy}: {each.said[:40]}" for each in BREACHES])
def test_a_breach_is_reported(breach: Breach, pack: Pack, graphs: Callable[[str], Graph]) -> None:
    resources = graphs(breach.graph)
    providers = providers_of(resources)
    one = breached(resources, breach)
    said = pack.asks(one, providers)
    mine = [each for each in said if each.policy == breach.policy]
    assert mine, said
    assert all(each.stops and each.urn == one["urn"] for each in mine)
    # Which resource, what is wrong, and, after a semicolon, what to do.
    text = "\n".join(each.message for each in mine)
    assert f"\n{breach.kind} {breach.name}: " in text
    assert breach.said in text
    assert all(";" in each.message for each in mine)


# What none of AWS's answers is in.
KNOWN_BEFORE = [
    each for each in BREACHES if each.kind in (CACHE, DATABASE, EGRESS, INGRESS) and each.graph == "production"
]


def test_what_is_known_before_is_reported_by_a_preview(pack: Pack, graphs: Callable[[str], Graph]) -> None:
    assert len(KNOWN_BEFORE) > 20
    for breach in KNOWN_BEFORE:
        resources = previewed(graphs("production"))
        providers = providers_of(resources)
        said = pack.asks(breached(resources, breach), providers)
        assert [each for each in said if each.policy == breach.policy and each.stops], breach


# -- whose it is


def tagged(resources: Graph, tags: Mapping[str, str]) -> Graph:
    found(resources, PROVIDER, "aws")["inputs"]["defaultTags"] = json.dumps({"tags": tags})
    return resources


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"Project": "smtp-proxy"}, "has no tags that say whose it is; make it"),
        ({"Environment": "production"}, "has no tags that say whose it is; make it"),
        ({"Project": "smtp-proxy", "Environment": "test"}, "is tagged test, which stack.yaml does not know; set"),
        ({"Project": "smtp-proxy", "Environment": "dev"}, "belongs to stack production and is tagged dev; set"),
    ],
)
def test_tags_are_wanted(tags: Mapping[str, str], said: str, pack: Pack, graphs: Callable[[str], Graph]) -> None:
    resources = tagged(graphs("production"), tags)
    vpc = found(resources, "aws:ec2/vpc:Vpc", "vpc-main")
    heard = pack.asks(vpc, providers_of(resources))
    assert {(each.policy, each.stops) for each in heard} == {("tagged", True)}
    assert said in heard[0].message


def test_a_provider_that_is_not_the_stacks_is_noticed(pack: Pack, graphs: Callable[[str], Graph]) -> None:
    resources = graphs("production")
    vpc = found(resources, "aws:ec2/vpc:Vpc", "vpc-main") | {"provider": ""}
    assert [each.policy for each in pack.asks(vpc, {})] == ["tagged"]


def test_what_does_not_say_what_it_is_is_taken_for_production(pack: Pack, graphs: Callable[[str], Graph]) -> None:
    resources = graphs("dev")
    primary = found(resources, DATABASE, "rds-primary")
    assert pack.asks(primary, providers_of(resources)) == []
    heard = pack.asks(primary, providers_of(tagged(resources, {})))
    assert {each.policy for each in heard} == {"tagged", "database-survives"}


@pytest.mark.parametrize(
    "kind", ["aws:sqs/queue:Queue", "aws:iam/accessKey:AccessKey", "aws:secretsmanager/secretVersion:SecretVersion"]
)
def test_a_kind_that_nobody_thought_of_is_refused(kind: str, pack: Pack, graphs: Callable[[str], Graph]) -> None:
    resources = graphs("production")
    one = found(resources, "aws:ec2/vpc:Vpc", "vpc-main") | {"type": kind, "name": "new"}
    (heard,) = pack.asks(one, providers_of(resources))
    assert (heard.policy, heard.stops) == ("kinds-known", True)
    assert f"{kind} new: no policy knows this kind; write" in heard.message


# -- breaches of what holds between resources


def dropped(kind: str, *names: str) -> Callable[[Graph], object]:
    def drop(resources: Graph) -> None:
        gone = [each for each in resources if each["type"] == kind and each["name"] in names]
        assert len(gone) == len(names)
        urns = {each["urn"] for each in gone}
        resources[:] = [each for each in resources if each["urn"] not in urns]
        for each in resources:
            each["dependencies"] = [urn for urn in each["dependencies"] if urn not in urns]
            each["of_properties"] = {
                key: [urn for urn in others if urn not in urns] for key, others in each["of_properties"].items()
            }

    return drop


def changed(kind: str, name: str, **values: Any) -> Callable[[Graph], object]:
    return lambda resources: found(resources, kind, name)["outputs"].update(values)


def entered(resources: Graph) -> None:
    """The group of the database, by the world."""
    found(resources, INGRESS, "vpc-rule-database-itself")["outputs"]["cidrIpv4"] = "0.0.0.0/0"


TARGET = "aws:appautoscaling/target:Target"
SCALING = "aws:appautoscaling/policy:Policy"
BETWEEN: list[tuple[str, str, Callable[[Graph], object], str]] = [
    (
        "buckets-guarded",
        "a bucket in clear text",
        dropped(ENCRYPTION, "ecs-certificates"),
        "ecs-certificates: has not got encr",
    ),
    (
        "buckets-guarded",
        "a bucket for all",
        dropped(CLOSED, "ecs-certificates"),
        "has not got a public access block; make a Bu",
    ),
    (
        "buckets-guarded",
        "a bucket by HTTP",
        dropped(BUCKET_POLICY, "ecs-certificates"),
        "has not got a policy that wants TLS",
    ),
    (
        "buckets-guarded",
        "a bucket without versions",
        dropped("aws:s3/bucketVersioningV2:BucketVersioningV2", "ecs-certificates"),
        "neither keeps versions nor expires; make",
    ),
    (
        "doors",
        "the database in the door",
        entered,
        "Instance rds-primary: belongs to vpc-role-database, which the world ent",
    ),
    (
        "targets-watched",
        "nobody watches a target group",
        dropped(ALARM, "cloudwatch-formula-certs-no-healthy-host"),
        "aws:lb/targetGroup:TargetGroup nlb-acme: nobody is told when it has no healthy host; see",
    ),
    (
        "targets-watched",
        "an alarm on something else",
        changed(ALARM, "cloudwatch-formula-submission-no-healthy-host", metricQueries=[]),
        "TargetGroup nlb-smtp-submission-green: nobody is told when it has no healthy host; see",
    ),
    (
        "services-scaled",
        "a service left out",
        dropped(SERVICE, "ecs-rolling-certs"),
        "has a service certs, and there is none",
    ),
    (
        "services-scaled",
        "does not scale",
        dropped(TARGET, "ecs-main-worker"),
        "ecs-rolling-worker: 0 scalable targets; it nee",
    ),
    (
        "services-scaled",
        "a maximum",
        changed(TARGET, "ecs-main-worker", maxCapacity=200),
        "from 1 to 200; stack.yaml says 1 to 10",
    ),
    (
        "services-scaled",
        "by nothing",
        dropped(SCALING, "ecs-cpu-in-worker", "ecs-cpu-out-worker", "ecs-backlog-worker"),
        "aws:appautoscaling/target:Target ecs-main-worker: nothing makes it scale; give",
    ),
    (
        "services-scaled",
        "steps without an alarm",
        dropped(ALARM, "ecs-cpu-out-worker"),
        "aws:appautoscaling/policy:Policy ecs-cpu-out-worker: no alarm starts its steps; give",
    ),
    (
        "spread",
        "a zone left out",
        dropped("aws:ec2/subnet:Subnet", "vpc-public-c", "vpc-private-c", "vpc-database-c"),
        "no subnet in us-east-1c; a zone",
    ),
    (
        "spread",
        "a way out less",
        dropped("aws:ec2/natGateway:NatGateway", "vpc-main-b"),
        "2 NAT gateways; vpc.nat_zones of",
    ),
    (
        "services-deployed",
        "a service without releases",
        dropped(GROUP, "codedeploy-service-submission"),
        "ecs-blue-green-submission: has no deployment group",
    ),
    (
        "flows-recorded",
        "no record",
        dropped("aws:ec2/flowLog:FlowLog", "vpc-main"),
        "Vpc vpc-main: nothing records who reached",
    ),
]


@pytest.mark.parametrize("known", [True, False], ids=["up", "preview"])
@pytest.mark.parametrize(
    ("policy", "change", "said"),
    [(each[0], each[2], each[3]) for each in BETWEEN],
    ids=[f"{each[0]}: {each[1]}" for each in BETWEEN],
)
def test_a_breach_between_resources_is_reported(
    policy: str, change: Callable[[Graph], object], said: str, known: bool, pack: Pack, graphs: Callable[[str], Graph]
) -> None:
    resources = graphs("production") if known else previewed(graphs("production"))
    change(resources)
    heard = [each for each in pack.asks_all(resources) if each.policy == policy]
    assert heard
    assert all(each.stops and ";" in each.message for each in heard)
    assert said in "\n".join(each.message for each in heard)


def test_every_policy_has_a_breach_that_it_reports(pack: Pack) -> None:
    """One that can not fail would be none."""
    breaches = {each.policy for each in BREACHES} | {each[0] for each in BETWEEN}
    # Tests of their own above.
    assert pack.policies().keys() - breaches == {"tagged", "kinds-known", "alarms-heard"}


# -- from the program itself


def test_a_row_of_the_table_that_opens_the_database(pack: Pack, tmp_path: Path) -> None:
    """The policies do not take the table's word for it."""
    row = 'direction: ingress, peer: database, port: postgres, why: "RDS Proxy stands in the same group"'
    root = tree(tmp_path / "tree", {"terraform/stack.yaml": [(row, row.replace("peer: database", "peer: world"))]})
    resources = graph(root, "production")
    assert [each.policy for each in pack.asks_each(resources)] == ["entrances"]
    assert {each.policy for each in pack.asks_all(resources) if each.stops} == {"doors"}


def test_a_secret_that_the_program_puts_into_an_environment(pack: Pack, tmp_path: Path) -> None:
    """REQ-INFRA-ECS-010."""
    name = '"METRICS_SERVICE": service,'
    edits = {"pulumi/smtp_proxy_infra/ecs_tasks.py": [(name, f'{name} "DB_PASSWORD": "x",')]}
    heard = pack.asks_each(graph(tree(tmp_path / "tree", edits), "dev"))
    assert {each.policy for each in heard} == {"no-credentials"}
    assert len(heard) == 4  # submission, submissions, worker, certs


# -- what is allowed with a reason


def of_pack(resources: Graph) -> list[reading.Found]:
    """As the pack makes it of what the engine hands it; here the rules themselves are asked."""
    providers = {urn: each["inputs"] for urn, each in providers_of(resources).items()}
    return [
        reading.Found(each["type"], each["name"], each["urn"], each["inputs"], providers.get(each["provider"]))
        for each in resources
    ]


@pytest.mark.parametrize(
    "exceptions",
    [
        access.ACTIONS,
        access.ANYTHING,
        access.BOUND,
        access.WITHIN,
        access.TRUSTED,
        access.ATTACHED,
        storage.S3_KEY,
        rules.HARMLESS,
    ],
    ids=["actions", "anything", "bound", "within", "trusted", "attached", "s3-key", "harmless"],
)
def test_every_exception_is_needed_and_has_its_reason(
    exceptions: dict[Any, str], graphs: Callable[[str], Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = of_pack(graphs("production")) + of_pack(graphs("switched"))

    def problems() -> list[str]:
        return [said for each in everything for rule in rules.RULES for said in rule.problems(each)]

    assert problems() == []
    for name, reason in list(exceptions.items()):
        assert len(reason) >= 4, name
        with monkeypatch.context() as patched:
            patched.delitem(exceptions, name)
            assert problems(), f"{name} is not needed any more"


def test_a_pack_that_breaks_says_so(tmp_path: Path) -> None:
    """The client of these tests would otherwise take silence for peace."""
    (tmp_path / "__main__.py").write_text("raise SystemExit('broken')\n")
    with pytest.raises(PackFailed, match="broken"), running(tmp_path):
        pass
