from pathlib import Path

import pytest

from smtp_proxy.planning import stack as stacks
from smtp_proxy.planning.message_costs import MessageCosts, read_costs
from smtp_proxy.planning.prices import Prices, read_prices
from smtp_proxy.planning.stack import Stack

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def production() -> Stack:
    return stacks.load(ROOT / "terraform/stack.yaml", "production")


@pytest.fixture
def costs() -> MessageCosts:
    return read_costs()


@pytest.fixture
def prices() -> Prices:
    return read_prices()
