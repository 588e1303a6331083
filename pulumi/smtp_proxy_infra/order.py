"""What Terraform says by `depends_on` of an output."""

from __future__ import annotations

import pulumi


def after(value: pulumi.Output[str], *resources: pulumi.Resource) -> pulumi.Output[str]:
    """`value`, which whoever uses it gets only when `resources` are there."""
    return pulumi.Output.all(value, *(each.urn for each in resources)).apply(lambda found: str(found[0]))
