"""Clients in a process of their own, so that their time is not the server's: connect, log in, go, again and again.

`python tls_sessions.py PORT CA_FILE NAME USER PASSWORD CLIENTS` works until its standard input ends and prints a line
of JSON. Every second client names no server.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
from dataclasses import asdict, dataclass, field

from senders import Wire


@dataclass
class Tally:
    """What became of the sessions."""

    sessions: int = 0
    failures: list[str] = field(default_factory=list)
    certificates: list[str] = field(default_factory=list)  # those that were shown, serial numbers


async def connected(port: int, context: ssl.SSLContext, name: str | None) -> Wire:
    """A greeted connection under TLS; the chain is verified, and the name where one is asked for."""
    context.check_hostname = name is not None
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name or ""))
    await wire.expect(220)
    return wire


async def one_client(port: int, context: ssl.SSLContext, name: str | None, login: str, tally: Tally) -> None:
    while True:
        try:
            wire = await connected(port, context, name)
            shown = wire.writer.get_extra_info("peercert")["serialNumber"]
            if shown not in tally.certificates:
                tally.certificates.append(shown)
            await wire.command(250, "EHLO client.example")
            await wire.command(235, f"AUTH PLAIN {login}")
            await wire.command(221, "QUIT")
            await wire.close()
        except Exception as error:  # Whatever it is, it is what the test is about.
            tally.failures.append(repr(error))
        else:
            tally.sessions += 1


async def main(port: int, ca_file: str, name: str, user: str, password: str, clients: int) -> None:
    tally = Tally()
    login = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    names = [name if number % 2 else None for number in range(clients)]
    contexts = [ssl.create_default_context(cafile=ca_file) for _ in names]
    working = [
        asyncio.create_task(one_client(port, context, each, login, tally))
        for context, each in zip(contexts, names, strict=True)
    ]
    await asyncio.to_thread(sys.stdin.read)
    for client in working:
        client.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    sys.stdout.write(json.dumps(asdict(tally)))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:6], int(sys.argv[6])))
