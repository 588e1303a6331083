"""`python -m benches.load.memory`: 1 GiB of mail in 25 MiB messages, and the most that the server held at once.

The peak is the kernel's own count for the SMTP process (VmHWM), not a sample. It may exceed what the process was when
just started by the configured budget (`smtp_max_in_flight_bytes`) and a constant, whatever the mail amounts to.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benches.load import generator, machine, resident, runner
from benches.load.generator import Load
from benches.load.ours import Ours
from benches.load.summary import Check, Verdict

_MIB = 2**20
_MESSAGE_BYTES = 25 * _MIB  # the setting smtp_max_message_bytes as it is
_TOTAL_BYTES = 2**30
_CONSTANT_MIB = 64
_METHOD = (
    f"{machine.METHOD}; memory: growth of the SMTP process over what it was when just started, by the kernel's "
    f"peak (VmHWM), at most the budget plus {_CONSTANT_MIB} MiB: one message beyond the budget, one that Python takes "
    "over (if its tenant is limited), and what allocators keep"
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = runner.parser("load.memory", __doc__)
    parser.add_argument("--budgets", type=int, nargs="+", default=[128, 256], help="smtp_max_in_flight_bytes, MiB")
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 40])
    options = parser.parse_args(arguments)
    generator.build()
    with runner.bench("memory", options) as bench:
        about, seen, verdicts = {}, {}, []
        for budget in options.budgets:
            setting = ("--set", f"smtp_max_in_flight_bytes={budget * _MIB}")
            server = bench.ours(Ours.accepting(bench.folder / str(budget), *setting))
            about = about or bench.about(_METHOD)
            before = resident.used_bytes(server.groups()["server"])
            for connections, limited in _rows(options.connections):
                name = f"budget {budget} MiB, {connections} connections{', limited' if limited else ''}"
                if limited:
                    server.limit_tenant(messages_per_minute=1_000_000)
                seen[name] = _stream(server, before, connections, _TOTAL_BYTES // (8 if options.quick else 1))
                verdicts += _verdicts(name, seen[name], budget + _CONSTANT_MIB)
            server.stop()
        bench.finish(about, verdicts, seen=seen)
    return 0


def _rows(connections: Sequence[int]) -> Iterator[tuple[int, bool]]:
    """How many connections, and whether their tenant has limits: then Python takes the messages out of the batch."""
    yield from ((count, False) for count in connections)
    yield connections[-1], True


def _stream(server: Ours, before: int, connections: int, total_bytes: int) -> dict[str, Any]:
    server.clean()
    (pid,) = server.groups()["server"]
    messages = -(-total_bytes // _MESSAGE_BYTES)
    resident.forget_peak(pid)
    load = Load(connections, 0, size_bytes=_MESSAGE_BYTES, warmup_seconds=0, messages=messages)
    done = generator.run(generator.COMMAND, server.target(), load)
    return {
        "messages": done["accepted_total"],
        "wanted": messages,
        "errors": sum(done["errors"].values()),
        "mib_per_second": done["messages_per_second"] * _MESSAGE_BYTES / _MIB,
        "before_mib": before / _MIB,
        "peak_mib": resident.peak_bytes(pid) / _MIB,
        "growth_mib": (resident.peak_bytes(pid) - before) / _MIB,
    }


def _verdicts(name: str, seen: dict[str, Any], most_mib: int) -> list[Verdict]:
    grown = Check(f"{name}: growth, MiB", lambda _: float(seen["growth_mib"]), most_mib, at_least=False)
    lost = Check(
        f"{name}: messages not accepted", lambda _: float(seen["wanted"] - seen["messages"]), 0, at_least=False
    )
    return [Verdict.of(check, [{}]) for check in (grown, lost)]


if __name__ == "__main__":
    sys.exit(main())
