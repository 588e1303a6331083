from collections.abc import Callable

from virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], VirtualTimeLoop]]:
    """All tests of this folder: no second of theirs is a real one."""
    return {"virtual-time": VirtualTimeLoop}
