"""A process of its own: says yes to every AUTH PLAIN that Postfix asks it about, in Dovecot's authentication protocol 1.2.

Next to nothing, so that Postfix is charged for no password hash. Usage: python -m benches.load.auth_for_postfix SOCKET
"""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path

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


async def serve(path: Path) -> None:
    server = await asyncio.start_unix_server(_serve_one, path)
    path.chmod(0o666)  # smtpd is another user
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
