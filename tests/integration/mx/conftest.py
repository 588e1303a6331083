from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from certificates import Authority
from dns_server import DnsServer


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer().running() as server:
        yield server
