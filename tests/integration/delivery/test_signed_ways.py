"""Each way gets the signatures that it takes, and SES's word on a second one is for the operator."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from mail import job
from scripted_server import ScriptedServer

from smtp_proxy.delivery.leg import Leg
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.sign import CannotSign, Dkim
from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.model.envelope import Envelope, Job

pytestmark = pytest.mark.integration
TWICE = b"554 Transaction failed: Duplicate header 'DKIM-Signature'.\r\n"


class Keys:
    """Two keys, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    async def headers(self, envelope: Envelope, *, alone: bool = False) -> bytes:
        self.asked.append(alone)
        return b"DKIM-Signature: rsa\r\n" + (b"" if alone else b"DKIM-Signature: ed25519\r\n")


class Planned:
    """A leg of its own for each recipient, with these candidates."""

    def __init__(self, *candidates: Sequence[Route]) -> None:
        self._candidates = candidates

    async def plan(self, job: Job) -> list[Leg]:
        return [Leg((r,), tuple(ways)) for r, ways in zip(job.recipients, self._candidates, strict=True)]


def way(port: int, dkim: Dkim = "all") -> Route:
    return Route("127.0.0.1", port, "none", "proxy.example", name="relay", dkim=dkim)


class NoKey(Keys):
    async def headers(self, envelope: Envelope, *, alone: bool = False) -> bytes:
        raise CannotSign("the signing key s1 of sender.example does not open")


async def deliver(planned: Planned, signer: Keys, *recipients: str) -> list[RecipientResult]:
    transport = SmtpTransport(planned, signer)
    results = await transport.deliver(job(*recipients))
    await transport.close()
    return results


async def test_each_leg_has_its_own_and_nothing_is_signed_twice() -> None:
    keys = Keys()
    async with ScriptedServer().running() as all_, ScriptedServer().running() as one, ScriptedServer().running() as no:
        ways = [way(all_.port), way(one.port, "one"), way(no.port, "none"), way(all_.port)]
        planned = Planned(*([each] for each in ways))
        results = await deliver(planned, keys, *(f"{n}@rcpt.example" for n in range(4)))
    assert {result.outcome for result in results} == {Outcome.DELIVERED}
    counts = [[mail.data.count(b"DKIM-Signature:") for mail in server.received] for server in (all_, one, no)]
    assert counts == [[2, 2], [1], [0]]
    assert sorted(keys.asked) == [False, True]


async def test_the_next_candidate_gets_what_it_takes() -> None:
    keys = Keys()
    async with ScriptedServer().running() as backup:
        nobody_there = way(1)
        (result,) = await deliver(Planned([nobody_there, way(backup.port, "none")]), keys)
    assert result.outcome is Outcome.DELIVERED
    assert b"DKIM-Signature" not in backup.received[0].data


async def test_a_key_that_does_not_open_keeps_what_it_should_sign_and_nothing_else() -> None:
    async with ScriptedServer().running() as signed, ScriptedServer().running() as unsigned:
        planned = Planned([way(signed.port)], [way(unsigned.port, "none")])
        results = await deliver(planned, NoKey(), "a@x.example", "b@y.example")
    assert [result.outcome for result in results] == [Outcome.DEFERRED, Outcome.DELIVERED]
    assert (results[0].kind, results[0].reply_text) == (
        Kind.LOCAL, "the signing key s1 of sender.example does not open",
    )  # fmt: skip
    assert (signed.received, results[0].remote) == ([], f"127.0.0.1:{signed.port}")


async def test_the_same_by_smtp(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedServer(answers={"DOT": TWICE}).running() as server:
        (result,) = await deliver(Planned([way(server.port)]), Keys())
    assert (result.outcome, result.reply_code, result.kind) == (Outcome.DEFERRED, 554, Kind.LOCAL)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert f"127.0.0.1:{server.port} (route relay): 554 Transaction failed: Duplicate header" in said
    assert 'set dkim = "none"' in said
    assert "SMARTHOST_DKIM=none" in said
