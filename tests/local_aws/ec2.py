"""EC2: why a rule of a security group is there, where its peer is a group or a prefix list."""

from __future__ import annotations

import inspect
from typing import Any

from moto.ec2.models.security_groups import SecurityGroupRule

_moto_makes = SecurityGroupRule.__init__


def _makes(self: Any, *given: Any, **named: Any) -> None:
    """moto keeps of a prefix list its id alone."""
    _moto_makes(self, *given, **named)
    prefix_list = inspect.signature(_moto_makes).bind(self, *given, **named).arguments.get("prefix_list_id")
    self.prefix_list_why = (prefix_list or {}).get("Description")


def _description(self: Any) -> str | None:
    """AWS keeps it with the peer, of whatever kind; moto looks for it at networks alone."""
    return self.ip_range.get("Description") or self.source_group.get("Description") or self.prefix_list_why


SecurityGroupRule.__init__ = _makes  # type: ignore[method-assign]
SecurityGroupRule.description = property(_description)  # type: ignore[method-assign, assignment]
