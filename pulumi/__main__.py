"""What `pulumi preview` and `pulumi up` run: the stack, from this stack's configuration and ../terraform/stack.yaml."""

import pulumi

from smtp_proxy_infra.stack import declare

config = pulumi.Config()
for name, value in declare(config.require("environment"), config.require("accountId")).items():
    pulumi.export(name, value)
