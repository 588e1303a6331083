"""Key, images, certificates kept, the secret that seals: a part of `ecs`, the twin of terraform/modules/ecs."""

from __future__ import annotations

import json

import pulumi
import pulumi_aws as aws

from . import policies
from .ecs_settings import EcsSettings


class Storage:
    """What outlives tasks. No value of a secret is in the state: it is put in by hand, or by RDS."""

    def __init__(
        self, name: str, *, prefix: str, account_id: str, settings: EcsSettings, opts: pulumi.ResourceOptions
    ) -> None:
        self._name, self._prefix, self._settings, self._opts = name, prefix, settings, opts
        self.key = aws.kms.Key(
            f"{name}-main",
            description=f"{prefix}: images, the backup of certificates, and the secret that seals",
            enable_key_rotation=True,
            deletion_window_in_days=30,
            opts=opts,
        )
        aws.kms.Alias(f"{name}-main", name=f"alias/{prefix}-ecs", target_key_id=self.key.key_id, opts=opts)
        self.repository = self._make_repository()
        self.bucket = self._make_bucket(account_id)
        self._guard_bucket()
        # Made without a value: `smtp-proxy secrets new-key` makes it, docs/DEPLOY.md says how.
        self.sealing = aws.secretsmanager.Secret(
            f"{name}-sealing",
            name=f"{prefix}/secret-key",
            description="What SECRET_KEY_SECRET names: the keys that seal secrets in the database",
            kms_key_id=self.key.arn,
            recovery_window_in_days=settings.secret_recovery_days,
            opts=opts,
        )

    def _make_repository(self) -> aws.ecr.Repository:
        repository = aws.ecr.Repository(
            f"{self._name}-main",
            name=self._prefix,
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=[
                aws.ecr.RepositoryEncryptionConfigurationArgs(encryption_type="KMS", kms_key=self.key.arn)
            ],
            opts=self._opts,
        )
        rule = {
            "rulePriority": 1,
            "description": "The last ones are kept, for the way back",
            "selection": {
                "tagStatus": "any",
                "countType": "imageCountMoreThan",
                "countNumber": self._settings.image_keep_count,
            },
            "action": {"type": "expire"},
        }
        aws.ecr.LifecyclePolicy(
            f"{self._name}-main", repository=repository.name, policy=json.dumps({"rules": [rule]}), opts=self._opts
        )
        return repository

    def _make_bucket(self, account_id: str) -> aws.s3.BucketV2:
        """Certificates, their keys sealed, from which a fresh store is filled: pyapp/smtp_proxy/certs/backup.py."""
        bucket = aws.s3.BucketV2(
            f"{self._name}-certificates",
            bucket=f"{self._prefix}-certificates-{account_id}",
            tags={"Name": f"{self._prefix}-certificates"},
            opts=self._opts,
        )
        aws.s3.BucketVersioningV2(
            f"{self._name}-certificates",
            bucket=bucket.id,
            versioning_configuration=aws.s3.BucketVersioningV2VersioningConfigurationArgs(status="Enabled"),
            opts=self._opts,
        )
        return bucket

    def _guard_bucket(self) -> None:
        name, arn = f"{self._name}-certificates", self.bucket.arn
        by_default = aws.s3.BucketServerSideEncryptionConfigurationV2RuleApplyServerSideEncryptionByDefaultArgs(
            sse_algorithm="aws:kms", kms_master_key_id=self.key.arn
        )
        aws.s3.BucketServerSideEncryptionConfigurationV2(
            name,
            bucket=self.bucket.id,
            rules=[
                aws.s3.BucketServerSideEncryptionConfigurationV2RuleArgs(
                    bucket_key_enabled=True, apply_server_side_encryption_by_default=by_default
                )
            ],
            opts=self._opts,
        )
        aws.s3.BucketPublicAccessBlock(
            name,
            bucket=self.bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self._opts,
        )
        in_clear_text = {
            "Effect": "Deny",
            "Action": "s3:*",
            "Resource": [arn, pulumi.Output.concat(arn, "/*")],
            "Principal": "*",
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
        aws.s3.BucketPolicy(name, bucket=self.bucket.id, policy=policies.policy(in_clear_text), opts=self._opts)
