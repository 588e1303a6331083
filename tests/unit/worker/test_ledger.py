"""Nothing is sent for good before it is written down."""

from __future__ import annotations

import asyncio

from fix_worker import House, eventually

from smtp_proxy.delivery.transport import Ledger
from smtp_proxy.delivery.turn import Turn
from smtp_proxy.model.attempt import Outcome, RecipientResult
from smtp_proxy.model.envelope import DeliveryState, Job


class Careful:
    """Asks the ledger, as a real transport does; `stalls`: never gets an answer to its final dot."""

    def __init__(self, *, stalls: bool = False) -> None:
        self.stalls = stalls
        self.may: list[bool] = []
        self.asked = 0

    async def deliver(self, job: Job, ledger: Ledger, turn: Turn) -> list[RecipientResult]:
        self.asked += 1
        self.may.append(await ledger.sending([r.number for r in job.recipients], "mx:25"))
        if self.stalls:
            await asyncio.Event().wait()
        outcome = Outcome.DELIVERED if self.may[-1] else Outcome.DEFERRED
        return [RecipientResult(r.number, outcome, 250, "", "", "mx:25") for r in job.recipients]

    async def close(self) -> None:
        pass


def careful(house: House, *, stalls: bool = False) -> Careful:
    transport = Careful(stalls=stalls)
    house.worker._transport = transport
    return transport


async def test_many_are_written_down_together_and_then_sent(house: House) -> None:
    transport = careful(house)
    house.start()
    ids = await house.accept(20)
    await house.all_are(ids, DeliveryState.DELIVERED)
    assert transport.may == [True] * 20
    (attempt,) = (await house.store.message(ids[0])).deliveries[0].attempts
    assert attempt.outcome is Outcome.DELIVERED


async def test_without_postgres_nothing_is_sent(house: House) -> None:
    transport = careful(house)
    house.start()
    write = house.store.sending

    async def down_when_asked(sendings: list) -> set:
        house.store.down = True
        return await write(sendings)

    house.store.sending = down_when_asked
    ids = await house.accept(1)
    await eventually(lambda: _true(transport.asked == 1))
    await asyncio.sleep(1)
    assert transport.may == []
    house.store.sending = write
    house.store.down = False
    await house.all_are(ids, DeliveryState.DELIVERED)


async def test_who_leaves_within_a_delivery_counts_it_as_unknown(house: House) -> None:
    transport = careful(house, stalls=True)
    house.start()
    ids = await house.accept(1)
    await eventually(lambda: _true(transport.may == [True]))
    await house.worker.leave()
    (delivery,) = (await house.store.message(ids[0])).deliveries
    assert (delivery.state, delivery.attempt_count) == (DeliveryState.QUEUED, 1)
    assert [a.outcome for a in delivery.attempts] == [Outcome.UNKNOWN]


async def _true(value: bool) -> bool:
    return value
