"""`make soak`: the long run, bounded by an argument."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from ledger_harness.document import in_words, kind, put_into
from ledger_harness.run import Plan, run
from smtp_proxy.model.policy import OnUnknown


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="ledger_harness",
        description="mail under faults; exit 1 if any is lost, altered, or sent twice for no reason",
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--per-second", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to see it again")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--disk-mb", type=int, default=1500, help="Postgres's disk, in memory; filled by one fault")
    parser.add_argument("--cluster", type=int, default=0, metavar="SHARDS", help="a Valkey cluster of three nodes")
    parser.add_argument("--on-unknown", choices=list(OnUnknown), default=OnUnknown.RETRY, help="the tenant's policy")
    parser.add_argument("--report", type=Path, help="the table goes into this file too")
    parser.add_argument(
        "--document", type=Path, help="the table goes into this document, as it ended, in the place of this kind of run"
    )
    parser.add_argument("--folder", type=Path, help="logs and the ledger stay here; else they are thrown away")
    given = parser.parse_args()
    plan = Plan(
        seed=given.seed if given.seed is not None else secrets.randbelow(10**6),
        seconds=given.minutes * 60,
        per_second=given.per_second,
        only=given.only,
        disk_mb=given.disk_mb,
        on_unknown=OnUnknown(given.on_unknown),
        cluster_shards=given.cluster,
    )
    with tempfile.TemporaryDirectory() as thrown_away:
        folder = given.folder or Path(thrown_away)
        folder.mkdir(parents=True, exist_ok=True)
        account = asyncio.run(run(folder, plan))
    if given.report:
        given.report.write_text(in_words(plan, account))
    if given.document:
        put_into(given.document, kind(plan), in_words(plan, account))
    for copy in account.lost:
        plan.say(f"lost: {copy}")
    for copy in account.altered:
        plan.say(f"altered: {copy}")
    for copy, name in account.unexplained:
        plan.say(f"duplicate: {copy}, in {name}")
    return 0 if account.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
