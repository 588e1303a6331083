"""A process of its own: says yes to every AUTH PLAIN that Postfix asks about, in Dovecot's authentication protocol.

Next to nothing, so that Postfix is charged for no password hash. Usage: python -m benches.load.auth_for_postfix SOCKET
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys

# https://doc.dovecot.org/developer_manual/design/auth_protocol/
_HELLO = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t%s\nDONE\n" % (b"0" * 32)


async def _serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_HELLO)
    while line := await reader.readline():
        command, *fields = line.rstrip(b"\n").split(b"\t")
        if command == b"AUTH":
            writer.write(b"OK\t%s\tuser=%s\n" % (fields[0], _user(fields)))
    writer.close()


def _user(fields: list[bytes]) -> bytes:
    """RFC 4616: authorisation identity, NUL, user name, NUL, password."""
    response = next(field.removeprefix(b"resp=") for field in fields if field.startswith(b"resp="))
    return base64.b64decode(response).split(b"\0")[1]


async def serve(path: str) -> None:
    os.umask(0)  # smtpd is another user
    server = await asyncio.start_unix_server(_serve_one, path)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
