"""Any single fault, at random moments, under mail: nothing that was answered 250 is lost (docs/RELIABILITY.md).

The short run of `make soak`. A failure prints its seed; `make soak ARGS="--seed N"` brings the same faults again.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
from ledger_harness.faults import Fault
from ledger_harness.run import Plan, run
from previous_release import previous_release

from smtp_proxy.model.policy import OnUnknown

_MESSAGES = 5000
_FAULTS = 10


def _seed() -> int:
    given = os.environ.get("LEDGER_SEED")
    return int(given) if given else secrets.randbelow(10**6)


@pytest.mark.timeout(420)
async def test_nothing_acknowledged_is_lost_under_random_faults(tmp_path: Path) -> None:
    plan = Plan(seed=_seed(), seconds=60, min_messages=_MESSAGES, per_second=105, gap_seconds=(0.3, 1.5))
    account = await run(tmp_path, plan)
    assert account.lost == [], f"seed {plan.seed}"
    assert account.altered == [], f"seed {plan.seed}"
    assert account.unexplained == [], f"seed {plan.seed}"
    assert account.total.sent >= _MESSAGES
    assert account.total.times > _FAULTS
    assert account.total.held == 0, f"seed {plan.seed}: held, though the tenant's policy is to try again"


@pytest.mark.timeout(240)
async def test_those_that_a_short_run_may_not_come_to(tmp_path: Path) -> None:
    """A disk can be full where this process may mount one, a clock be wrong where libfaketime is."""
    named = ("disk full", "clock an hour", "sink: takes it and", "network deaf: worker")

    def choose(fault: Fault) -> bool:
        return fault.name.startswith(named) or "sweeper" in fault.name

    plan = Plan(seed=_seed(), seconds=30, per_second=60, choose=choose, gap_seconds=(0.3, 1.0))
    account = await run(tmp_path, plan)
    assert account.lost == [], f"seed {plan.seed}"
    assert account.altered == [], f"seed {plan.seed}"
    assert account.unexplained == [], f"seed {plan.seed}"
    faults = {line.fault for line in account.lines if line.sent}
    assert sum(fault.startswith("sink: takes it and") for fault in faults) >= 1
    assert account.total.times > 4


@pytest.mark.timeout(240)
async def test_a_tenant_that_would_rather_hold_gets_nothing_twice(tmp_path: Path) -> None:
    named = ("sink: takes it and", "kill -9 of worker", "network deaf: workers to sink")

    def choose(fault: Fault) -> bool:
        return fault.name.startswith(named)

    plan = Plan(
        seed=_seed(), seconds=15, per_second=60, choose=choose, gap_seconds=(0.3, 1.0), on_unknown=OnUnknown.HOLD
    )
    account = await run(tmp_path, plan)
    assert account.lost == [], f"seed {plan.seed}"
    assert account.altered == [], f"seed {plan.seed}"
    assert (account.total.recorded, account.total.unrecorded) == (0, 0)
    assert account.unexplained == [], f"seed {plan.seed}"


@pytest.mark.timeout(240)
async def test_on_a_redis_cluster_of_three_nodes(tmp_path: Path) -> None:
    """Four shards; nodes are killed, emptied and stopped one at a time, and all at once, and the ways to them cut."""
    others = ("FLUSHALL", "kill -9 of", "restart of Postgres")

    def choose(fault: Fault) -> bool:
        return "Valkey" in fault.name or fault.name.startswith(others)

    plan = Plan(seed=_seed(), seconds=30, per_second=60, choose=choose, gap_seconds=(0.3, 1.5), cluster_shards=4)
    account = await run(tmp_path, plan)
    assert account.lost == [], f"seed {plan.seed}"
    assert account.altered == [], f"seed {plan.seed}"
    assert account.unexplained == [], f"seed {plan.seed}"
    assert account.total.times > 4


@pytest.mark.timeout(240)
async def test_a_worker_of_the_release_before_beside_one_of_this(tmp_path: Path) -> None:
    """A rolling deploy in its middle: new schema, new ingress, a new worker and an old one, which die in turn."""

    def choose(fault: Fault) -> bool:
        return "worker" in fault.name or "sweeper" in fault.name

    (tmp_path / "world").mkdir()
    plan = Plan(
        seed=_seed(),
        seconds=25,
        per_second=60,
        choose=choose,
        gap_seconds=(0.3, 1.5),
        worker_b=previous_release(tmp_path / "before"),
    )
    account = await run(tmp_path / "world", plan)
    assert account.lost == [], f"seed {plan.seed}"
    assert account.altered == [], f"seed {plan.seed}"
    assert account.unexplained == [], f"seed {plan.seed}"
    old = (tmp_path / "world" / "worker-b.log").read_text()
    assert '"action":"ready"' in old
