"""A discrete simulation of the stack's autoscaling under mail over time.

    offered ─▶ SMTP tasks ─▶ accepted ─▶ backlog ─▶ worker tasks ─▶ delivered
                  │ 421: the gate is shut, no task has room, or the database is busy
                  ▼
               refused

Every second mail flows as far as tasks, connections and the database let it; every metric period CloudWatch learns how
it went, and some time later the policies see that (`scaling`). What is accepted goes to the database first: it is what
a client waits for. Flows are fractions of messages, so nothing is lost by rounding: offered = accepted + refused, and
accepted = delivered + backlog.

Not in it: API and dashboard, retries of mail that a next hop defers, and clients who come again after 421 unless
`retry_seconds` is given.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from smtp_proxy.planning.fleet import Fleet
from smtp_proxy.planning.scaling import Autoscaler, Datapoint
from smtp_proxy.planning.stack import Service, Stack

if TYPE_CHECKING:
    from smtp_proxy.planning.message_costs import MessageCosts
    from smtp_proxy.planning.prices import Prices
    from smtp_proxy.planning.traffic import Traffic

# Of a vCPU, what can be used before waiting grows without bound; also of the database's.
_USABLE: Final = 0.9
_NOTHING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is not the stack's to say. Seconds."""

    session_seconds: float = 2.0  # for which a client holds a connection for each message
    delivery_seconds: float = 0.1  # for which a worker waits for the next hop with each
    worker_concurrency: int = 128
    submissions_share: float = 0.5  # of mail that comes by 465
    protected: bool = True  # tasks hold scale-in protection while they have sessions
    retry_seconds: float | None = None  # clients who heard 421 come again after so long; None: they do not


@dataclass(frozen=True, slots=True)
class Sample:
    """A metric period, by its end. Rates are messages a second, on average; the rest is as it is at the end."""

    at: float
    offered: float
    accepted: float
    refused: float
    delivered: float
    backlog: float
    tasks: dict[str, int]
    dollars_per_hour: float


@dataclass(slots=True)
class Result:
    """The whole run. Numbers are messages, waits seconds."""

    samples: list[Sample] = field(default_factory=list)
    offered: float = 0.0
    accepted: float = 0.0
    refused: float = 0.0
    delivered: float = 0.0
    backlog: float = 0.0
    most_backlog: float = 0.0
    longest_wait: float = 0.0  # in the queue, of what was delivered
    dropped_sessions: float = 0.0
    dollars: float = 0.0
    most_tasks: dict[str, int] = field(default_factory=dict)
    first_scaled_out_at: float | None = None  # when the first additional task ran

    @property
    def refused_share(self) -> float:
        return self.refused / self.offered if self.offered else 0.0


class _Smtp:
    """One of the two services that accept mail."""

    def __init__(self, service: Service, stack: Stack, share: float) -> None:
        self.fleet = Fleet(service, stack.scaling.task_start)
        self.scaler = Autoscaler(service, stack.scaling, stack.scaling.in_cooldown)
        self.share = share
        self.accepted = self.connections = 0.0  # summed up over this period

    def capacity(self, costs: MessageCosts, session_seconds: float) -> float:
        """Messages a second: by CPU and by connections."""
        tasks, service = self.fleet.running, self.fleet.service
        by_cpu = tasks * service.vcpu * _USABLE / costs.server
        return min(by_cpu, tasks * service.sessions / max(session_seconds, 0.001))


class Simulation:
    """One run; `run` it once."""

    def __init__(
        self, stack: Stack, costs: MessageCosts, prices: Prices, traffic: Traffic, around: Circumstances | None = None
    ) -> None:
        self._stack, self._costs, self._prices, self._traffic = stack, costs, prices, traffic
        self._around = around or Circumstances()
        by_465 = self._around.submissions_share
        shares = [1 - by_465, by_465] if len(stack.smtp) > 1 else [1.0]
        self._smtp = [_Smtp(service, stack, share) for service, share in zip(stack.smtp, shares, strict=True)]
        worker = stack.services["worker"]
        self._workers = Fleet(worker, stack.scaling.task_start)
        self._worker_scaler = Autoscaler(worker, stack.scaling, stack.scaling.worker_in_cooldown)
        self._database = prices.database(stack.database_class).vcpu * _USABLE
        self._open = True
        self._backlog = 0.0
        self._again: dict[int, float] = {}
        self._in, self._out = [0.0], [0.0]  # accepted and delivered so far, by second
        self._unseen: list[tuple[float, Fleet, Autoscaler, Datapoint]] = []
        self._result = Result()

    def run(self, seconds: int) -> Result:
        """Simulate so long; returns what came of it."""
        period = self._stack.scaling.metric_period
        sums = _Sums()
        for second in range(seconds):
            self._advance(second)
            self._flow(second, sums)
            if (second + 1) % period == 0:
                self._look(second + 1, period, sums)
                sums = _Sums()
        return self._finished()

    # -- one second

    def _advance(self, now: int) -> None:
        for fleet in self._fleets():
            before = fleet.running
            fleet.advance(now)
            if fleet.running > before and self._result.first_scaled_out_at is None:
                self._result.first_scaled_out_at = now
        seen = [each for each in self._unseen if each[0] <= now]
        self._unseen = [each for each in self._unseen if each[0] > now]
        for _, fleet, scaler, point in seen:
            self._want(fleet, scaler.decide(point, fleet.wanted, now), now)

    def _want(self, fleet: Fleet, tasks: int, now: int) -> None:
        before = fleet.running
        drain = 0.0 if fleet is self._workers else self._drain_seconds()
        fleet.want(tasks, now, drain)
        ended = before - fleet.running
        smtp = next((each for each in self._smtp if each.fleet is fleet), None)
        if ended and smtp is not None and before:
            left = max(0.0, 1 - drain / self._around.session_seconds)
            rate = self._traffic(now) * smtp.share
            self._result.dropped_sessions += rate * self._around.session_seconds * ended / before * left

    def _drain_seconds(self) -> float:
        """A protected task goes on for as long as its sessions do."""
        window = float(self._stack.drain_seconds)
        return max(window, self._around.session_seconds) if self._around.protected else window

    def _flow(self, second: int, sums: _Sums) -> None:
        around, costs = self._around, self._costs
        offered = self._traffic(second) + self._again.pop(second, 0.0)
        self._gate()
        database = self._database
        accepted = 0.0
        for smtp in self._smtp:
            wanted = offered * smtp.share if self._open else 0.0
            taken = min(wanted, smtp.capacity(costs, around.session_seconds), database / costs.postgres_accept)
            database -= taken * costs.postgres_accept
            smtp.accepted += taken
            smtp.connections += taken * around.session_seconds
            accepted += taken
        self._backlog += accepted
        delivered = min(self._backlog, self._worker_capacity(), max(0.0, database) / costs.postgres_deliver)
        self._backlog -= delivered
        sums.busy += self._busy_share(delivered)
        refused = offered - accepted
        if around.retry_seconds is not None and refused > _NOTHING:
            again = second + max(1, round(around.retry_seconds))
            self._again[again] = self._again.get(again, 0.0) + refused
        sums.add(offered, accepted, refused, delivered)
        self._result.offered += offered
        self._result.refused += refused
        self._in.append(self._in[-1] + accepted)
        self._out.append(self._out[-1] + delivered)
        self._result.most_backlog = max(self._result.most_backlog, self._backlog)
        self._result.dollars += self._dollars_per_hour() / 3600

    def _gate(self) -> None:
        """REQ-INFRA-SCALE-007: 421 above the one depth, until it is below the other."""
        if self._backlog > self._stack.ready_depth_high:
            self._open = False
        elif self._backlog < self._stack.ready_depth_low:
            self._open = True

    def _worker_capacity(self) -> float:
        tasks, around = self._workers.running, self._around
        by_cpu = tasks * self._workers.service.vcpu * _USABLE / self._costs.worker
        return min(by_cpu, tasks * around.worker_concurrency / max(around.delivery_seconds, 0.001))

    def _busy_share(self, delivered: float) -> float:
        """Of what workers deliver at once: all of it while mail is left, and else what waits for next hops."""
        if self._backlog > _NOTHING:
            return 1.0
        at_once = max(1, self._workers.running) * self._around.worker_concurrency
        return min(1.0, delivered * self._around.delivery_seconds / at_once)

    # -- one period

    def _look(self, now: int, period: int, sums: _Sums) -> None:
        seen = now + self._stack.scaling.metric_delay
        for smtp in self._smtp:
            tasks = max(1, smtp.fleet.running)
            busy = smtp.accepted * self._costs.server / (period * tasks * smtp.fleet.service.vcpu)
            point = Datapoint(smtp.connections / period / tasks, 100 * busy, tasks)
            self._unseen.append((seen, smtp.fleet, smtp.scaler, point))
            smtp.accepted = smtp.connections = 0.0
        tasks = max(1, self._workers.running)
        busy = sums.delivered * self._costs.worker / (period * tasks * self._workers.service.vcpu)
        point = Datapoint(self._backlog / tasks, 100 * busy, tasks, 100 * sums.busy / period)
        self._unseen.append((seen, self._workers, self._worker_scaler, point))
        self._result.samples.append(
            Sample(
                at=now,
                offered=sums.offered / period,
                accepted=sums.accepted / period,
                refused=sums.refused / period,
                delivered=sums.delivered / period,
                backlog=self._backlog,
                tasks={fleet.service.name: fleet.running for fleet in self._fleets()},
                dollars_per_hour=self._dollars_per_hour(),
            )
        )

    def _fleets(self) -> list[Fleet]:
        return [*(smtp.fleet for smtp in self._smtp), self._workers]

    def _dollars_per_hour(self) -> float:
        return self._prices.standing(self._stack) + sum(
            fleet.paid * self._prices.task(fleet.service) for fleet in self._fleets()
        )

    # -- the end

    def _finished(self) -> Result:
        result = self._result
        result.accepted, result.delivered, result.backlog = self._in[-1], self._out[-1], self._backlog
        result.most_tasks = {fleet.service.name: fleet.most for fleet in self._fleets()}
        result.longest_wait = self._longest_wait()
        return result

    def _longest_wait(self) -> float:
        """First in, first out: what was accepted by a second has left when as much was delivered."""
        longest = 0.0
        for second, accepted in enumerate(self._in):
            if accepted > self._out[-1] + _NOTHING:
                return max(longest, float(len(self._in) - 1 - second))
            left = bisect_left(self._out, accepted - _NOTHING * max(1.0, accepted), lo=second)
            longest = max(longest, float(left - second))
        return longest


@dataclass(slots=True)
class _Sums:
    """Messages of one period, and for how much of it workers were busy."""

    offered: float = 0.0
    accepted: float = 0.0
    refused: float = 0.0
    delivered: float = 0.0
    busy: float = 0.0

    def add(self, offered: float, accepted: float, refused: float, delivered: float) -> None:
        self.offered += offered
        self.accepted += accepted
        self.refused += refused
        self.delivered += delivered
