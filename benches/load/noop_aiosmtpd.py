"""A process of its own: aiosmtpd with a handler that keeps nothing. The least that aiosmtpd can cost."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aiosmtpd.smtp import SMTP


class Nothing:
    """Says yes to everything."""

    async def handle_DATA(self, _server: SMTP, _session: Any, _envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        return "250 2.0.0 discarded"


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    handler = Nothing()
    server = await loop.create_server(lambda: SMTP(handler, loop=loop), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
