"""`python -m benches.guard` (`make guard`): the protocol's instructions per message, beside those it is known to take.

Instructions, counted by Valgrind, are the same on a busy machine as on an idle one. What the process costs to start is
left out: each work is done few times and often, and the difference counts. `--write` takes what is seen for what is
known: do that with the change that explains it. Exit status 1 when one of them is beyond.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KNOWN = Path(__file__).with_name("instructions.json")
_PROGRAM = ROOT / "target/release/smtp-proxy-guard"
_FEW, _OFTEN = 100, 300
# Another compiler makes a few per cent. Fewer instructions than known is a figure to be written down too.
_TOLERANCE = 0.10
_COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.guard", description=__doc__)
    parser.add_argument("--write", action="store_true", help="into instructions.json")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("guard: valgrind is not installed (apt-get install valgrind); NOTHING WAS CHECKED")
        return 0
    cargo = shutil.which("cargo") or str(Path.home() / ".cargo/bin/cargo")
    subprocess.run([cargo, "build", "--quiet", "--release", "--locked", "-p", "smtp-proxy-guard"], cwd=ROOT, check=True)
    known = json.loads(KNOWN.read_text())
    seen = {work: per_time(work) for work in known["each"]}
    if options.write:
        KNOWN.write_text(json.dumps({"rustc": _rustc(), "each": seen}, indent=2) + "\n")
    else:
        beyond = [line for work, count in seen.items() if (line := _judge(work, count, known["each"][work]))]
        if beyond:
            print("\n".join([*beyond, f"guard: known with {known['rustc']}; this is {_rustc()}"]))
            return 1
    print(f"guard: {', '.join(f'{work} {count:,}' for work, count in seen.items())} instructions")
    return 0


def per_time(work: str) -> int:
    """Instructions of one more time."""
    return (_count(work, _OFTEN) - _count(work, _FEW)) // (_OFTEN - _FEW)


def _count(work: str, times: int) -> int:
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = subprocess.run([*tool, str(_PROGRAM), work, str(times)], capture_output=True, text=True, check=False)
    found = _COUNTED.search(done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"valgrind could not count {work}: {done.stderr.strip()[-500:]}")
    return int(found[1].replace(",", ""))


def _judge(work: str, count: int, known: int) -> str | None:
    change = count / known - 1
    if abs(change) <= _TOLERANCE:
        return None
    what = "slower: find out why" if change > 0 else "faster: well done, write it down with --write"
    return f"guard: {work} takes {count:,} instructions, known are {known:,} ({change:+.0%}), {what}"


def _rustc() -> str:
    return subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
