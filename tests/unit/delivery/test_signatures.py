"""Which signatures a next hop is given by default, and that each choice is made once."""

from __future__ import annotations

import asyncio

import pytest
from mail import envelope

from smtp_proxy.config import Settings
from smtp_proxy.delivery.route import smarthost
from smtp_proxy.delivery.sign import CannotSign, Signatures
from smtp_proxy.model.envelope import Envelope

SES = "email-smtp.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("host", "said", "given"),
    [
        (SES, "auto", "none"),
        ("EMAIL-SMTP-FIPS.us-gov-west-1.amazonaws.com.", "auto", "none"),
        ("vpce-0a1-2b3.email-smtp.us-east-1.vpce.amazonaws.com", "auto", "none"),
        ("email-smtp.cn-north-1.amazonaws.com.cn", "auto", "none"),
        ("email-smtp.eu-west-1.api.aws", "auto", "none"),
        ("email-smtp.eu-west-1.amazonaws.com.thief.example", "auto", "all"),
        ("notemail-smtp.eu-west-1.amazonaws.com", "auto", "all"),
        ("smtp.example", "auto", "all"),
        (SES, "all", "all"),
        (SES, "one", "one"),
        ("smtp.example", "none", "none"),
    ],
)
def test_the_smarthost_of_the_settings(host: str, said: str, given: str) -> None:
    settings = Settings.load({"smarthost_host": host, "smarthost_dkim": said}, {})
    assert smarthost(settings).dkim == given


class Slow:
    """Counts what it is asked; a large message is signed in a thread."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    async def headers(self, envelope: Envelope, *, alone: bool = False) -> bytes:
        self.asked.append(alone)
        await asyncio.sleep(0)
        return b"alone" if alone else b"all"


async def test_each_choice_is_made_once_for_all_legs_and_none_at_no_cost() -> None:
    signer = Slow()
    signatures = Signatures(signer, envelope(), legs=4)
    assert await signatures.of("none") == b""
    assert signer.asked == []
    assert await asyncio.gather(*(signatures.of(each) for each in ("all", "one", "all", "one"))) == [  # type: ignore[arg-type]
        b"all", b"alone", b"all", b"alone",
    ]  # fmt: skip
    assert signer.asked == [False, True]


@pytest.mark.parametrize("legs", [1, 2])
async def test_what_could_not_be_signed_is_asked_for_again(legs: int) -> None:
    class Closed(Slow):
        async def headers(self, envelope: Envelope, *, alone: bool = False) -> bytes:
            if not self.asked:
                self.asked.append(alone)
                raise CannotSign("the key does not open")
            return await super().headers(envelope, alone=alone)

    signatures = Signatures(Closed(), envelope(), legs=legs)
    with pytest.raises(CannotSign):
        await signatures.of("all")
    assert await signatures.of("all") == b"all"
