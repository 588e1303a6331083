"""Transactions against servers that behave, and against servers that do not."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Callable

import pytest
from mail import BODY, envelope, job
from scripted_server import HANG_UP, STALL, Answer, ScriptedServer
from stopwatch import Stopwatch

from smtp_proxy.delivery.pool import Pool
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.model.dsn import Notify, Ret
from smtp_proxy.model.envelope import Job, Recipient

pytestmark = pytest.mark.integration

TransportTo = Callable[..., SmtpTransport]
WITHOUT_PIPELINING = (b"8BITMIME", b"SIZE 30000000")


async def deliver_to(
    server: ScriptedServer, transport_to: TransportTo, *recipients: str, **route: object
) -> list[RecipientResult]:
    async with server.running():
        transport = transport_to(server.port, **route)
        results = await transport.deliver(job(*recipients))
        await transport.close()
    return results


@pytest.fixture(params=["pipelining", "one by one", "HELO only"])
def polite(request: pytest.FixtureRequest) -> ScriptedServer:
    """A server that takes everything, in each of the ways a server can be."""
    if request.param == "pipelining":
        return ScriptedServer()
    if request.param == "one by one":
        return ScriptedServer(extensions=WITHOUT_PIPELINING)
    return ScriptedServer(answers={"EHLO": b"502 5.5.1 what is that\r\n"})


class TestDelivered:
    async def test_one_recipient(self, polite: ScriptedServer, transport_to: TransportTo) -> None:
        (result,) = await deliver_to(polite, transport_to)
        assert result == RecipientResult(
            0, Outcome.DELIVERED, 250, "2.0.0", "taken", f"127.0.0.1:{polite.port}", Kind.ACCEPTED
        )
        (received,) = polite.received
        assert received.recipients == [b"TO:<b@rcpt.example>"]
        trace, _, rest = received.data.partition(b"From: ")
        assert trace.startswith(b"Received: from client.example")
        assert b"From: " + rest == BODY.replace(b"\r\n.", b"\r\n..")
        assert polite.verbs["QUIT"] == 1

    async def test_many_recipients_share_a_transaction(self, polite: ScriptedServer, transport_to: TransportTo) -> None:
        results = await deliver_to(polite, transport_to, *[f"r{n}@rcpt.example" for n in range(300)])
        assert [r.number for r in results] == list(range(300))
        assert {r.outcome for r in results} == {Outcome.DELIVERED}
        assert len(polite.received) == 1
        assert len(polite.received[0].recipients) == 300

    async def test_some_recipients_refused(self, polite: ScriptedServer, transport_to: TransportTo) -> None:
        polite.answers["RCPT"] = lambda argument: {
            b"TO:<a@x>": b"250 ok\r\n",
            b"TO:<b@x>": b"550 5.1.1 no such user\r\n",
            b"TO:<c@x>": b"450 4.2.0 greylisted\r\n",
        }[argument]
        results = await deliver_to(polite, transport_to, "b@x", "a@x", "c@x")
        assert [r.outcome for r in results] == [Outcome.REFUSED, Outcome.DELIVERED, Outcome.DEFERRED]
        assert [r.reply_code for r in results] == [550, 250, 450]
        assert polite.received[0].recipients == [b"TO:<a@x>"]

    async def test_all_recipients_refused_sends_nothing(
        self, polite: ScriptedServer, transport_to: TransportTo
    ) -> None:
        """A pipelined DATA may get 354 all the same: then nothing but the dot is sent (RFC 2920 3.1)."""
        polite.answers["RCPT"] = b"550 5.1.1 no such user\r\n"
        polite.answers["DOT"] = lambda data: b"554 5.5.0 no recipients\r\n" if not data else b"250 smuggled\r\n"
        async with polite.running():
            transport = transport_to(polite.port, connections=1)
            results = await transport.deliver(job("a@x", "b@x"))
            assert [r.outcome for r in results] == [Outcome.REFUSED, Outcome.REFUSED]
            del polite.answers["RCPT"], polite.answers["DOT"]
            (again,) = await transport.deliver(job())
            assert again.outcome is Outcome.DELIVERED
            await transport.close()
        assert polite.connections == 1
        assert polite.verbs["RSET"] == 1, "the open transaction was reset before the next"
        assert len(polite.received) == 1

    async def test_too_many_recipients_at_once(self, polite: ScriptedServer, transport_to: TransportTo) -> None:
        """RFC 5321 4.5.3.1.10: 452 to some, and the rest goes in the next transaction at once."""
        taken = 0

        def rcpt(_argument: bytes) -> bytes:
            nonlocal taken
            taken += 1
            return b"250 ok\r\n" if taken <= 4 else b"452 4.5.3 too many recipients\r\n"

        def dot(_data: bytes) -> bytes:
            nonlocal taken
            taken = 0
            return b"250 ok\r\n"

        polite.answers.update(RCPT=rcpt, DOT=dot)
        results = await deliver_to(polite, transport_to, *[f"r{n}@x" for n in range(10)])
        assert {r.outcome for r in results} == {Outcome.DELIVERED}
        assert [len(received.recipients) for received in polite.received] == [4, 4, 2]

    async def test_a_large_message(self, polite: ScriptedServer, transport_to: TransportTo) -> None:
        body = b"A: b\r\n\r\n" + (b"." + b"x" * 70 + b"\r\n") * 60_000
        async with polite.running():
            transport = transport_to(polite.port)
            (result,) = await transport.deliver(job(of=envelope(body)))
            await transport.close()
        assert result.outcome is Outcome.DELIVERED
        assert polite.received[0].data.endswith(body.replace(b"\r\n.", b"\r\n.."))

    async def test_connections_are_reused(self, polite: ScriptedServer, transport_to: TransportTo) -> None:
        async with polite.running():
            transport = transport_to(polite.port)
            jobs = [job() for _ in range(50)]
            results = await asyncio.gather(*[transport.deliver(j) for j in jobs])
            await transport.close()
        assert {r[0].outcome for r in results} == {Outcome.DELIVERED}
        assert polite.connections == 2


class TestAnswers:
    @pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
    @pytest.mark.parametrize("pipelining", [True, False])
    @pytest.mark.parametrize(
        ("answer", "outcome", "code"),
        [
            (b"451 4.3.0 later\r\n", Outcome.DEFERRED, 451),
            (b"554 5.7.1 spam\r\n", Outcome.REFUSED, 554),
            (b"421 4.3.2 closing\r\n" + HANG_UP, Outcome.DEFERRED, 421),
            (b"535 5.7.8 who are you\r\n", Outcome.DEFERRED, 535),
            (b"550-5.1.1 a\r\n550-5.1.1 b\r\n550 5.1.1 c\r\n", Outcome.REFUSED, 550),
        ],
    )
    async def test_at_every_verb(
        self, transport_to: TransportTo, verb: str, pipelining: bool, *, answer: bytes, outcome: Outcome, code: int
    ) -> None:
        server = ScriptedServer(answers={verb: answer})
        if not pipelining:
            server.extensions = WITHOUT_PIPELINING
        results = await deliver_to(server, transport_to, "a@x", "b@x")
        assert [(r.outcome, r.reply_code) for r in results] == [(outcome, code)] * 2
        assert not any(received.data for received in server.received)

    @pytest.mark.parametrize("verb", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
    @pytest.mark.parametrize("pipelining", [True, False])
    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (HANG_UP, "closed"),
            (b"250-half a re" + HANG_UP, "closed"),
            (STALL, "no answer within"),
            (b"\x00\xff garbage\r\n", "broke the protocol"),
            (b"250-" + b"x" * 100_000, "broke the protocol"),
            (b"250-more\r\n" * 5000, "broke the protocol"),
        ],
    )
    async def test_no_answer_at_any_verb(
        self, transport_to: TransportTo, verb: str, pipelining: bool, answer: Answer, text: str
    ) -> None:
        server = ScriptedServer(answers={verb: answer})
        if not pipelining:
            server.extensions = WITHOUT_PIPELINING
        if answer is not STALL:
            in_time = {}
        elif verb == "DOT":
            in_time = {"data_timeout_seconds": 0.7}
        else:
            in_time = {"command_timeout_seconds": 0.5}
        with Stopwatch() as delivery:
            (result,) = await deliver_to(server, transport_to, **in_time)
        assert (result.outcome, result.reply_code) == (Outcome.UNKNOWN if verb == "DOT" else Outcome.DEFERRED, 0)
        assert text in result.reply_text
        assert ("unknown" in result.reply_text) == (verb == "DOT")
        assert delivery.seconds < 3
        assert verb == "DOT" or not server.received

    @pytest.mark.parametrize("answer", [b"554 5.3.2 no service here\r\n", b"421 4.3.2 busy\r\n"])
    async def test_turned_away_at_the_door(self, transport_to: TransportTo, answer: bytes) -> None:
        (result,) = await deliver_to(ScriptedServer(answers={"GREETING": answer}), transport_to)
        assert (result.outcome, result.reply_code) == (Outcome.DEFERRED, int(answer[:3]))

    async def test_an_answer_before_the_message_has_ended(self, transport_to: TransportTo) -> None:
        """552 and gone, while we still send: that is an answer, not a lost connection."""
        server = ScriptedServer(answers={"LINE": lambda _: b"552 5.3.4 too big\r\n" + HANG_UP})
        async with server.running():
            (result,) = await transport_to(server.port).deliver(job(of=envelope((b"x" * 70 + b"\r\n") * 200_000)))
        assert (result.outcome, result.reply_code) == (Outcome.REFUSED, 552)

    async def test_a_message_is_not_taken_before_it_has_ended(self, transport_to: TransportTo) -> None:
        """250 while we still send: whatever was taken, it was not this; it is tried again, on another connection."""
        early = [True]

        def answer(_: object) -> bytes:
            return b"250 2.0.0 taken\r\n" if early and early.pop() else b""

        server = ScriptedServer(answers={"LINE": answer})
        async with server.running():
            transport = transport_to(server.port, connections=1)
            (result,) = await transport.deliver(job(of=envelope((b"x" * 70 + b"\r\n") * 200_000)))
            assert (result.outcome, result.reply_code) == (Outcome.DEFERRED, 0)
            assert "answered 250 within the message" in result.reply_text
            assert not server.received
            del server.answers["LINE"]
            (again,) = await transport.deliver(job(of=envelope((b"x" * 70 + b"\r\n") * 200_000)))
            await transport.close()
        assert again.outcome is Outcome.DELIVERED
        assert len(server.received) == 1

    async def test_an_answer_before_the_message_has_begun(self, transport_to: TransportTo) -> None:
        server = ScriptedServer(answers={"DATA": b"354 go\r\n250 2.0.0 taken already\r\n"})
        async with server.running():
            (result,) = await transport_to(server.port).deliver(job())
        assert (result.outcome, result.reply_code) == (Outcome.DEFERRED, 0)
        assert not server.received

    async def test_replies_nobody_asked_for_do_not_answer_the_next_message(self, transport_to: TransportTo) -> None:
        server = ScriptedServer(answers={"DOT": b"550 5.7.1 spam\r\n250 2.0.0 taken, honestly\r\n"})
        async with server.running():
            transport = transport_to(server.port, connections=1)
            for _ in range(3):
                (result,) = await transport.deliver(job())
                assert (result.outcome, result.reply_code) == (Outcome.REFUSED, 550)
            await transport.close()
        assert server.connections == 3


class TestRefusedHere:
    async def test_line_breaks_in_addresses_never_reach_the_wire(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()
        results = await deliver_to(
            server, transport_to, "a@x\r\nRCPT TO:<evil@x>", "good@x", "a@x\x00", "b@x> NOTIFY=NEVER"
        )
        assert [r.outcome for r in results] == [Outcome.REFUSED, Outcome.DELIVERED, Outcome.REFUSED, Outcome.REFUSED]
        assert {r.enhanced_code for r in results if r.outcome is Outcome.REFUSED} == {"5.1.3"}
        assert server.verbs["RCPT"] == 1
        assert not any(b"evil" in command for command in server.commands)

    async def test_nothing_fit_to_send_opens_no_connection(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()
        async with server.running():
            transport = transport_to(server.port)
            (path,) = await transport.deliver(job(of=envelope(reverse_path="a@x\nb")))
            (body,) = await transport.deliver(job(of=envelope(b"A: b\r\n\r\nx\n.\nMAIL FROM:<e@x>\r\n")))
        assert (path.outcome, path.enhanced_code) == (Outcome.REFUSED, "5.1.7")
        assert (body.outcome, body.enhanced_code) == (Outcome.REFUSED, "5.6.0")
        assert server.connections == 0

    async def test_what_the_server_cannot_take(self, transport_to: TransportTo) -> None:
        server = ScriptedServer(extensions=(b"PIPELINING", b"SIZE 1000"))
        async with server.running():
            transport = transport_to(server.port)
            (large,) = await transport.deliver(job(of=envelope(b"A: b\r\n" * 300)))
            (eight,) = await transport.deliver(job(of=envelope("A: b\r\n\r\ngrün\r\n".encode())))
            names = await transport.deliver(job("jörg@x", "ascii@x"))
            (sender,) = await transport.deliver(job(of=envelope(reverse_path="jörg@x", smtputf8=True)))
            await transport.close()
        assert (large.outcome, large.enhanced_code) == (Outcome.REFUSED, "5.3.4")
        assert (eight.outcome, eight.enhanced_code) == (Outcome.REFUSED, "5.6.3")
        assert [(r.outcome, r.enhanced_code) for r in names] == [
            (Outcome.REFUSED, "5.6.7"),
            (Outcome.DELIVERED, "2.0.0"),
        ]
        assert (sender.outcome, sender.enhanced_code) == (Outcome.REFUSED, "5.6.7")
        assert len(server.received) == 1

    async def test_smtputf8_is_declared(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()
        (result,) = await deliver_to(server, transport_to, "jörg@bücher.example")
        assert result.outcome is Outcome.DELIVERED
        assert server.received[0].reverse_path.endswith(b" SMTPUTF8")
        assert server.received[0].recipients == ["TO:<jörg@bücher.example>".encode()]


class TestDsn:
    """RFC 3461 5.2.1: what was asked for goes on as it was, to a server that offers DSN."""

    ASKED = (
        Recipient(0, "a@x", 1, Notify.SUCCESS | Notify.FAILURE, "rfc822;A+2Bb@x"),
        Recipient(1, "b@x", 1),
        Recipient(2, "c@x", 1, Notify.NEVER),
        Recipient(3, "d@x", 1, None, "utf-8;jörg@x"),
    )

    async def deliver(self, transport_to: TransportTo, *extensions: bytes) -> ScriptedServer:
        server = ScriptedServer(extensions=extensions)
        asking = dataclasses.replace(envelope(), ret=Ret.FULL, envid="QQ+2B1")
        async with server.running():
            transport = transport_to(server.port)
            results = await transport.deliver(Job(asking, self.ASKED))
            await transport.close()
        assert {r.outcome for r in results} == {Outcome.DELIVERED}
        return server

    @pytest.mark.parametrize("pipelining", [(b"PIPELINING",), ()])
    async def test_where_it_is_offered(self, transport_to: TransportTo, pipelining: tuple[bytes, ...]) -> None:
        (received,) = (await self.deliver(transport_to, b"DSN", *pipelining)).received
        assert received.reverse_path == b"FROM:<a@sender.example> RET=FULL ENVID=QQ+2B1"
        assert received.recipients == [
            b"TO:<a@x> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;A+2Bb@x",
            b"TO:<b@x>",
            b"TO:<c@x> NOTIFY=NEVER",
            b"TO:<d@x> ORCPT=utf-8;j\\x{F6}rg@x",
        ]

    async def test_where_it_is_not_offered(self, transport_to: TransportTo) -> None:
        (received,) = (await self.deliver(transport_to, b"PIPELINING")).received
        assert received.reverse_path == b"FROM:<a@sender.example>"
        assert received.recipients == [b"TO:<a@x>", b"TO:<b@x>", b"TO:<c@x>", b"TO:<d@x>"]

    async def test_a_parameter_that_may_not_be_sent(self, transport_to: TransportTo) -> None:
        evil = Recipient(0, "a@x", 1, None, "rfc822;a\r\nRCPT TO:<evil@x>")
        server = ScriptedServer(extensions=(b"PIPELINING", b"DSN"))
        async with server.running():
            transport = transport_to(server.port)
            refused, taken = await transport.deliver(Job(envelope(), (evil, Recipient(1, "b@x", 1))))
            await transport.close()
        assert (refused.outcome, refused.enhanced_code) == (Outcome.REFUSED, "5.5.4")
        assert taken.outcome is Outcome.DELIVERED
        assert server.received[0].recipients == [b"TO:<b@x>"]


def once(answer: bytes) -> Callable[[bytes], bytes]:
    """Say this to the first, and yes to all that follow."""
    answers = itertools.chain([answer], itertools.repeat(b"250 ok\r\n"))
    return lambda _argument: next(answers)


class TestPool:
    async def test_a_stale_connection_is_replaced_once(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()
        async with server.running():
            transport = transport_to(server.port, connections=1)
            await transport.deliver(job())
            server.answers["MAIL"] = once(HANG_UP)
            (result,) = await transport.deliver(job())
            assert result.outcome is Outcome.DELIVERED
            await transport.close()
        assert server.connections == 2
        assert len(server.received) == 2

    async def test_a_fresh_connection_is_not_replaced(self, transport_to: TransportTo) -> None:
        server = ScriptedServer(answers={"MAIL": HANG_UP})
        (result,) = await deliver_to(server, transport_to)
        assert result.outcome is Outcome.DEFERRED
        assert server.connections == 1

    async def test_421_to_mail_on_a_used_connection(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()
        async with server.running():
            transport = transport_to(server.port, connections=1)
            await transport.deliver(job())
            server.answers["MAIL"] = once(b"421 4.7.0 enough on this one\r\n" + HANG_UP)
            (result,) = await transport.deliver(job())
            assert result.outcome is Outcome.DELIVERED
            await transport.close()
        assert len(server.received) == 2

    async def test_after_the_dot_nothing_is_sent_twice(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()
        async with server.running():
            transport = transport_to(server.port, connections=1)
            await transport.deliver(job())
            server.answers["DOT"] = HANG_UP
            (result,) = await transport.deliver(job())
            await transport.close()
        assert (result.outcome, result.reply_code) == (Outcome.UNKNOWN, 0)
        assert "unknown" in result.reply_text
        assert server.verbs["DOT"] == 2

    async def test_closed_while_idle(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()
        async with server.running():
            transport = transport_to(server.port, connections=1)
            await transport.deliver(job())
            server.hang_up_all()
            await asyncio.sleep(0.05)
            (result,) = await transport.deliver(job())
            assert result.outcome is Outcome.DELIVERED
            await transport.close()
        assert server.connections == 2

    async def test_message_cap(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()
        async with server.running():
            transport = transport_to(server.port, connections=1, messages_per_connection=3)
            for _ in range(7):
                await transport.deliver(job())
            await transport.close()
        assert server.connections == 3
        assert server.verbs["QUIT"] == 3

    async def test_idle_connections_say_goodbye(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()
        async with server.running():
            transport = transport_to(server.port, idle_seconds=0.1)
            await asyncio.gather(*[transport.deliver(job()) for _ in range(4)])
            assert server.connections == 2
            await asyncio.sleep(0.3)
            assert server.verbs["QUIT"] == 2
            assert not server.open

    async def test_never_more_than_the_limit(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()
        async with server.running():
            transport = transport_to(server.port, connections=3)
            await asyncio.gather(*[transport.deliver(job()) for _ in range(100)])
            await transport.close()
        assert server.connections == 3
        assert len(server.received) == 100

    async def test_a_worker_that_stands_for_a_moment_turns_none_away(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()

        async def deliver_nth(n: int) -> Outcome:
            if n == 60:
                time.sleep(0.4)  # noqa: ASYNC251 - so it does on a machine that has other work
            (result,) = await transport.deliver(job())
            return result.outcome

        async with server.running():
            transport = transport_to(server.port, connections=3)
            outcomes = await asyncio.gather(*[deliver_nth(n) for n in range(100)])
            await transport.close()
        assert outcomes == [Outcome.DELIVERED] * 100

    async def test_nobody_home(self, transport_to: TransportTo) -> None:
        server = ScriptedServer()
        async with server.running():
            pass
        transport = transport_to(server.port)
        results = await asyncio.gather(*[transport.deliver(job()) for _ in range(20)])
        assert {(r.outcome, r.reply_code) for (r,) in results} == {(Outcome.DEFERRED, 0)}
        assert "cannot connect" in results[0][0].reply_text

    async def test_a_name_without_address(self, transport_to: TransportTo) -> None:
        (result,) = await transport_to(25, host="no-such-host.invalid").deliver(job())
        assert (result.outcome, result.reply_code) == (Outcome.DEFERRED, 0)
        assert "DNS" in result.reply_text

    async def test_a_server_that_takes_few_connections(self, transport_to: TransportTo) -> None:
        """Turned away at the second connection, the mail waits for the first."""
        server = ScriptedServer()
        server.answers["GREETING"] = lambda _: b"220 hi\r\n" if len(server.open) <= 1 else b"421 4.7.0 too many\r\n"
        async with server.running():
            transport = transport_to(server.port, connections=5)
            results = await asyncio.gather(*[transport.deliver(job()) for _ in range(20)])
            await transport.close()
        assert {r[0].outcome for r in results} == {Outcome.DELIVERED}

    async def test_turned_away_when_the_only_connection_is_idle_again(self) -> None:
        """It was given back while another was being made, so nobody said that it was free, until it was idle long."""
        server = ScriptedServer()
        server.answers["GREETING"] = lambda _: b"220 hi\r\n" if server.connections == 1 else b""
        async with server.running():
            pool = Pool(Route("127.0.0.1", server.port, "none", "proxy.example", idle_seconds=3600.0))
            first, _ = await pool.acquire()
            (served,) = server.open
            second = asyncio.create_task(pool.acquire())
            while not (to_be_turned_away := server.open - {served}):
                await asyncio.sleep(0.001)
            pool.release(first)
            to_be_turned_away.pop().write(b"421 4.7.0 too many\r\n")
            async with asyncio.timeout(20):
                assert await second == (first, True)
            pool.release(first)
            await pool.close()

    async def test_cancelled_deliveries_leave_no_connection_behind(self, transport_to: TransportTo) -> None:
        server = ScriptedServer(answers={"DOT": STALL})
        async with server.running():
            transport = transport_to(server.port, connections=1)
            deliveries = [asyncio.create_task(transport.deliver(job())) for _ in range(3)]
            await asyncio.sleep(0.1)
            for delivery in deliveries:
                delivery.cancel()
            await asyncio.gather(*deliveries, return_exceptions=True)
            server.answers.clear()
            (result,) = await transport.deliver(job())
            assert result.outcome is Outcome.DELIVERED
            await transport.close()


class NotOurs:
    """A ledger that says the claim was lost, as when this worker is cut from Postgres."""

    async def sending(self, recipient_numbers: object, remote: str = "") -> bool:
        return False


async def test_what_is_no_longer_ours_says_nothing_of_the_next_hop(transport_to: TransportTo) -> None:
    """However often that happens, the breaker stays shut: found by cutting a worker from Postgres under load."""
    server = ScriptedServer()
    async with server.running():
        transport = transport_to(server.port)
        for _ in range(12):
            (result,) = await transport.deliver(job(), NotOurs())
            assert (result.outcome, result.kind) == (Outcome.DEFERRED, Kind.LOCAL)
            assert result.reply_text.startswith("not sent")
        assert server.received == []
        (result,) = await transport.deliver(job())
        await transport.close()
    assert result.outcome is Outcome.DELIVERED
