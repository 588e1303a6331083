"""Alarms and policies of Application Auto Scaling, as the stack has them (REQ-INFRA-SCALE-001…013).

Target tracking scales out after three periods above its target (Application Auto Scaling user guide, "How target
tracking works"), and not in: `disable_scale_in`. CPU has two alarms and steps of its own, since target tracking knows
no 30 % (REQ-INFRA-SCALE-008, -009). The one that scales in is the only policy that takes tasks away, and looks at what
would be left: the others must be able to bear what the service scales by, and workers to wait for as many next hops.
Two that asked for opposite things would make the count of tasks swing for ever (docs/decisions/0037). Of several
policies that ask for a change the largest capacity counts.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from smtp_proxy.planning.stack import Scaling, Service

_OUT_PERIODS: Final = 3


@dataclass(frozen=True, slots=True)
class Datapoint:
    """One period's averages over the running tasks."""

    per_task: float  # connections, or messages of the backlog
    cpu_percent: float
    tasks: int  # that run
    busy_percent: float = 0.0  # of what a worker delivers at once; waiting counts, and takes no CPU


class Autoscaler:
    """Of one service: given each period's datapoint when CloudWatch has it, it says how many tasks there shall be."""

    def __init__(self, service: Service, scaling: Scaling, in_cooldown: float) -> None:
        self._service = service
        self._scaling = scaling
        self._in_cooldown = in_cooldown
        self._points: deque[Datapoint] = deque(
            maxlen=max(_OUT_PERIODS, scaling.cpu_out_minutes, scaling.cpu_in_minutes)
        )
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
        return None

    def _by_cpu(self, tasks: int) -> int | None:
        scaling, points = self._scaling, list(self._points)
        last = points[-scaling.cpu_out_minutes :]
        if len(last) == scaling.cpu_out_minutes and all(p.cpu_percent >= scaling.cpu_out_percent for p in last):
            return tasks + scaling.cpu_out_tasks
        last = points[-scaling.cpu_in_minutes :]
        if len(last) == scaling.cpu_in_minutes and all(self._can_spare(point) for point in last):
            return tasks - scaling.cpu_in_tasks
        return None

    def _can_spare(self, point: Datapoint) -> bool:
        """Whether the others can stand in for those that would go: low CPU may be that of tasks that wait."""
        scaling, target = self._scaling, self._service.per_task
        left = point.tasks - scaling.cpu_in_tasks
        bears = not target or point.per_task * point.tasks < scaling.in_target_share * target * left
        waits = self._service.backlog and point.busy_percent * point.tasks >= scaling.in_busy_percent * left
        return point.cpu_percent <= scaling.cpu_in_percent and bears and not waits
