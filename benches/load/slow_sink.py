"""`python -m benches.load.slow_sink PORT SECONDS`: takes any mail, and answers the final dot so many seconds later.

What a next hop costs a worker is then waiting and not CPU, so that on a small machine several workers deliver several
times as much as one.
"""

from __future__ import annotations

import asyncio
import sys

_BACKLOG = 1024
_LIMIT_BYTES = 2**20


async def _session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    def say(line: str) -> None:
        writer.write(line.encode() + b"\r\n")

    say("220 slow.example")
    while line := await reader.readline():
        verb = line[:4].upper()
        if verb == b"EHLO":
            say("250-slow.example")
            say("250-PIPELINING")
            say("250 8BITMIME")
        elif verb == b"DATA":
            say("354 go on")
            await writer.drain()
            while (await reader.readline()) not in (b".\r\n", b""):
                pass
            await asyncio.sleep(seconds)
            say("250 2.0.0 taken")
        elif verb == b"QUIT":
            say("221 2.0.0 bye")
            break
        else:
            say("250 2.0.0 ok")
        await writer.drain()
    writer.close()


async def serve(port: int, seconds: float) -> None:
    """On loopback, until it is told to end."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _session(reader, writer, seconds)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", port, backlog=_BACKLOG, limit=_LIMIT_BYTES)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
