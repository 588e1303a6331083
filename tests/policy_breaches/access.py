"""Who may do what: policies, roles and who is let in."""

from __future__ import annotations

from policy_breaches.breach import ARN, BUCKET_POLICY, KEY, POLICY, ROLE, TOPIC_POLICY, Breach, given, more, statements

BREACHES = [
    Breach("actions-named", POLICY, "ecs-task-worker", more(Action="s3:Get*", Resource=ARN), "allows s3:Get*; name"),
    Breach(
        "actions-named", POLICY, "codedeploy-main", more(NotAction=["iam:*"], Resource=ARN), "NotAction allows every"
    ),
    Breach("actions-named", POLICY, "ecs-task-worker", more(Actions="s3:GetObject", Resource=ARN), "without Action"),
    Breach("actions-named", POLICY, "ecs-task-worker", given(policy='{"Statements": []}'), "has no Statement"),
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
]
