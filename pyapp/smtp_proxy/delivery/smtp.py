"""SMTP as a transport: every leg of a job to its route's pool, one transaction for all the recipients of a leg.

Not here: the store, retries after a while, and any judgement on the sender. A result goes back for every recipient,
whatever happens on the wire.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from smtp_proxy.delivery.classify import from_reply, is_login_trouble, no_reply, on_route, refused_here
from smtp_proxy.delivery.dsn import rcpt_parameters
from smtp_proxy.delivery.governor import Blocked, Busy, Governor
from smtp_proxy.delivery.message import Message, compose
from smtp_proxy.delivery.not_ready import NotReady
from smtp_proxy.delivery.pool import Idle, Pool
from smtp_proxy.delivery.recent import make_room
from smtp_proxy.delivery.rules import advice_for
from smtp_proxy.delivery.sign import CannotSign, Signatures, Unsigned
from smtp_proxy.delivery.transaction import Addressee, Transcript, transact
from smtp_proxy.delivery.transport import NO_LEDGER
from smtp_proxy.delivery.turn import FREE_TURN, SharedTurn, Turn
from smtp_proxy.delivery.wire import UnfitForWire, path_bytes, unstuffed
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult
from smtp_proxy.model.lane import Lane
from smtp_proxy.model.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from smtp_proxy.delivery.capabilities import Capabilities
    from smtp_proxy.delivery.connection import Connection
    from smtp_proxy.delivery.leg import Leg, Planner
    from smtp_proxy.delivery.provider import Provider
    from smtp_proxy.delivery.route import Route
    from smtp_proxy.delivery.sign import Dkim, Signer
    from smtp_proxy.delivery.transport import Ledger
    from smtp_proxy.model.envelope import Envelope, Job, Recipient

log = logging.getLogger(__name__)

# Before those without a connection are let go.
MOST_POOLS: Final = 1000
# Connections that wait to be used again, of all pools.
MOST_IDLE: Final = 2000


class SmtpTransport:
    """Delivers over SMTP; see `delivery.transport.Transport`."""

    def __init__(self, routes: Planner, signer: Signer | None = None, governor: Governor | None = None) -> None:
        self._routes = routes
        self._governor = governor or Governor()
        self._signer = signer or Unsigned()
        self._pools: OrderedDict[Route, Pool] = OrderedDict()
        self._idle = Idle(_most_idle())

    async def deliver(self, job: Job, ledger: Ledger = NO_LEDGER, turn: Turn = FREE_TURN) -> list[RecipientResult]:
        """Offer the job to its next hops; one result per recipient, in the job's order."""
        legs = await self._routes.plan(job)
        signatures = Signatures(self._signer, job.envelope, legs=len(legs))
        if len(legs) == 1:
            results = await self._deliver_leg(job, legs[0], signatures, ledger, turn)
        else:
            shared = SharedTurn(turn, len(legs))
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._deliver_one_of(job, leg, signatures, ledger, shared)) for leg in legs]
            results = {number: result for task in tasks for number, result in task.result().items()}
        return [results[recipient.number] for recipient in job.recipients]

    async def close(self) -> None:
        """Say QUIT on every idle connection."""
        for pool in self._pools.values():
            await pool.close()
        await self._governor.close()

    async def _deliver_one_of(
        self, job: Job, leg: Leg, signatures: Signatures, ledger: Ledger, turn: SharedTurn
    ) -> dict[int, RecipientResult]:
        try:
            return await self._deliver_leg(job, leg, signatures, ledger, turn)
        finally:
            turn.ended()

    async def _deliver_leg(
        self, job: Job, leg: Leg, signatures: Signatures, ledger: Ledger, turn: Turn
    ) -> dict[int, RecipientResult]:
        """Results by the recipients' numbers."""
        if not leg.candidates:
            return {result.number: result for result in leg.decided}
        first = leg.candidates[0]
        results: dict[int, RecipientResult] = {}
        addressees = _addressees(leg.recipients, first, results)
        if not addressees:
            return results
        account = _Account(ledger)
        errand = _Errand(job.envelope.tenant_id, _Copies(job.envelope, signatures), account, turn, job.lane)
        try:
            await self._send(leg.candidates, errand, addressees, results)
        except UnfitForWire as reason:  # of the first copy that was made, so nothing was sent
            for addressee in addressees:
                results[addressee.number] = _unfit(addressee.number, reason, first)
        except Exception:
            # A fault of ours on this way: the other ways, and what was answered on this one, stand.
            log.exception("a delivery by route %s failed in an unforeseen way", first.name)
            for addressee in addressees:
                results.setdefault(addressee.number, account.after_crash(addressee.number, first))
        return {number: on_route(result, first.name) for number, result in results.items()}

    async def _send(
        self,
        candidates: Sequence[Route],
        errand: _Errand,
        addressees: list[Addressee],
        results: dict[int, RecipientResult],
    ) -> None:
        """Transactions until every addressee has a result: one, unless the server takes only so many at a time."""
        waiting = addressees
        while waiting:
            transcript = await self._transact_with_any(candidates, errand, waiting)
            results.update(transcript.results)
            again = [a for a in waiting if _is_one_too_many(transcript.results[a.number])]
            # Some were taken, so the next transaction has fewer: this ends.
            waiting = again if len(again) < len(waiting) and _any_taken(transcript) else []

    async def _transact_with_any(
        self, candidates: Sequence[Route], errand: _Errand, addressees: list[Addressee]
    ) -> Transcript:
        """Run one transaction with the first candidate that lets us begin.

        If none does: back to the queue if one of them is merely busy, or what the last one said that was asked at all.
        The latter alone if the ledger knows of an attempt, which has to be given an end.
        """
        said: Transcript | None = None
        kept_back: Transcript | None = None
        turned_away: tuple[Route, float] | None = None
        for place, route in enumerate(candidates):
            try:
                message = await errand.copies.of(route)
                permit = await self._governor.enter(route, errand.tenant, errand.turn, errand.lane)
            except Busy as busy:
                kept_back, turned_away = _not_asked(addressees, route, str(busy), busy.seconds), (route, busy.seconds)
                continue
            except (Blocked, CannotSign) as trouble:
                kept_back = kept_back or _not_asked(addressees, route, str(trouble))
                continue
            transcript = None
            try:
                transcript = await self._transact(route, message, addressees, errand.ledger)
            finally:
                self._governor.leave(permit, transcript)
            if not transcript.hung_up:
                return transcript
            if _is_postponed(transcript):  # by a provider's own pace
                kept_back, turned_away = transcript, None
                continue
            said = transcript
            if place + 1 < len(candidates):
                log.info("%s: going on to the next candidate", route.remote, extra={"action": "fail_over"})
        if said is None or (kept_back is not None and _is_postponed(kept_back) and not errand.ledger.has_asked):
            if turned_away is not None:
                self._governor.sent_back(*turned_away)
            return kept_back or Transcript({})
        return said

    async def _transact(
        self, route: Route, message: Message, addressees: list[Addressee], ledger: _Account
    ) -> Transcript:
        """Run one transaction, a second time on a fresh connection if a reused one turns out to be dead."""
        if route.provider is not None:
            transcript = await _offer(route.provider, message, addressees, ledger)
            _report_what_to_set(transcript, route)
            return transcript
        pool = self._pool(route)
        fresh = False
        while True:
            try:
                connection, reused = await pool.acquire(fresh=fresh)
            except NotReady as trouble:
                return _not_ready(trouble, addressees, route)
            try:
                transcript = await _on(connection, route, message, addressees, ledger)
            except BaseException:
                connection.abort("the delivery was broken off")
                raise
            finally:
                pool.release(connection)
            if not (transcript.hung_up and reused and not fresh):
                _report_login_trouble(transcript, route)
                _report_what_to_set(transcript, route)
                return transcript
            fresh = True

    def _pool(self, route: Route) -> Pool:
        pool = self._pools.get(route)
        if pool is None:
            # Routes come and go, by domains and by changed files; what has no connection has nothing to lose.
            make_room(self._pools, MOST_POOLS, lambda pool: not pool.open_connections)
            pool = self._pools[route] = Pool(route, self._idle)
        else:
            self._pools.move_to_end(route)
        return pool


def _most_idle() -> int:
    """A quarter of the descriptors of this process: the others are for mail under way, Postgres, Redis, webhooks."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_IDLE if soft == resource.RLIM_INFINITY else max(1, min(MOST_IDLE, soft // 4))


async def _offer(provider: Provider, message: Message, addressees: list[Addressee], ledger: _Account) -> Transcript:
    recipients = [(addressee.number, addressee.path.decode()) for addressee in addressees]
    offered = await provider.offer(unstuffed(message.data), recipients, ledger)
    if not offered.turned_away:  # else the candidates are asked on, and what was asked before is looked at there
        for number, result in offered.results.items():
            if result.postponed_seconds and ledger.has_asked_for(number):
                offered.results[number] = replace(result, postponed_seconds=0.0)
    return Transcript(offered.results, hung_up=offered.turned_away)


class _Copies:
    """The message as each next hop wants it signed; those that want the same get the same."""

    __slots__ = ("_envelope", "_made", "_signatures")

    def __init__(self, envelope: Envelope, signatures: Signatures) -> None:
        self._envelope = envelope
        self._signatures = signatures
        self._made: dict[Dkim, Message] = {}

    async def of(self, route: Route) -> Message:
        """Raises UnfitForWire, CannotSign."""
        message = self._made.get(route.dkim)
        if message is None:
            signature = await self._signatures.of(route.dkim)
            message = compose(self._envelope, route.client_name, hide_client=route.hide_client, signature=signature)
            self._made[route.dkim] = message
        return message


@record(frozen=True, slots=True)
class _Errand:
    """What goes to whichever candidate takes it."""

    tenant: UUID
    copies: _Copies
    ledger: _Account
    turn: Turn
    lane: Lane


class _Account:
    """A ledger that remembers whose copy may be out."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._sent: set[int] = set()

    @property
    def has_asked(self) -> bool:
        """Whether an attempt was written down."""
        return bool(self._sent)

    def has_asked_for(self, number: int) -> bool:
        """Whether an attempt for this recipient was written down, which has to be given an end."""
        return number in self._sent

    async def sending(self, recipient_numbers: Sequence[int], remote: str = "") -> bool:
        wrote = await self._ledger.sending(recipient_numbers, remote)
        if wrote:
            self._sent.update(recipient_numbers)
        return wrote

    def after_crash(self, number: int, route: Route) -> RecipientResult:
        outcome = Outcome.UNKNOWN if number in self._sent else Outcome.DEFERRED
        text = "internal error, see the worker's log"
        return RecipientResult(number, outcome, 0, "", text, route.remote, Kind.LOCAL)


async def _on(
    connection: Connection, route: Route, message: Message, addressees: list[Addressee], ledger: Ledger
) -> Transcript:
    """Leave out what this server cannot be given, offer the rest."""
    capabilities = connection.capabilities
    if (objection := message.objection(capabilities)) is not None:
        refused = (refused_here(a.number, objection.enhanced_code, objection.text, route.remote) for a in addressees)
        return Transcript({result.number: result for result in refused})
    left_out = _without_smtputf8(addressees, capabilities, route)
    remaining = [a for a in addressees if a.number not in left_out] if left_out else addressees
    transcript = await transact(connection, route, message, remaining, ledger) if remaining else Transcript({})
    transcript.results.update(left_out)
    return transcript


def _without_smtputf8(
    addressees: Sequence[Addressee], capabilities: Capabilities, route: Route
) -> dict[int, RecipientResult]:
    """Recipients whose addresses are not ASCII, where the server has no SMTPUTF8 (RFC 6531 3.2)."""
    if capabilities.smtputf8:
        return {}
    text = "the recipient's address needs SMTPUTF8, which the server does not offer"
    return {a.number: refused_here(a.number, "5.6.7", text, route.remote) for a in addressees if not a.path.isascii()}


def _addressees(recipients: Sequence[Recipient], route: Route, results: dict[int, RecipientResult]) -> list[Addressee]:
    """Encode the recipients; those that may not be sent as they are get their result here."""
    addressees = []
    for recipient in recipients:
        try:
            path = path_bytes(recipient.address, "5.1.3")
            addressees.append(Addressee(recipient.number, path, rcpt_parameters(recipient)))
        except UnfitForWire as reason:
            results[recipient.number] = _unfit(recipient.number, reason, route)
    return addressees


def _unfit(number: int, reason: UnfitForWire, route: Route) -> RecipientResult:
    return refused_here(number, reason.enhanced_code, str(reason), route.remote)


def _is_one_too_many(result: RecipientResult) -> bool:
    """RFC 5321 4.5.3.1.10: the server takes no more recipients in this transaction, but will in another."""
    return result.reply_code in (452, 552) and result.enhanced_code in ("", "4.5.3", "5.5.3")


def _any_taken(transcript: Transcript) -> bool:
    return any(result.outcome is Outcome.DELIVERED for result in transcript.results.values())


def _not_asked(addressees: list[Addressee], route: Route, text: str, postponed_seconds: float = 0.0) -> Transcript:
    """Nothing was asked of the next hop. Counted as an attempt unless postponed."""
    return Transcript(
        {
            a.number: RecipientResult(
                a.number, Outcome.DEFERRED, 0, "", text, route.remote, Kind.LOCAL, postponed_seconds=postponed_seconds
            )
            for a in addressees
        },
        hung_up=True,
    )


def _is_postponed(transcript: Transcript) -> bool:
    return any(result.postponed_seconds for result in transcript.results.values())


def _not_ready(trouble: NotReady, addressees: list[Addressee], route: Route) -> Transcript:
    if trouble.operator:
        log.error("%s (route %s): %s", route.remote, route.name, trouble)
    transcript = Transcript({}, hung_up=True)
    for addressee in addressees:
        result = no_reply(addressee.number, str(trouble), route.remote)
        if trouble.reply is not None:
            said = from_reply(addressee.number, trouble.reply, route.remote)
            result = RecipientResult(
                addressee.number,
                Outcome.DEFERRED,
                said.reply_code,
                said.enhanced_code,
                result.reply_text,
                route.remote,
                said.kind,
            )
        transcript.results[addressee.number] = result
    return transcript


def _report_what_to_set(transcript: Transcript, route: Route) -> None:
    """What it said is for somebody here to mend, and a rule knows how."""
    for result in transcript.results.values():
        if result.outcome is Outcome.DEFERRED and (advice := advice_for(result)):
            text = f"{result.reply_code} {result.reply_text}; {advice}"
            log.error("%s (route %s): %s", route.remote, route.name, text, extra={"action": "setting_wanted"})
            return


def _report_login_trouble(transcript: Transcript, route: Route) -> None:
    for result in transcript.results.values():
        if is_login_trouble(result.reply_code):
            log.error(
                "%s (route %s) wants another login: %s %s",
                route.remote,
                route.name,
                result.reply_code,
                result.reply_text,
            )
            return
