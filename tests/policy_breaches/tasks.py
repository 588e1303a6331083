"""What runs: containers, services, and how they go back."""

from __future__ import annotations

from policy_breaches.breach import ARN, DEFINITION, GROUP, SERVICE, Breach, container, given, variable, within, without

LATEST = "123456789012.dkr.ecr.us-east-1.amazonaws.com/smtp-proxy-production:latest"
KEY_OF_AWS = "AKIA" + "ABCDEFGH234567AB"  # no key: test_secrets.py would find one
BREACHES = [
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
]
