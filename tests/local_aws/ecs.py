"""ECS: what a service was given beside its definition, count and networks."""

from __future__ import annotations

from typing import Any

from local_aws.answers import answers, given
from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores
from moto.ecs.responses import EC2ContainerServiceResponse

answered = answers(EC2ContainerServiceResponse)
KEPT = (
    "availabilityZoneRebalancing",
    "capacityProviderStrategy",
    "deploymentConfiguration",
    "enableECSManagedTags",
    "enableExecuteCommand",
    "healthCheckGracePeriodSeconds",
)
_moto_creates = EC2ContainerServiceResponse.create_service
_moto_updates = EC2ContainerServiceResponse.update_service


def _keep(self: Any, name: str) -> ActionResult:
    (service,), _ = self.ecs_backend.describe_services(self._get_param("cluster", "default"), [name])
    for key, value in given(self, *KEPT).items():
        setattr(service, camelcase_to_underscores(key), value)
    if self._get_param("capacityProviderStrategy"):
        service.launch_type = None  # a service has one of the two; moto says EC2
    return ActionResult({"service": service})


@answered
def create_service(self: Any) -> ActionResult:
    _moto_creates(self)
    said = _keep(self, self._get_param("serviceName"))
    if self._get_param("availabilityZoneRebalancing") is None:
        said.result["service"].availability_zone_rebalancing = "DISABLED"
    return said


@answered
def update_service(self: Any) -> ActionResult:
    _moto_updates(self)
    return _keep(self, self._get_param("service"))
