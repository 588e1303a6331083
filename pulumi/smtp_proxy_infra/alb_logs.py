"""Where the application load balancer writes its access logs: a part of `alb`, the twin of terraform/modules/alb."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from . import policies


class AccessLogs:
    """A bucket that only load balancers of the account write to. `ready`: what a load balancer waits for."""

    def __init__(
        self, name: str, *, prefix: str, account_id: str, retention_days: int, keep: bool, opts: pulumi.ResourceOptions
    ) -> None:
        self._name, self._opts = name, opts
        self.bucket = aws.s3.BucketV2(
            f"{name}-logs",
            bucket=f"{prefix}-alb-logs-{account_id}",
            force_destroy=not keep,
            tags={"Name": f"{prefix}-alb-logs"},
            opts=opts,
        )
        self._close()
        self._expire(retention_days)
        self.ready = self._let_write(account_id)

    def _close(self) -> None:
        name, bucket = self._name, self.bucket
        aws.s3.BucketPublicAccessBlock(
            f"{name}-logs",
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self._opts,
        )
        aws.s3.BucketOwnershipControls(
            f"{name}-logs",
            bucket=bucket.id,
            rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
            opts=self._opts,
        )
        # With S3's own key: load balancers write to no bucket with another.
        aws.s3.BucketServerSideEncryptionConfigurationV2(
            f"{name}-logs",
            bucket=bucket.id,
            rules=[
                aws.s3.BucketServerSideEncryptionConfigurationV2RuleArgs(
                    apply_server_side_encryption_by_default=aws.s3.BucketServerSideEncryptionConfigurationV2RuleApplyServerSideEncryptionByDefaultArgs(
                        sse_algorithm="AES256"
                    )
                )
            ],
            opts=self._opts,
        )

    def _expire(self, days: int) -> None:
        aws.s3.BucketLifecycleConfigurationV2(
            f"{self._name}-logs",
            bucket=self.bucket.id,
            rules=[
                aws.s3.BucketLifecycleConfigurationV2RuleArgs(
                    id="expire",
                    status="Enabled",
                    filter=aws.s3.BucketLifecycleConfigurationV2RuleFilterArgs(prefix=""),
                    expiration=aws.s3.BucketLifecycleConfigurationV2RuleExpirationArgs(days=days),
                    abort_incomplete_multipart_upload=aws.s3.BucketLifecycleConfigurationV2RuleAbortIncompleteMultipartUploadArgs(
                        days_after_initiation=1
                    ),
                )
            ],
            opts=self._opts,
        )

    def _let_write(self, account_id: str) -> aws.s3.BucketPolicy:
        arn = self.bucket.arn
        return aws.s3.BucketPolicy(
            f"{self._name}-logs",
            bucket=self.bucket.id,
            policy=policies.policy(
                {
                    "Effect": "Allow",
                    "Action": "s3:PutObject",
                    "Resource": pulumi.Output.concat(arn, f"/AWSLogs/{account_id}/*"),
                    "Principal": {"Service": "logdelivery.elasticloadbalancing.amazonaws.com"},
                },
                {
                    "Effect": "Deny",
                    "Action": "s3:*",
                    "Resource": [arn, pulumi.Output.concat(arn, "/*")],
                    "Principal": "*",
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                },
            ),
            opts=self._opts,
        )
