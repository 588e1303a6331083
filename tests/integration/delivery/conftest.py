from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop
from certificates import Authority
from fix_valkey import valkey, valkey_server

from smtp_proxy.delivery.leg import Routes
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.smtp import SmtpTransport

__all__ = ["authority", "transport_to", "valkey", "valkey_server"]

TransportTo = Callable[..., SmtpTransport]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The worker runs on uvloop; whatever is true of a delivery there is true on asyncio's own loop."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def transport_to() -> AsyncIterator[TransportTo]:
    """`transport_to(port, connections=1, ...)`: a transport, closed at the end.

    Who waits for a time-out says which; for all others it is long, for the machine may stand still for a moment.
    """
    made: list[SmtpTransport] = []
    simple = Route(
        "127.0.0.1",
        25,
        "none",
        "proxy.example",
        connections=2,
        connect_timeout_seconds=30.0,
        command_timeout_seconds=30.0,
        data_timeout_seconds=30.0,
    )

    def make(port: int, **changes: object) -> SmtpTransport:
        made.append(SmtpTransport(Routes(dataclasses.replace(simple, port=port, **changes))))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for transport in made:
        await transport.close()
