"""Ending tasks for sure."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

_AGAIN_SECONDS: Final = 0.1
_T = TypeVar("_T")


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel until they have ended; what they raise was seen by whoever watches them.

    Once is not enough: in Python 3.11 `asyncio.wait_for`, which redis-py uses, loses a cancellation that comes together
    with the result, and a loop around it goes on.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)


async def finish(work: Coroutine[Any, Any, _T], seconds: float) -> _T:
    """Wait for it. Once we are cancelled it has so many seconds more, however often we are (as by `end`).

    Then CancelledError goes on; what the work raised meanwhile is not told.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _outlast(task, seconds)
        raise


async def _outlast(task: asyncio.Task[Any], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not task.done() and (left := deadline - loop.time()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task], timeout=left)
    if not task.done():
        task.cancel()
    elif not task.cancelled():
        task.exception()  # Seen.
