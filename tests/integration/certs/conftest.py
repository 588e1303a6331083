from collections.abc import AsyncIterator

import pytest
from fix_moto import moto
from fix_pebble import pebble
from fix_postgres import db_settings, postgres, postgres_server
from fix_valkey import valkey, valkey_server

from smtp_proxy.config import Settings
from smtp_proxy.store import Store

__all__ = ["db_settings", "moto", "pebble", "postgres", "postgres_server", "valkey", "valkey_server"]


@pytest.fixture
async def store(db_settings: Settings) -> AsyncIterator[Store]:
    """A store on a database of this test's own."""
    opened = await Store.connect(db_settings, purpose="test", accepts=False)
    yield opened
    await opened.close()
