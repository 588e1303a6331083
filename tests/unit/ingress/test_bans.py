"""What an operator may ask about bans, and what a question without sense is told."""

from __future__ import annotations

from typing import Any

import pytest

from smtp_proxy.errors import InvalidValue
from smtp_proxy.ingress import bans


class FullCore:
    """Has no room for another ban."""

    def ban(self, address: str, seconds: float) -> bool:
        return seconds < 0

    def bans(self) -> dict[str, float]:
        return {"192.0.2.2": 60.04, "192.0.2.1": 1.0}

    def lift_ban(self, address: str) -> bool:
        return address in self.bans()


VERBS = bans.verbs(FullCore())


async def test_the_shortest_comes_first() -> None:
    listed = [{"address": "192.0.2.1", "seconds_left": 1.0}, {"address": "192.0.2.2", "seconds_left": 60.0}]
    assert await VERBS["bans"]({}) == {"bans": listed}
    assert await VERBS["lift-ban"]({"address": "192.0.2.1"}) == {"bans": listed}


@pytest.mark.parametrize(
    ("verb", "asked", "why"),
    [
        ("ban", {}, "say which address"),
        ("ban", {"address": "192.0.2.1"}, "for how many seconds"),
        ("ban", {"address": "192.0.2.1", "seconds": "long"}, "for how many seconds"),
        ("ban", {"address": "192.0.2.1", "seconds": 1}, "no room"),
        ("lift-ban", {}, "say which address"),
        ("lift-ban", {"address": "192.0.2.3"}, r"192\.0\.2\.3 is not banned"),
    ],
)
async def test_what_can_not_be_done_is_told(verb: str, asked: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidValue, match=why):
        await VERBS[verb](asked)
