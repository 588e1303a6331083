"""The checks by name, in the order in which they are told; they run side by side."""

from __future__ import annotations

import asyncio
import logging
import math
import resource
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final

from smtp_proxy.doctor import dns, limits, listeners, outbound, postgres, redis
from smtp_proxy.doctor.finding import Finding, failed
from smtp_proxy.doctor.surroundings import Surroundings
from smtp_proxy.errors import SmtpProxyError

if TYPE_CHECKING:
    from smtp_proxy.config import Settings

log = logging.getLogger(__name__)

Check = Callable[["Settings", Surroundings], Awaitable[list[Finding]]]
_CHECK_SECONDS: Final = 60.0


async def _limits(settings: Settings, around: Surroundings) -> list[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = math.inf if soft == resource.RLIM_INFINITY else soft
    return [
        *limits.examine(settings, around.load_balancer_idle_seconds),
        *limits.examine_descriptors(settings, descriptors),
    ]


CHECKS: Final[Mapping[str, Check]] = {
    "limits": _limits,
    "postgres": lambda settings, around: postgres.examine(settings, around.processes),
    "redis": lambda settings, _: redis.examine(settings),
    "listeners": listeners.examine,
    "smarthost": lambda settings, _: outbound.examine_smarthost(settings),
    "port-25": lambda settings, around: outbound.examine_port_25(settings, around.port_25_host),
    "ses": lambda settings, _: outbound.examine_ses(settings),
    "hostname": lambda settings, _: dns.examine_hostname(settings),
    "domains": lambda settings, _: dns.examine_domains(settings),
}


async def examine(
    settings: Settings,
    around: Surroundings,
    names: Collection[str],
    checks: Mapping[str, Check] = CHECKS,
) -> dict[str, list[Finding]]:
    """What the named checks found, by their names, in the order of `checks`. A check that breaks is a finding too."""
    chosen = [name for name in checks if name in names]
    found = await asyncio.gather(*(_one(checks[name], settings, around) for name in chosen))
    return dict(zip(chosen, found, strict=True))


async def _one(check: Check, settings: Settings, around: Surroundings) -> list[Finding]:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            return await check(settings, around)
    except TimeoutError:
        return [failed(f"no answer within {_CHECK_SECONDS:g} s", "see what it waits for with --only and its log")]
    except SmtpProxyError as error:
        return [failed(str(error), "see the setting that is named")]
    except Exception as error:
        log.exception("a check of doctor broke", extra={"action": "doctor_failed"})
        return [failed(f"the check itself broke: {type(error).__name__}", "please report it, with SMTP_PROXY_DEBUG=1")]
