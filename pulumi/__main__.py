"""What `pulumi preview` and `pulumi up` run: the stack, from this stack's configuration and ../terraform/stack.yaml."""

import pulumi

from smtp_proxy_infra.stack import Own, declare

config = pulumi.Config()
own = Own(
    zone_id=config.get("zoneId") or "",
    smtp_hostname=config.get("smtpHostname") or "",
    http_hostname=config.get("httpHostname") or "",
    image_version=config.require("imageVersion"),
    smarthost_host=config.get("smarthostHost") or "",
    smarthost_secret_arn=config.get("smarthostSecretArn") or "",
    smarthost_kms_key_arn=config.get("smarthostKmsKeyArn") or "",
    ses_arns=config.get_object("sesArns") or (),
    alert_emails=config.get_object("alertEmails") or [],
)
for name, value in declare(config.require("environment"), config.require("accountId"), own).items():
    pulumi.export(name, value)
