"""Legs and their candidates: the next one when one cannot be reached or sends us away, and only then."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Hashable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from mail import job
from scripted_server import STALL, Answer, ScriptedServer

from smtp_proxy.delivery.governor import Busy, Governor, Permit
from smtp_proxy.delivery.leg import Leg
from smtp_proxy.delivery.provider import Offered
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.delivery.transport import Ledger
from smtp_proxy.delivery.turn import Turn
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.model.envelope import Job
from smtp_proxy.model.lane import Lane

pytestmark = pytest.mark.integration


class Planned:
    """The legs of every job, given beforehand: recipients by number."""

    def __init__(self, *legs: tuple[tuple[int, ...], tuple[Route, ...]]) -> None:
        self._legs = legs

    async def plan(self, job: Job) -> list[Leg]:
        return [Leg(tuple(job.recipients[n] for n in numbers), candidates) for numbers, candidates in self._legs]


def way(port: int) -> Route:
    return Route("127.0.0.1", port, "none", "proxy.example", connect_timeout_seconds=30.0, command_timeout_seconds=30.0)


def nobody_there() -> Route:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return way(sock.getsockname()[1])


@pytest.fixture
async def backup() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer().running() as server:
        yield server


async def deliver(planned: Planned, *recipients: str) -> list[RecipientResult]:
    transport = SmtpTransport(planned)
    results = await transport.deliver(job(*recipients))
    await transport.close()
    return results


async def test_the_next_one_when_nobody_answers(backup: ScriptedServer) -> None:
    (result,) = await deliver(Planned(((0,), (nobody_there(), nobody_there(), way(backup.port)))))
    assert (result.outcome, result.remote) == (Outcome.DELIVERED, f"127.0.0.1:{backup.port}")


@pytest.mark.parametrize(
    "answers",
    [
        {"GREETING": b"421 4.3.2 too busy\r\n"},
        {"GREETING": b"554 5.7.1 not you\r\n"},
        {"GREETING": STALL},
        {"EHLO": b"451 4.3.0 not now\r\n"},
        {"MAIL": b"421 4.3.2 leaving\r\n"},
    ],
)
async def test_the_next_one_when_sent_away_before_the_message(
    answers: dict[str, Answer], backup: ScriptedServer
) -> None:
    async with ScriptedServer(answers=answers).running() as first:
        impatient = replace(way(first.port), command_timeout_seconds=0.5)
        (result,) = await deliver(Planned(((0,), (impatient, way(backup.port)))))
    assert (result.outcome, len(backup.received), len(first.received)) == (Outcome.DELIVERED, 1, 0)


@pytest.mark.parametrize(
    "answers",
    [
        {"RCPT": b"450 4.2.1 greylisted\r\n"},
        {"DATA": b"451 4.3.0 later\r\n"},
        {"DOT": b"451 4.3.0 later\r\n"},
        {"DOT": b"421 4.3.0 later\r\n"},
    ],
)
async def test_what_a_server_says_of_the_message_stands(answers: dict[str, Answer], backup: ScriptedServer) -> None:
    async with ScriptedServer(answers=answers).running() as first:
        (result,) = await deliver(Planned(((0,), (way(first.port), way(backup.port)))))
    assert (result.outcome, backup.connections) == (Outcome.DEFERRED, 0)


async def test_what_the_last_one_said_when_none_lets_us_in() -> None:
    async with ScriptedServer(answers={"GREETING": b"421 4.3.2 too busy\r\n"}).running() as last:
        (result,) = await deliver(Planned(((0,), (nobody_there(), way(last.port)))))
    assert (result.outcome, result.reply_code, result.enhanced_code) == (Outcome.DEFERRED, 421, "4.3.2")


async def test_legs_go_at_the_same_time_and_keep_the_order_of_recipients(backup: ScriptedServer) -> None:
    both = asyncio.Barrier(2)
    async with ScriptedServer(meeting=both).running() as one, ScriptedServer(meeting=both).running() as two:
        first, second = (way(each.port) for each in (one, two))
        planned = Planned(((0, 2), (first,)), ((1,), (second,)))
        async with asyncio.timeout(20):  # one after the other, neither is answered
            results = await deliver(planned, "a@one.example", "b@two.example", "c@one.example")
    assert {r.outcome for r in results} == {Outcome.DELIVERED}
    assert [r.number for r in results] == [0, 1, 2]
    assert [r.remote for r in results] == [f"127.0.0.1:{port}" for port in (one.port, two.port, one.port)]
    assert one.received[0].recipients == [b"TO:<a@one.example>", b"TO:<c@one.example>"]


async def test_a_fault_on_one_way_leaves_the_others(backup: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All recipients were once deferred, and those that had it got it again: a name of DNS that TLS refuses did it."""
    transact = SmtpTransport._transact

    async def faulty(transport: SmtpTransport, route: Route, *more: Any) -> Any:
        if route.port == broken.port:
            raise UnicodeError("label too long")
        return await transact(transport, route, *more)

    broken = nobody_there()
    monkeypatch.setattr(SmtpTransport, "_transact", faulty)
    results = await deliver(Planned(((0,), (way(backup.port),)), ((1,), (broken,))), "a@one.example", "b@two.example")
    assert [result.outcome for result in results] == [Outcome.DELIVERED, Outcome.DEFERRED]
    assert len(backup.received) == 1


class TurnsAway:
    """An API that says it has taken nothing, after an attempt was written down."""

    async def offer(self, raw: bytes, recipients: Sequence[tuple[int, str]], ledger: Ledger) -> Offered:
        assert await ledger.sending([number for number, _ in recipients])
        slow = {
            number: RecipientResult(number, Outcome.DEFERRED, 454, "4.7.0", "too fast", "") for number, _ in recipients
        }
        return Offered(slow, turned_away=True)

    async def close(self) -> None: ...


class Crowded(Governor):
    """Every next hop that speaks SMTP is busy."""

    async def enter(self, route: Route, tenant: Hashable, turn: Turn, lane: Lane = Lane.TRANSACTIONAL) -> Permit:
        if route.provider is None:
            raise Busy("busy: 9 wait for it, 1 are under way", 20.0)
        return await super().enter(route, tenant, turn, lane)


class KeptBack:
    """An API that is not asked for a while, by its provider's own pace."""

    async def offer(self, raw: bytes, recipients: Sequence[tuple[int, str]], ledger: Ledger) -> Offered:
        later = {
            number: RecipientResult(
                number, Outcome.DEFERRED, 0, "4.7.0", "later", "", Kind.LOCAL, postponed_seconds=30.0
            )
            for number, _ in recipients
        }
        return Offered(later, turned_away=True)

    async def close(self) -> None: ...


async def test_an_attempt_that_was_written_down_gets_its_end_though_the_next_way_is_busy() -> None:
    """Sent back to the queue instead, it was counted as one of which nobody knows the outcome."""

    api = replace(way(9), provider=TurnsAway())
    transport = SmtpTransport(Planned(((0,), (api, way(9)))), governor=Crowded())
    (result,) = await transport.deliver(job("a@one.example"))
    await transport.close()
    assert (result.outcome, result.reply_code, result.postponed_seconds) == (Outcome.DEFERRED, 454, 0.0)


async def test_who_is_turned_away_and_delivers_elsewhere_is_not_counted_as_away(backup: ScriptedServer) -> None:
    """All that a second MX took while the first was probed once counted, and others came back after them."""

    class Probed(Governor):
        async def enter(self, route: Route, tenant: Hashable, turn: Turn, lane: Lane = Lane.TRANSACTIONAL) -> Permit:
            if route.port == 9:
                raise Busy("busy: it is being probed", 20.0)
            return await super().enter(route, tenant, turn, lane)

    first, governor = way(9), Probed()
    by_two = SmtpTransport(Planned(((0,), (first, way(backup.port)))), governor=governor)
    assert (await by_two.deliver(job("a@one.example")))[0].outcome is Outcome.DELIVERED
    destination = governor._destination(first, 0.0)
    assert destination.away(0.0) == 0
    by_one = SmtpTransport(Planned(((0,), (first,))), governor=governor)
    assert (await by_one.deliver(job("b@one.example")))[0].postponed_seconds == 20.0
    assert destination.away(0.0) == 1
    await by_two.close()


async def test_who_is_busy_and_then_kept_back_by_a_providers_pace_is_away_for_neither() -> None:
    """The provider's own pace says when to come again, and nobody else has to come after it."""

    busy, api, governor = way(9), replace(way(9), name="api", provider=KeptBack()), Crowded()
    transport = SmtpTransport(Planned(((0,), (busy, api))), governor=governor)
    (result,) = await transport.deliver(job("a@one.example"))
    await transport.close()
    assert (result.reply_code, result.postponed_seconds) == (0, 30.0)
    assert [governor._destination(route, 0.0).away(0.0) for route in (busy, api)] == [0, 0]
    assert not governor._breakers


async def test_a_leg_that_was_decided_asks_nobody() -> None:
    refused = RecipientResult(0, Outcome.REFUSED, 0, "5.1.10", "it takes no mail", "")

    class Decided:
        async def plan(self, job: Job) -> list[Leg]:
            return [Leg(job.recipients, (), (refused,))]

    transport = SmtpTransport(Decided())
    assert await transport.deliver(job()) == [refused]
    await transport.close()


async def test_pools_without_a_connection_are_let_go(backup: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtp_proxy.delivery.smtp.MOST_POOLS", 3)

    class EachTimeAnother:
        async def plan(self, job: Job) -> list[Leg]:
            return [Leg(job.recipients, (nobody_there(), way(backup.port)))]

    transport = SmtpTransport(EachTimeAnother())
    for _ in range(4):
        assert (await transport.deliver(job()))[0].outcome is Outcome.DELIVERED
    assert [pool.open_connections for pool in transport._pools.values()] == [1, 1, 1, 1]
    await transport.close()
