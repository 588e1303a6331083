"""Application Auto Scaling: the tags of targets."""

from __future__ import annotations

import json
from typing import Any

from local_aws.answers import answers
from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse

answered = answers(ApplicationAutoScalingResponse)
tags: dict[str, dict[str, str]] = {}
_moto_registers = ApplicationAutoScalingResponse.register_scalable_target


@answered
def register_scalable_target(self: Any) -> str:
    said = _moto_registers(self)
    tags.setdefault(json.loads(said)["ScalableTargetARN"], {}).update(self._get_param("Tags") or {})
    return said


@answered
def list_tags_for_resource(self: Any) -> str:
    return json.dumps({"Tags": tags.get(self._get_param("ResourceARN"), {})})


@answered
def tag_resource(self: Any) -> str:
    tags.setdefault(self._get_param("ResourceARN"), {}).update(self._get_param("Tags"))
    return "{}"
