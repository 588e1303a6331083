from collections.abc import Callable

from fix_worker import house
from virtual_time import VirtualTimeLoop

__all__ = ["house"]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], VirtualTimeLoop]]:
    """All tests of this folder: no second of theirs is a real one."""
    return {"virtual-time": VirtualTimeLoop}
