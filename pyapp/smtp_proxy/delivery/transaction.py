"""One mail transaction on a ready connection: MAIL, RCPT for every recipient, DATA, the message.

With PIPELINING (RFC 2920) the commands up to DATA travel in one write and the replies are read in one go; without, one
by one. What each recipient gets is decided the same way from the same replies in both cases.

A transaction that ends early leaves the server with an open one; `needs_reset` puts RSET in front of the next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from smtp_proxy.delivery.classify import from_reply, no_reply, unknown
from smtp_proxy.delivery.connection import CHUNK_BYTES
from smtp_proxy.delivery.dsn import on_the_wire
from smtp_proxy.delivery.transport import NO_LEDGER
from smtp_proxy.delivery.wire import END_OF_DATA
from smtp_proxy.model.attempt import Kind
from smtp_proxy.model.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smtp_proxy.delivery.connection import Connection
    from smtp_proxy.delivery.message import Message
    from smtp_proxy.delivery.reply import Reply
    from smtp_proxy.delivery.route import Route
    from smtp_proxy.delivery.transport import Ledger
    from smtp_proxy.model.attempt import RecipientResult

_OUTCOME_UNKNOWN: Final = "after the final dot, so whether it was taken is unknown"


@record(frozen=True, slots=True)
class Addressee:
    """A recipient as it goes on the wire."""

    number: int
    path: bytes
    dsn: str = ""  # parameters of RCPT, for a server that offers DSN


@dataclass(slots=True)
class Transcript:
    """What one transaction came to. `results` holds one result per recipient that has one."""

    results: dict[int, RecipientResult]
    # The server ended the connection, or announced to (421), before anything of the message was sent.
    hung_up: bool = False


async def transact(
    connection: Connection,
    route: Route,
    message: Message,
    addressees: Sequence[Addressee],
    ledger: Ledger = NO_LEDGER,
) -> Transcript:
    """Offer `message` to `addressees`. What the server or the network does ends up in the transcript."""
    return await _Transaction(connection, route, message, addressees, ledger).run()


class _Transaction:
    def __init__(
        self,
        connection: Connection,
        route: Route,
        message: Message,
        addressees: Sequence[Addressee],
        ledger: Ledger,
    ) -> None:
        self._ledger = ledger
        self._connection = connection
        self._route = route
        self._message = message
        self._addressees = addressees
        self._timeout = route.command_timeout_seconds
        self._transcript = Transcript({})

    async def run(self) -> Transcript:
        connection = self._connection
        connection.messages += 1
        if connection.capabilities.pipelining:
            replies = await self._ask_at_once()
        else:
            replies = await self._ask_one_by_one()
        await self._decide(replies)
        return self._transcript

    # -- the questions: RSET if one is due, MAIL, RCPT..., DATA

    def _commands(self) -> list[bytes]:
        capabilities = self._connection.capabilities
        utf8_recipient = any(not addressee.path.isascii() for addressee in self._addressees)
        mail = self._message.mail_command(capabilities, utf8_recipient=utf8_recipient)
        recipients = [b"RCPT TO:<" + addressee.path + b">" for addressee in self._addressees]
        if capabilities.dsn:
            smtputf8 = self._message.asks_smtputf8(capabilities, utf8_recipient=utf8_recipient)
            for place, addressee in enumerate(self._addressees):
                if addressee.dsn:
                    recipients[place] += on_the_wire(addressee.dsn, smtputf8=smtputf8)
        return [mail, *recipients, b"DATA"]

    async def _ask_at_once(self) -> list[Reply]:
        connection = self._connection
        commands = self._commands()
        resetting = connection.needs_reset
        if resetting:
            commands.insert(0, b"RSET")
            connection.needs_reset = False
        connection.ask(b"\r\n".join(commands) + b"\r\n")
        replies = await connection.replies(len(commands), self._timeout)
        if resetting and replies and replies[0].code != 421:
            self._check_reset(replies.pop(0))
        return replies

    async def _ask_one_by_one(self) -> list[Reply]:
        """Stop where asking on makes no sense: MAIL refused, or no recipient accepted (then no DATA)."""
        connection = self._connection
        if connection.needs_reset:
            connection.needs_reset = False
            for reply in await self._ask(b"RSET"):
                self._check_reset(reply)
        replies: list[Reply] = []
        mail, *recipients, data = self._commands()
        for command in (mail, *recipients):
            replies += await self._ask(command)
            if not replies or replies[-1].code == 421 or not _accepted(replies[0]):
                return replies
        if any(_accepted(reply) for reply in replies[1:]):
            replies += await self._ask(data)
        return replies

    async def _ask(self, command: bytes) -> list[Reply]:
        self._connection.ask(command + b"\r\n")
        return await self._connection.replies(1, self._timeout)

    def _check_reset(self, reply: Reply) -> None:
        if not _accepted(reply):
            self._connection.abort(f"RSET was refused: {reply.code} {reply.text}")

    # -- the answers

    async def _decide(self, replies: list[Reply]) -> None:
        """Give every recipient its result, and send the message if anyone wants it."""
        mail = replies[0] if replies else None
        if mail is None or mail.code == 421:
            self._hung_up(mail)
        elif not _accepted(mail):
            for addressee in self._addressees:
                self._answer(addressee, mail)
            await self._take_back_data(replies)
        else:
            await self._decide_recipients(replies)

    async def _decide_recipients(self, replies: list[Reply]) -> None:
        wanted: list[Addressee] = []
        for addressee, reply in zip(self._addressees, replies[1:], strict=False):
            if _accepted(reply):
                wanted.append(addressee)
            else:
                self._answer(addressee, reply)
        answered = len(self._addressees) + 1
        data = replies[answered] if len(replies) > answered else None
        broken_off = len(replies) < answered or (data is None and wanted) or replies[-1].code == 421
        if broken_off:
            self._hung_up(replies[-1] if replies[-1].code == 421 else None)
        elif not wanted:
            self._connection.needs_reset = True
            await self._take_back_data(replies)
        elif data is not None and data.code == 354:
            await self._send_if_it_is_ours(wanted)
        elif data is not None and data.code < 400:
            # Nothing was sent, so nothing can have been taken; from here on nobody knows what answers what.
            text = f"the server broke the protocol: {data.code} to DATA"
            self._connection.abort(text)
            self._unanswered(wanted, text)
        elif data is not None:
            self._connection.needs_reset = True
            self._answer_all(wanted, data)

    async def _take_back_data(self, replies: list[Reply]) -> None:
        """DATA was pipelined and nobody is left to receive: should the server say 354 to it, send nothing but the dot.

        RFC 2920 3.1. Whatever it answers to that changes no result.
        """
        if len(replies) == len(self._addressees) + 2 and replies[-1].code == 354:
            self._connection.send(END_OF_DATA)
            await self._connection.replies(1, self._route.data_timeout_seconds)

    async def _send_if_it_is_ours(self, wanted: list[Addressee]) -> None:
        """From here on nobody can know what became of it, unless an answer comes: so that is written down first."""
        if await self._ledger.sending([addressee.number for addressee in wanted], self._route.remote):
            await self._send_message(wanted)
        else:
            text = "not sent: the message may be with another worker by now"
            self._connection.abort(text)
            self._unanswered(wanted, text, Kind.LOCAL)  # which says nothing of the next hop

    async def _send_message(self, wanted: list[Addressee]) -> None:
        connection = self._connection
        data = self._message.data
        if connection.has_reply:
            # Whose answer is it? Nobody can say, so it is nobody's.
            connection.abort("the server answered before the message was sent")
            self._unanswered(wanted, "the server answered before the message was sent")
            return
        handed_over = True
        if len(data) <= CHUNK_BYTES:
            connection.send(data)
            finished = connection.failure is None
        else:
            handed_over = await connection.send_large(data, self._timeout)
            finished = connection.failure is None and not connection.has_reply
        replies = await connection.replies(1, self._route.data_timeout_seconds)
        if not replies:
            text = connection.failure or "the connection was closed"
            if finished:
                self._unknown(wanted, f"{text}, {_OUTCOME_UNKNOWN}")
            else:
                self._unanswered(wanted, f"{text}, within the message")
            return
        if replies[0].code < 400 and not (handed_over and connection.has_sent_all):
            # Whatever it says it has taken, it was not this message: its end never left.
            text = f"the server answered {replies[0].code} within the message"
            connection.abort(text)
            self._unanswered(wanted, text)
            return
        self._answer_all(wanted, replies[0])
        if not finished:
            connection.abort("the server answered within the message")

    def _hung_up(self, reply: Reply | None) -> None:
        """421, or no reply: the rest stays open."""
        self._transcript.hung_up = True
        unanswered = [a for a in self._addressees if a.number not in self._transcript.results]
        if reply is not None:
            self._answer_all(unanswered, reply)
            self._connection.abort(f"the server closed the service: {reply.code} {reply.text}")
        else:
            self._unanswered(unanswered, self._connection.failure or "the connection was closed")

    def _answer_all(self, addressees: list[Addressee], reply: Reply) -> None:
        for addressee in addressees:
            self._answer(addressee, reply)

    def _answer(self, addressee: Addressee, reply: Reply) -> None:
        result = from_reply(addressee.number, reply, self._route.remote)
        if addressee.dsn and self._connection.capabilities.dsn:
            result = replace(result, dsn_passed_on=True)
        self._transcript.results[addressee.number] = result

    def _unanswered(self, addressees: list[Addressee], text: str, kind: Kind = Kind.UNKNOWN) -> None:
        for addressee in addressees:
            self._transcript.results[addressee.number] = no_reply(addressee.number, text, self._route.remote, kind)

    def _unknown(self, addressees: list[Addressee], text: str) -> None:
        for addressee in addressees:
            self._transcript.results[addressee.number] = unknown(addressee.number, text, self._route.remote)


def _accepted(reply: Reply) -> bool:
    return 200 <= reply.code <= 299
