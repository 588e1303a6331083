"""Elastic Load Balancing: one that is protected is not deleted."""

from __future__ import annotations

from typing import Any

from local_aws.answers import answers
from moto.elbv2.exceptions import ELBClientError
from moto.elbv2.responses import ELBV2Response

_moto_deletes = ELBV2Response.delete_load_balancer


@answers(ELBV2Response)
def delete_load_balancer(self: Any) -> Any:
    name = self._get_param("LoadBalancerArn")
    balancer = self.elbv2_backend.load_balancers.get(name)
    if balancer is not None and balancer.attrs.get("deletion_protection.enabled") == "true":
        raise ELBClientError("OperationNotPermitted", f"{name} can not be deleted: deletion protection is enabled")
    return _moto_deletes(self)
