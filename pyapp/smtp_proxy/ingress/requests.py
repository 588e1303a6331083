"""Who may ask for new certificates: a command (`control`), SIGHUP, the database, and changed files (`reload`).

The control socket also answers what else may be asked of the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any, Protocol

from smtp_proxy.certfiles.sync import CertificateSync
from smtp_proxy.clock import SystemClock
from smtp_proxy.errors import SmtpProxyError
from smtp_proxy.ingress import control
from smtp_proxy.ingress.ocsp_fetch import ResponseFetcher
from smtp_proxy.telemetry.tasks import end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from smtp_proxy.config import Settings
    from smtp_proxy.ingress.control import Verb
    from smtp_proxy.ingress.reload import Reloader
    from smtp_proxy.telemetry.lifecycle import Lifecycle


class CertificateNews(Protocol):
    """What is needed of the store."""

    async def listen_certificates(self, callback: Callable[[], None]) -> None: ...


@contextlib.asynccontextmanager
async def reloading(
    settings: Settings,
    lifecycle: Lifecycle,
    store: CertificateNews,
    reloader: Reloader,
    verbs: Mapping[str, Verb],
    sync: CertificateSync | None = None,
) -> AsyncIterator[None]:
    """Reload certificates, whoever asks for it, while the block runs.

    `verbs`: what else a command may ask for; `sync`: brings the store's certificates into the files first.
    """
    loop, asked = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    async def at_signal() -> None:
        with contextlib.suppress(SmtpProxyError):  # It has been logged.
            await reloader.reload("SIGHUP")

    def hung_up() -> None:
        task = asyncio.create_task(at_signal(), name="reload")
        asked.add(task)
        task.add_done_callback(asked.discard)

    async def reload(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"certificates": await reloader.reload("socket")}

    async def listed(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"certificates": reloader.listed()}

    fetcher = ResponseFetcher(settings, SystemClock(), reloader.notice)
    fetching = [asyncio.create_task(fetcher.run(), name="ocsp")] if settings.tls_ocsp_fetch else []
    watches = [
        *fetching,
        asyncio.create_task(reloader.watch(fetcher.notice), name="certificate-watch"),
        asyncio.create_task(
            store.listen_certificates(reloader.notice) if sync is None else sync.run(reloader.notice),
            name="certificate-news",
        ),
    ]
    for watch in watches:
        lifecycle.watch(watch)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    try:
        async with control.serve(settings.control_socket, {"reload": reload, "certificates": listed, **verbs}):
            yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        await end([*watches, *asked])
