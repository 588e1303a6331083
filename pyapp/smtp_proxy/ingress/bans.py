"""Bans by an operator: what the control socket (`control`) answers about clients that are turned away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from smtp_proxy.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smtp_proxy.ingress.control import Verb


class BanningCore(Protocol):
    """What is needed of the core."""

    def ban(self, address: str, seconds: float) -> bool: ...
    def bans(self) -> dict[str, float]: ...
    def lift_ban(self, address: str) -> bool: ...


def verbs(core: BanningCore) -> dict[str, Verb]:
    """The verbs `bans`, `ban` (address, seconds) and `lift-ban` (address).

    Each answers {"bans": [{"address", "seconds_left"}, ...]}, the shortest first: those that there are after it. What
    can not be done raises InvalidValue.
    """

    def listed() -> dict[str, Any]:
        left = sorted(core.bans().items(), key=lambda ban: ban[1])
        return {"bans": [{"address": address, "seconds_left": round(seconds, 1)} for address, seconds in left]}

    async def bans(_: Mapping[str, Any]) -> dict[str, Any]:
        return listed()

    async def ban(asked: Mapping[str, Any]) -> dict[str, Any]:
        try:
            done = core.ban(asked["address"], asked["seconds"])
        except (KeyError, TypeError):
            raise InvalidValue("say which address, and for how many seconds") from None
        except ValueError as error:
            raise InvalidValue(str(error)) from None
        if not done:
            raise InvalidValue(
                "there is no room for one more ban: the table is full of clients that are connected or banned"
            )
        return listed()

    async def lift(asked: Mapping[str, Any]) -> dict[str, Any]:
        try:
            done = core.lift_ban(asked["address"])
        except (KeyError, TypeError):
            raise InvalidValue("say which address") from None
        except ValueError as error:
            raise InvalidValue(str(error)) from None
        if not done:
            raise InvalidValue(f"{asked['address']} is not banned in this process")
        return listed()

    return {"bans": bans, "ban": ban, "lift-ban": lift}
