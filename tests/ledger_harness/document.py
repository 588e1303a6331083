"""A run in a document: its table as the program ended, between two marks, with no hand in between."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from ledger_harness.account import Account
from ledger_harness.run import Plan
from smtp_proxy.model.policy import OnUnknown


def kind(plan: Plan) -> str:
    """Which of the document's places is for this run."""
    if plan.cluster_shards:
        return "cluster"
    return "hold" if plan.on_unknown is OnUnknown.HOLD else "plain"


def put_into(document: Path, place: str, text: str) -> None:
    """Between `<!-- soak PLACE -->` and `<!-- end of soak PLACE -->`. Raises ValueError where those are not there."""
    begins, ends = f"<!-- soak {place} -->\n", f"<!-- end of soak {place} -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(begins)
    _, found_end, after = rest.partition(ends)
    if not found or not found_end:
        raise ValueError(f"{document} has no place for this run: {begins.strip()} and {ends}")
    document.write_text(f"{before}{begins}\n{text}\n{ends}{after}", encoding="utf-8")


def in_words(plan: Plan, account: Account) -> str:
    """How it was run and how it ended, and the table."""
    total = account.total
    ended = "with an error (exit 1)" if not account.is_clean else "well (exit 0)"
    return (
        f'`make soak ARGS="{_arguments(plan)}"`, {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, '
        f"{os.cpu_count()} cores: {total.times} faults, {total.sent} copies acknowledged, {total.lost} lost, "
        f"{total.altered} altered, {total.unexplained} duplicates without a reason. It ended {ended}.\n\n"
        f"{account.markdown()}"
    )


def _arguments(plan: Plan) -> str:
    words = [f"--minutes {plan.seconds / 60:g}", f"--per-second {plan.per_second:g}", f"--seed {plan.seed}"]
    if plan.cluster_shards:
        words.append(f"--cluster {plan.cluster_shards}")
    if plan.on_unknown is not OnUnknown.RETRY:
        words.append(f"--on-unknown {plan.on_unknown}")
    if plan.only:
        words.append(f"--only '{plan.only}'")
    return " ".join(words)
