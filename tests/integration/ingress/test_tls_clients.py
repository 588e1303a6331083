"""TLS stacks of others: on 465 the greeting comes with the server's part of the handshake, which not all may expect."""

from __future__ import annotations

import asyncio

import pytest
from certificates import Authority
from fix_ingress import House
from programs import program

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

ANY = "NORMAL:-VERS-ALL:+VERS-TLS"


@pytest.mark.parametrize(
    "options",
    [("--priority", f"{ANY}1.3"), ("--priority", f"{ANY}1.2"), ("--resume", "--priority", f"{ANY}1.3"),
     ("--resume", "--priority", f"{ANY}1.2")],
    ids=["1.3", "1.2", "1.3 again", "1.2 again"],
)  # fmt: skip
async def test_gnutls(house: House, authority: Authority, options: tuple[str, ...]) -> None:
    client = await asyncio.create_subprocess_exec(
        program("gnutls-cli", "gnutls-bin"), "--x509cafile", str(authority.ca_file), *options,
        "--port", str(house.addresses["tls"][1]), "localhost",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    heard = b""
    for wanted, then in ((b"\n220 ", b"EHLO x\r\n"), (b"\n250 ", b"QUIT\r\n"), (b"\n221 ", b"")):
        while wanted not in heard:
            read = await client.stdout.read(65_536)
            assert read, heard.decode()
            heard += read
        client.stdin.write(then)
    client.stdin.close()
    rest = await client.stdout.read()
    assert await client.wait() == 0, (heard + rest).decode()
    assert (b"Resume Handshake was completed" in heard) == ("--resume" in options), heard.decode()
