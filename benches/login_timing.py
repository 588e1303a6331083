"""Does the time of a refused login tell why it was refused? `python -m benches.login_timing [--rounds N]`.

Real argon2id, the store in memory, one login at a time; the kinds are interleaved, so that what else the machine does
meets all of them alike. Each password is new, so that nothing is remembered but what an attacker could have caused.
What is asked of whom is shown to be the same by tests/unit/tenants/test_guarded_logins.py; this looks at the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import time
from ipaddress import ip_network
from uuid import uuid4

from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.store import MemoryStore
from smtp_proxy.tenants import LoginChecker, Passwords

ELSEWHERE = "203.0.113.9"


async def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each refused login, by kind."""
    settings, clock = Settings.load({}, {}), SystemClock()
    store, passwords = MemoryStore(clock), Passwords(1)
    checker = LoginChecker(store, settings, clock, passwords)
    office = (ip_network("198.51.100.0/24"),)
    times: dict[str, list[float]] = {"unknown user": [], "wrong password": [], "disabled": [], "from elsewhere": []}
    for number in range(rounds):
        right = f"password {number}"
        for username in (f"app {number}", f"gone {number}", f"office {number}"):
            networks = office if username.startswith("office") else ()
            await store.create_credential(uuid4(), username, await passwords.hash(right), networks)
        await store.disable_credential(f"gone {number}")
        logins = {
            "unknown user": (f"none {number}", right),
            "wrong password": (f"app {number}", f"guess {number}"),
            "disabled": (f"gone {number}", right),
            "from elsewhere": (f"office {number}", right),
        }
        kinds = list(logins)
        for kind in kinds[number % 4 :] + kinds[: number % 4]:
            began = time.perf_counter()
            assert await checker.check(*logins[kind], ELSEWHERE) is False
            times[kind].append(time.perf_counter() - began)
    checker.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    logging.disable()
    times = asyncio.run(measure(parser.parse_args().rounds))
    every = statistics.median(value for values in times.values() for value in values)
    print("kind            median ms  quartiles ms   of the median of all")
    for kind, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{kind:15} {middle * 1e3:9.2f}  {low * 1e3:5.2f} {high * 1e3:6.2f}   {middle / every:.3f}")


if __name__ == "__main__":
    main()
