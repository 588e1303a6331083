"""What keeps data: encrypted with keys of the stack, entered by nobody from outside, and no password in the state."""

from __future__ import annotations

from collections.abc import Iterator

from .reading import Found, as_list, block, document, is_on

FOUR = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
# Buckets with S3's own key, and why none of ours.
S3_KEY = {"alb-logs": "load balancers write access logs to no bucket with a key of ours (decision 0041)"}


def database(found: Found) -> Iterator[str]:
    props = found.props
    if not is_on(props.get("storageEncrypted")):
        yield "is not encrypted at rest; set storage_encrypted=True"
    if not props.get("kmsKeyId"):
        yield "is encrypted with a key that others use too; give kms_key_id"
    if is_on(props.get("performanceInsightsEnabled")) and not props.get("performanceInsightsKmsKeyId"):
        yield "keeps statements in Performance Insights under a key of AWS; give performance_insights_kms_key_id"
    if is_on(props.get("publiclyAccessible")):
        yield "has an address of the Internet; set publicly_accessible=False"


def database_password(found: Found) -> Iterator[str]:
    if found.props.get("password"):
        yield "its password would be in the state; leave it to RDS: manage_master_user_password=True"
    if not is_on(found.props.get("manageMasterUserPassword")):
        yield "nobody rotates its password; set manage_master_user_password=True"


def cache(found: Found) -> Iterator[str]:
    props = found.props
    if not is_on(props.get("atRestEncryptionEnabled")) or not props.get("kmsKeyId"):
        yield "is not encrypted at rest with a key of ours; set at_rest_encryption_enabled=True and give kms_key_id"
    if not is_on(props.get("transitEncryptionEnabled")) or props.get("transitEncryptionMode") != "required":
        yield 'takes clear text; set transit_encryption_enabled=True and transit_encryption_mode="required"'
    if props.get("authToken"):
        yield "its token would be in the state; log in by IAM: user_group_ids (decision 0040)"
    if not props.get("userGroupIds"):
        yield "lets everybody in who reaches it; give user_group_ids (decision 0040)"


def cache_user(found: Found) -> Iterator[str]:
    props, mode = found.props, block(found.props, "authenticationMode").get("type")
    if props.get("passwords") or block(props, "authenticationMode").get("passwords"):
        yield 'its password would be in the state; set authentication_mode to type="iam" (decision 0040)'
    elif mode != "iam" and not str(props.get("accessString")).startswith("off "):
        yield 'logs in without IAM; set authentication_mode to type="iam", or access_string to "off -@all"'


def key(found: Found) -> Iterator[str]:
    if not is_on(found.props.get("enableKeyRotation")):
        yield "is never rotated; set enable_key_rotation=True"
    if float(found.props.get("deletionWindowInDays") or 30) < 30:
        yield "is gone in less than 30 days once deleted, and what it encrypts with it; set deletion_window_in_days=30"


def secret(found: Found) -> Iterator[str]:
    if not found.props.get("kmsKeyId"):
        yield "is encrypted with a key that others use too; give kms_key_id"
    if float(found.props.get("recoveryWindowInDays", 30)) < 7:
        yield "is gone at once when deleted; set recovery_window_in_days to 7 or more"


def topic(found: Found) -> Iterator[str]:
    if not found.props.get("kmsMasterKeyId"):
        yield "keeps what is published in clear text; give kms_master_key_id"


def repository(found: Found) -> Iterator[str]:
    props = found.props
    if block(props, "encryptionConfigurations").get("encryptionType") != "KMS":
        yield 'images are encrypted with a key that others use too; set encryption_type="KMS" and give kms_key'
    if props.get("imageTagMutability") != "IMMUTABLE":
        yield 'a tag may come to mean another image; set image_tag_mutability="IMMUTABLE"'
    if not is_on(block(props, "imageScanningConfiguration").get("scanOnPush")):
        yield "images are not looked over; set scan_on_push=True"


def bucket_encryption(found: Found) -> Iterator[str]:
    for rule in as_list(found.props.get("rules")):
        by_default = block(rule, "applyServerSideEncryptionByDefault")
        if by_default.get("sseAlgorithm") == "aws:kms" and by_default.get("kmsMasterKeyId"):
            continue
        if found.name not in S3_KEY:
            yield (
                'objects are not encrypted with a key of ours; set sse_algorithm="aws:kms" and kms_master_key_id, or '
                "say in S3_KEY of pulumi/policy/smtp_proxy_policy/storage.py why not"
            )


def bucket_closed(found: Found) -> Iterator[str]:
    for name in FOUR:
        if not is_on(found.props.get(name)):
            yield f"objects may become public: {name} is not on; set all four of {', '.join(FOUR)}"


def bucket_policy(found: Found) -> Iterator[str]:
    statements = as_list(document(found.props.get("policy")).get("Statement"))
    if not any(
        each.get("Effect") == "Deny"
        and block(each, "Condition", "Bool").get("aws:SecureTransport") == "false"
        and each.get("Principal") == "*"
        and each.get("Action") == "s3:*"
        for each in statements
    ):
        yield "objects may be read in clear text; deny s3:* to everybody where aws:SecureTransport is false"
