"""Alarms and policies of Application Auto Scaling, as the stack has them (REQ-INFRA-SCALE-001…013).

Target tracking scales out after three periods above its target, and in after fifteen below nine tenths of it: that is
how its own alarms are made (Application Auto Scaling user guide, "How target tracking works"). CPU has two alarms and
steps of its own, since target tracking knows no 30 % (REQ-INFRA-SCALE-008, -009); it takes tasks away only where they
have little to do, not where they wait. Of several policies the largest capacity counts.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from smtp_proxy.planning.stack import Scaling, Service

_OUT_PERIODS: Final = 3
_IN_PERIODS: Final = 15
_IN_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Datapoint:
    """One period's averages over the running tasks."""

    per_task: float  # connections, or messages of the backlog
    cpu_percent: float


class Autoscaler:
    """Of one service: given each period's datapoint when CloudWatch has it, it says how many tasks there shall be."""

    def __init__(self, service: Service, scaling: Scaling, in_cooldown: float) -> None:
        self._service = service
        self._scaling = scaling
        self._in_cooldown = in_cooldown
        self._points: deque[Datapoint] = deque(maxlen=max(_IN_PERIODS, scaling.cpu_out_minutes, scaling.cpu_in_minutes))
        self._out_at = self._in_at = -math.inf

    def decide(self, point: Datapoint, tasks: int, now: float) -> int:
        """`tasks`: how many there are, or are starting."""
        self._points.append(point)
        wishes = [wish for wish in (self._by_target(tasks), self._by_cpu(tasks)) if wish is not None]
        if not wishes:
            return tasks
        wanted = max(self._service.min_tasks, min(self._service.max_tasks, max(wishes)))
        if wanted > tasks:
            if now - self._out_at < self._scaling.out_cooldown:
                return tasks
            self._out_at = now
        elif wanted < tasks:
            if now - max(self._in_at, self._out_at) < self._in_cooldown:
                return tasks
            self._in_at = now
        return wanted

    def _by_target(self, tasks: int) -> int | None:
        target, points = self._service.per_task, list(self._points)
        if not target:
            return None
        if len(points) >= _OUT_PERIODS and all(point.per_task > target for point in points[-_OUT_PERIODS:]):
            return math.ceil(tasks * points[-1].per_task / target)
        if len(points) >= _IN_PERIODS and all(p.per_task < _IN_SHARE * target for p in points[-_IN_PERIODS:]):
            return min(tasks, max(1, math.ceil(tasks * max(p.per_task for p in points[-_IN_PERIODS:]) / target)))
        return None

    def _by_cpu(self, tasks: int) -> int | None:
        scaling, points = self._scaling, list(self._points)
        last = points[-scaling.cpu_out_minutes :]
        if len(last) == scaling.cpu_out_minutes and all(p.cpu_percent >= scaling.cpu_out_percent for p in last):
            return tasks + scaling.cpu_out_tasks
        last = points[-scaling.cpu_in_minutes :]
        if len(last) == scaling.cpu_in_minutes and all(self._is_idle(point) for point in last):
            return tasks - scaling.cpu_in_tasks
        return None

    def _is_idle(self, point: Datapoint) -> bool:
        """Tasks that wait use no CPU: what the service scales by must be low as well."""
        target = self._service.per_task
        waits = bool(target) and point.per_task >= self._scaling.in_target_share * target
        return point.cpu_percent <= self._scaling.cpu_in_percent and not waits
