"""A process of its own: many sessions that have said EHLO (under TLS, if asked for) and then say nothing.

It tells `ready` when all stand; for each line on its standard input, how many of them still answer; and drops them when
that ends.
Usage: python -m benches.load.hold COUNT PORT [CA_FILE]
"""

from __future__ import annotations

import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

_AT_ONCE = 32  # some servers wait before they greet: smtp-server 100 ms
_PER_ADDRESS = 250  # as many clients, not as one that has everything


def hold(count: int, port: int, context: ssl.SSLContext | None) -> list[socket.socket]:
    """Raises OSError: the server did not answer as it should."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(lambda number: _session(number, port, context), range(count)))


def _session(number: int, port: int, context: ssl.SSLContext | None) -> socket.socket:
    # All of 127.0.0.0/8 is this machine.
    address = f"127.0.1.{1 + number // _PER_ADDRESS}"
    session = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(address, 0))
    if context is not None:
        session = context.wrap_socket(session, server_hostname="localhost")
    _expect(session, b"220")
    session.sendall(b"EHLO idle.invalid\r\n")
    _expect(session, b"250")
    return session


def _expect(session: socket.socket, code: bytes) -> None:
    reply = b""
    while not reply.endswith(b"\r\n") or reply.splitlines()[-1][3:4] != b" ":
        piece = session.recv(4096)
        if not piece:
            raise ConnectionResetError("the server hung up")
        reply += piece
    if not reply.startswith(code):
        raise ConnectionRefusedError(repr(reply))


def _answers(session: socket.socket) -> bool:
    try:
        session.sendall(b"NOOP\r\n")
        _expect(session, b"250")
    except OSError:
        return False
    return True


def main() -> None:
    count, port = int(sys.argv[1]), int(sys.argv[2])
    context = ssl.create_default_context(cafile=sys.argv[3]) if len(sys.argv) > 3 else None
    held = hold(count, port, context)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(sum(map(_answers, held)), flush=True)
    for session in held:
        session.close()


if __name__ == "__main__":
    main()
