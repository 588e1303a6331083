"""RDS: an instance's own resource id, its Performance Insights, and that parameters are the user's."""

from __future__ import annotations

import uuid
from typing import Any

from local_aws.answers import answers
from moto.core.responses import ActionResult
from moto.rds.models import DBInstance
from moto.rds.responses import RDSResponse

answered = answers(RDSResponse)
_moto_makes = DBInstance.__init__


def _makes(self: Any, *given: Any, **named: Any) -> None:
    """With an id of its own: moto gives every instance the same, by which the provider finds it."""
    _moto_makes(self, *given, **named)
    self.dbi_resource_id = f"db-{uuid.uuid4().hex[:26].upper()}"
    self.performance_insights_enabled = named.get("enable_performance_insights", False)
    for name in ("performance_insights_kms_key_id", "performance_insights_retention_period"):
        setattr(self, name, named.get(name))


DBInstance.__init__ = _makes  # type: ignore[method-assign]


@answered
def describe_db_parameters(self: Any) -> ActionResult:
    """Those that were set. moto does not say who did."""
    name = self.params.get("DBParameterGroupName")
    group = self.backend.describe_db_parameter_groups({"db_parameter_group_name": name})[0]
    return ActionResult({"Parameters": [each | {"Source": "user"} for each in group.parameters.values()]})
