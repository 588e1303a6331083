"""Who comes from where, how often, and how slowly: limits per address, PROXY, delays and bans, on real sockets."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import struct
import time
from collections.abc import Callable

import pytest
from fix_ingress import Client, House, Listener, MakeHouse, eventually
from stopwatch import Stopwatch

from smtp_proxy.cli.entry import run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4, V6 = "198.51.100.7", "2001:db8::7"
TRUSTED = "127.0.0.0/8,::1"


def version_1(client: str) -> bytes:
    server = "2001:db8::1" if ":" in client else "192.0.2.1"
    return f"PROXY TCP{6 if ':' in client else 4} {client} {server} 56324 587\r\n".encode()


def version_2(client: str) -> bytes:
    address = ipaddress.ip_address(client)
    server = ipaddress.ip_address("192.0.2.1" if address.version == 4 else "2001:db8::1")
    # The TLV that AWS adds for a VPC endpoint.
    block = address.packed + server.packed + struct.pack(">HH", 56324, 587) + b"\xea\0\x05\x01vpce"
    return SIGNATURE + bytes([0x21, 0x11 if address.version == 4 else 0x21]) + struct.pack(">H", len(block)) + block


LOCAL = SIGNATURE + b"\x20\0\0\0"
# Headers that do not say who the client is.
UNNAMED = (LOCAL, b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x21\0\0\0")


async def raw(house: House, listener: str) -> Client:
    """A client in plaintext, whatever the listener expects."""
    client = await Client.connect(house.addresses[listener])
    house._clients.append(client)
    return client


async def said_before_closing(client: Client) -> bytes:
    """All that the server says; it may close with something of the client's unread, which resets."""
    try:
        async with asyncio.timeout(20):
            return await client.reader.read()
    except ConnectionResetError:
        return b""


async def introduced(house: House, listener: Listener, header: bytes) -> Client:
    """A client that a proxy hands on: the header in plaintext, whatever comes after it."""
    client = await raw(house, listener)
    client.send(header)
    if listener == "tls":
        await client.start_tls(house.tls)
    await client.expect(220)
    await client.command(250, "EHLO client.example")
    if listener == "starttls":
        await client.command(220, "STARTTLS")
        await client.start_tls(house.tls)
        await client.command(250, "EHLO client.example")
    return client


@pytest.fixture
async def proxied(make_house: MakeHouse) -> House:
    made = await make_house(smtp_proxy_protocol_networks=TRUSTED, smtp_proxy_protocol_timeout_seconds=1.0)
    await made.start()
    return made


@pytest.mark.parametrize("listener", ["starttls", "tls"])
@pytest.mark.parametrize("header", [version_1, version_2])
@pytest.mark.parametrize("address", [V4, V6, f"::ffff:{V4}"])
async def test_the_announced_address_is_the_clients(
    proxied: House, listener: Listener, header: Callable[[str], bytes], address: str
) -> None:
    client = await introduced(proxied, listener, header(address))
    assert (await client.log_in()).startswith("235")
    await client.submit()
    (row,) = await proxied.sql("SELECT client_address FROM envelopes")
    assert row["client_address"] == address.removeprefix("::ffff:")
    await client.hang_up()


async def test_an_allow_list_is_about_the_announced_address(proxied: House) -> None:
    network = ipaddress.ip_network("198.51.100.0/24")
    await proxied.store.set_allowed_networks(proxied.credential.username, (network,))
    for address, code in ((V4, "235"), ("203.0.113.9", "535"), (V6, "535"), (V4, "235")):
        client = await introduced(proxied, "tls", version_2(address))
        assert (await client.log_in()).startswith(code), address
        await client.hang_up()


@pytest.mark.parametrize("header", UNNAMED)
async def test_the_proxys_own_address_is_not_the_clients(proxied: House, header: bytes) -> None:
    """Not even where an allow-list names it: whoever it speaks for is not there."""
    await proxied.store.set_allowed_networks(proxied.credential.username, (ipaddress.ip_network("127.0.0.0/8"),))
    client = await introduced(proxied, "tls", header)
    assert (await client.log_in()).startswith("535")
    await proxied.store.set_allowed_networks(proxied.credential.username, ())
    await eventually(lambda: is_let_in(client))
    await client.submit()
    (row,) = await proxied.sql("SELECT client_address FROM envelopes")
    assert row["client_address"] == "127.0.0.1", "this is what it came from"


async def is_let_in(client: Client) -> bool:
    return (await client.log_in()).startswith("235")


async def test_unnamed_connections_are_limited_together_and_never_banned(make_house: MakeHouse) -> None:
    house = await make_house(
        smtp_max_connections_per_address=3,
        smtp_login_failures_before_ban=2,
        smtp_proxy_protocol_networks=TRUSTED,
    )
    await house.start()
    guesser = await introduced(house, "starttls", UNNAMED[1])
    for number in range(2):
        assert (await guesser.log_in(password=f"guess {number}")).startswith("535")
    assert (await guesser.log_in(password="guess 2")).startswith("535")
    standing = [await introduced(house, "starttls", header) for header in UNNAMED[1:]]
    await eventually(lambda: house.has_counted("connections_active", 2))
    standing.append(await introduced(house, "tls", LOCAL))
    more = await raw(house, "starttls")
    more.send(LOCAL)
    assert (await more.reply()).startswith("421 4.7.0 Too many connections")
    # One who comes as 127.0.0.1, by the proxy, is another; and nobody was banned.
    named = await introduced(house, "starttls", version_1("127.0.0.1"))
    assert (await named.log_in()).startswith("235")
    assert await house.has_counted("login_bans_total", 0)
    assert await house.has_counted("refused_per_address_total", 1)
    for client in (named, *standing):
        await client.hang_up()


async def test_health_checks_are_no_errors(proxied: House) -> None:
    for listener in ("starttls", "tls"):
        silent = await raw(proxied, listener)
        await silent.hang_up()
    local = await introduced(proxied, "starttls", LOCAL)
    await local.command(221, "QUIT")
    await eventually(lambda: proxied.has_counted("proxy_local_total", 3))
    assert await proxied.has_counted("proxy_errors_total", 0)
    assert await proxied.has_counted("tls_failures_total", 0)


@pytest.mark.parametrize(
    "first", [b"EHLO client.example\r\n", b"PROXY TCP4 no 1 2 3\r\n", b"\x16\x03\x01\0\x05", b"PRO"]
)
async def test_from_a_proxy_the_header_is_required_and_soon(proxied: House, first: bytes) -> None:
    for listener in ("starttls", "tls"):
        client = await raw(proxied, listener)
        began = time.monotonic()
        client.send(first)
        assert await said_before_closing(client) == b""
        assert time.monotonic() - began < 5
        await client.hang_up()
    assert await proxied.has_counted("proxy_errors_total", 2)


@pytest.mark.parametrize("header", [version_1(V4), version_2(V4)])
async def test_from_elsewhere_a_header_is_not_believed(make_house: MakeHouse, header: bytes) -> None:
    house = await make_house(smtp_proxy_protocol_networks="192.0.2.0/24")
    await house.start()
    client = await house.connected("starttls")
    await client.expect(220)
    client.send(header)
    assert (await client.reply()).startswith("500")
    tls = await raw(house, "tls")
    tls.send(header)
    assert b"220" not in await said_before_closing(tls)
    assert await house.has_counted("proxy_headers_total", 0)


async def test_connections_of_one_address(make_house: MakeHouse) -> None:
    house = await make_house(smtp_max_connections_per_address=2, smtp_proxy_protocol_networks=TRUSTED)
    await house.start()
    first = await introduced(house, "starttls", version_1(V6))
    second = await introduced(house, "tls", version_2("2001:db8::8"))
    third = await raw(house, "starttls")
    third.send(version_1("2001:db8::9"))
    assert (await third.reply()).startswith("421 4.7.0 Too many connections")
    assert await third.is_closed()
    silent = await raw(house, "tls")
    silent.send(version_1(V6))
    assert await silent.is_closed(), "before a handshake"
    other = await introduced(house, "starttls", version_1(V4))
    await first.hang_up()
    await eventually(lambda: house.has_counted("connections_active", 2))
    again = await introduced(house, "starttls", version_1(V6))
    assert await house.has_counted("refused_per_address_total", 2)
    for client in (second, other, again):
        await client.hang_up()


async def test_new_connections_of_one_address_per_minute(make_house: MakeHouse) -> None:
    house = await make_house(smtp_max_new_connections_per_address_per_minute=3)
    await house.start()
    for _ in range(3):
        await (await house.client("starttls", log_in=False)).hang_up()
    client = await house.connected("starttls")
    assert (await client.reply()).startswith("421 4.7.0 Too many connections")
    assert await house.has_counted("refused_per_minute_total", 1)


async def test_guesses_are_delayed_and_then_banned_and_nobody_else_is(make_house: MakeHouse) -> None:
    house = await make_house(
        smtp_login_delay_seconds=0.2,
        smtp_login_delay_max_seconds=0.8,
        smtp_login_failures_before_ban=4,
        smtp_login_ban_seconds=3,
        smtp_proxy_protocol_networks=TRUSTED,
    )
    await house.start()
    waits = []
    for number in range(5):
        client = await introduced(house, "tls", version_2(V4))
        began = time.monotonic()
        assert (await client.log_in(password=f"guess {number}")).startswith("535 5.7.8")
        waits.append(time.monotonic() - began)
        await client.hang_up()
    assert all(least <= wait < least + 2 for least, wait in zip([0.2, 0.4, 0.8, 0.8, 0.8], waits, strict=True)), waits
    banned = await raw(house, "starttls")
    banned.send(version_1(V4))
    assert (await banned.reply()).startswith("421 4.7.0 Too many failed logins")
    # Its name was guessed at, and yet the customer gets in at once, from elsewhere.
    customer = await introduced(house, "tls", version_2("203.0.113.9"))
    with Stopwatch() as login:
        assert (await customer.log_in()).startswith("235")
    assert login.seconds < 0.5
    assert await house.has_counted("login_bans_total", 1)
    assert await house.has_counted("login_delays_total", 5)
    await asyncio.sleep(3)
    back = await introduced(house, "starttls", version_1(V4))
    assert (await back.log_in()).startswith("235")
    for client in (customer, back):
        await client.hang_up()


async def test_a_storm_of_wrong_logins_does_not_stop_mail(make_house: MakeHouse) -> None:
    """argon2 is busy all the time, with more logins waiting than may; who is logged in notices little of it."""
    house = await make_house(login_queue_max=20, login_hash_threads=1, smtp_max_auth_failures_per_session=1000)
    hashed = "$argon2id$v=19$m=19456,t=2,p=1$tQLM+chKkFdXa+hLTUz3jQ$I/pNhJf+L7i9pkR8Z9Lyiw7lBGSP+A81Dclv2zzKXtI"
    await house.store.create_credential(house.credential.tenant_id, "victim", hashed)
    await house.start()
    sender = await house.client()
    heard: set[str] = set()

    async def guess(number: int) -> None:
        client = await house.client(log_in=False)
        for nth in range(1000):
            reply = await client.log_in("victim", f"{number}-{nth}")
            heard.add(reply[:3])
            if reply.startswith("421"):
                return

    storm = [asyncio.create_task(guess(number)) for number in range(40)]
    await eventually(lambda: is_heard(heard, {"535", "454"}))
    times = []
    for _ in range(20):
        began = time.monotonic()
        await sender.submit()
        times.append(time.monotonic() - began)
    for task in storm:
        task.cancel()
    await asyncio.gather(*storm, return_exceptions=True)
    assert sorted(times)[10] < 0.5, times


async def is_heard(heard: set[str], wanted: set[str]) -> bool:
    return wanted <= heard


async def test_slow_clients_are_ended(make_house: MakeHouse) -> None:
    """One that never logs in and one whose message trickles; one that is merely slow is served."""
    house = await make_house(
        smtp_login_timeout_seconds=2, smtp_min_data_bytes_per_second=200, smtp_min_data_grace_seconds=2
    )
    await house.start()
    trickle, slow = await house.client(), await house.client("starttls")
    stranger = await house.client("starttls", log_in=False)
    for client in (trickle, slow):
        await client.begin()

    async def noops() -> str:
        while (reply := await stranger.say("NOOP")).startswith("250"):
            await asyncio.sleep(0.2)
        return reply

    async def text(client: Client, line: bytes) -> str:
        for _ in range(25):
            client.send(line + b"\r\n")
            if client.reader.at_eof() or client.reader._buffer:  # type: ignore[attr-defined]
                return await client.reply()
            await asyncio.sleep(0.2)
        client.send(b".\r\n")
        return await client.reply()

    said = await asyncio.gather(noops(), text(trickle, b"x"), text(slow, b"x" * 98))
    assert [reply[:9] for reply in said] == ["421 4.4.2", "421 4.4.2", "250 2.0.0"]
    assert await house.has_counted("login_timeouts_total", 1)
    assert await house.has_counted("slow_data_total", 1)


async def test_who_does_not_read_is_ended_when_the_login_is_due(make_house: MakeHouse) -> None:
    """A tiny window, and replies that are never taken: neither makes the time to log in longer."""
    house = await make_house(smtp_login_timeout_seconds=2, smtp_max_idle_commands_per_session=0)
    await house.start()
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # The kernel makes it as small as it can be.
    deaf.setblocking(False)
    loop, began = asyncio.get_running_loop(), time.monotonic()
    await loop.sock_connect(deaf, house.addresses["starttls"])
    talking = asyncio.create_task(loop.sock_sendall(deaf, b"EHLO client.example\r\n" * 1_000_000))
    await eventually(lambda: house.has_counted("login_timeouts_total", 1))
    await eventually(lambda: house.has_counted("connections_active", 0), 5)
    assert 1.5 < time.monotonic() - began < 8
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    deaf.close()


async def test_bans_by_hand(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    async def command(*words: str) -> tuple[int, str]:
        at = ("--set", f"smtp_control_socket={house.settings.control_socket}", "bans")
        code = await asyncio.to_thread(run, [*at, *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    standing = await house.client("starttls", log_in=False)
    assert await command("list", "--json") == (0, "[]\n")
    assert await command("add", "127.0.0.1", "--seconds", "100") == (0, "127.0.0.1 is banned for 100 seconds\n")
    assert await command("add", "2001:db8::7") == (0, "2001:db8::7 is banned for 600 seconds\n")
    banned = await house.connected("starttls")
    assert (await banned.reply()).startswith("421 4.7.0 Too many failed logins")
    assert (await standing.log_in()).startswith("421 4.7.0 Too many failed logins")
    code, listed = await command("list", "--json")
    first, second = json.loads(listed)
    assert (code, first["address"], second["address"]) == (0, "127.0.0.1", "2001:db8::")
    assert 90 < first["seconds_left"] <= 100
    assert 590 < second["seconds_left"] <= 600
    assert "2001:db8:: " in (await command("list"))[1]
    assert await command("lift", "127.0.0.1") == (0, "127.0.0.1 is no longer banned\n")
    assert await command("lift", "127.0.0.1") == (2, "smtp-proxy: 127.0.0.1 is not banned in this process\n")
    assert await command("add", "localhost") == (2, 'smtp-proxy: "localhost" is no IP address\n')
    code, said = await command("add", "127.0.0.1", "--seconds", "1e30")
    assert code == 2
    assert "seconds" in said
    await (await house.client()).submit()


async def test_a_lifted_ban_forgives(make_house: MakeHouse) -> None:
    house = await make_house(smtp_login_failures_before_ban=2)
    await house.start()
    guesser = await house.client(log_in=False)
    for number in range(3):
        assert (await guesser.log_in(password=f"guess {number}")).startswith("535")
    assert (await (await house.connected("starttls")).reply()).startswith("421")
    code = await asyncio.to_thread(
        run, ["--set", f"smtp_control_socket={house.settings.control_socket}", "bans", "lift", "127.0.0.1"]
    )
    assert code == 0
    again = await house.client(log_in=False)
    assert (await again.log_in(password="guess 3")).startswith("535")
    assert (await again.log_in()).startswith("235")
    assert await house.has_counted("login_bans_total", 1)
