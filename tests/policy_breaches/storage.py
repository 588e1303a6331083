"""What lies somewhere: the database, the cache, keys, secrets, images and buckets."""

from __future__ import annotations

from policy_breaches.breach import (
    BUCKET_POLICY,
    CACHE,
    CLOSED,
    DATABASE,
    ENCRYPTION,
    KEY,
    REPOSITORY,
    SECRET,
    USER,
    Breach,
    given,
    statements,
    without,
)

BREACHES = [
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
]
