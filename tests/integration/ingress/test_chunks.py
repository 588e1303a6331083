"""BDAT and DSN by the live service: what is stored, what waits for memory, what a drain finishes, what clients do."""

from __future__ import annotations

import asyncio
import ssl
from uuid import UUID, uuid4

import pytest
from fix_ingress import PASSWORD, USERNAME, Client, House, Listener, MakeHouse, eventually, queued_id
from programs import program
from scripted_server import ScriptedServer

from smtp_proxy.delivery.leg import Routes
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.dsn import Notify, Ret

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

LINE = b"x" * 98 + b"\r\n"


async def opened(client: Client, *, mail: str = "", rcpt: str = "") -> None:
    await client.command(250, f"MAIL FROM:<a@sender.example>{mail}")
    await client.command(250, f"RCPT TO:<b@rcpt.example>{rcpt}")


async def submit_in_chunks(client: Client, *chunks: bytes) -> UUID:
    """One message, each chunk only after the reply to the last one."""
    await opened(client)
    for chunk in chunks[:-1]:
        client.send(b"BDAT %d\r\n" % len(chunk) + chunk)
        assert await client.expect(250) == f"250 2.0.0 {len(chunk)} octets received"
    client.send(b"BDAT %d LAST\r\n" % len(chunks[-1]) + chunks[-1])
    return queued_id(await client.expect(250))


@pytest.mark.parametrize("listener", ["starttls", "tls"])
async def test_chunks_are_stored_as_one_body(house: House, listener: Listener) -> None:
    client = await house.client(listener)
    large = LINE * 20_000
    envelope_id = await submit_in_chunks(client, b"Subject: x\r\n\r", b"\n.\r\n", large, b"..", b"end")
    assert await house.body(envelope_id) == b"Subject: x\r\n\r\n.\r\n" + large + b"..end\r\n"


async def test_what_was_asked_for_is_stored(house: House) -> None:
    client = await house.client()
    await client.command(250, "MAIL FROM:<a@sender.example> RET=HDRS ENVID=QQ+2B1")
    await client.command(250, "RCPT TO:<b@rcpt.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2B@rcpt.example")
    await client.command(250, "RCPT TO:<c@rcpt.example>")
    client.send(b"BDAT 3 LAST\r\nx\r\n")
    message = await house.store.message(queued_id(await client.expect(250)))
    assert (message.ret, message.envid) == (Ret.HDRS, "QQ+2B1")
    assert [(d.notify, d.orcpt) for d in message.deliveries] == [
        (Notify.SUCCESS | Notify.DELAY, "rfc822;B+2B@rcpt.example"),
        (None, None),
    ]


async def test_from_the_client_s_wire_to_the_next_hop_s(house: House) -> None:
    """RFC 3461 5.2.1: the same values, on the same recipients."""
    mail = b"FROM:<a@sender.example> RET=FULL ENVID=QQ+2B1"
    rcpts = [b"TO:<b@rcpt.example> NOTIFY=NEVER ORCPT=rfc822;B+2B@x", b"TO:<c@rcpt.example>", b"TO:<d@x> NOTIFY=DELAY"]
    client = await house.client()
    client.send(b"MAIL %s\r\nRCPT %s\r\nBDAT 9 LAST\r\n.\r\n..\r\nx" % (mail, b"\r\nRCPT ".join(rcpts)) + b"\n")
    for _ in range(4):
        await client.expect(250)
    assert (await client.reply()).startswith("554"), "a bare LF"
    client.send(b"MAIL %s\r\nRCPT %s\r\nBDAT 8 LAST\r\n.\r\n..\r\nx" % (mail, b"\r\nRCPT ".join(rcpts)))
    for _ in range(4):
        await client.expect(250)
    envelope_id = queued_id(await client.expect(250))
    (job,) = await house.store.claim([envelope_id], uuid4(), 30.0)
    next_hop = ScriptedServer(extensions=(b"PIPELINING", b"DSN"))
    async with next_hop.running():
        transport = SmtpTransport(Routes(Route("127.0.0.1", next_hop.port, "none", "proxy.example")))
        results = await transport.deliver(job)
        await transport.close()
    assert {result.outcome for result in results} == {Outcome.DELIVERED}
    (received,) = next_hop.received
    assert (received.reverse_path, received.recipients) == (mail, rcpts)
    assert received.data.endswith(b"\r\n..\r\n...\r\nx\r\n")


async def test_mail_with_and_without_dsn_in_the_same_batches(house: House) -> None:
    async def application(number: int) -> dict[UUID, str | None]:
        client, sent = await house.client(), {}
        for n in range(10):
            envid = f"{number}-{n}" if number % 2 else None
            await opened(client, mail=f" ENVID={envid}" if envid else "")
            client.send(b"BDAT 3 LAST\r\nx\r\n")
            sent[queued_id(await client.expect(250))] = envid
        return sent

    sent: dict[UUID, str | None] = {}
    for each in await asyncio.gather(*(application(n) for n in range(12))):
        sent |= each
    rows = await house.sql("SELECT id, dsn_envid FROM envelopes")
    assert {row["id"]: row["dsn_envid"] for row in rows} == sent


async def test_exim_s_one_write(house: House) -> None:
    """MAIL, RCPT and BDAT LAST together, the next message behind them."""
    client = await house.client()
    envelope = b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@rcpt.example>\r\nBDAT 7 LAST\r\nno. %d\r\n"
    client.send(b"".join(envelope % n for n in range(3)) + b"QUIT\r\n")
    for n in range(3):
        await client.expect(250)
        await client.expect(250)
        assert await house.body(queued_id(await client.expect(250))) == b"no. %d\r\n" % n
    await client.expect(221)


async def test_octets_of_a_refused_chunk_are_no_commands(house: House) -> None:
    client = await house.client(log_in=False)
    evil = b"QUIT\r\n" * 50_000
    client.send(b"BDAT %d LAST\r\n" % len(evil) + evil)
    assert (await client.reply()).startswith("530 5.7.0")
    await client.log_in()
    envelope_id = await submit_in_chunks(client, b"x\r\n")
    assert await house.stored() == [envelope_id]


async def test_chunks_share_the_memory_budget(make_house: MakeHouse) -> None:
    """Ten messages of 1 MiB in chunks with 1 MiB allowed: some wait, between chunks too, and all are taken."""
    house = await make_house(smtp_max_in_flight_bytes=1024 * 1024)
    await house.start()
    clients = [await house.client() for _ in range(10)]
    chunk = LINE * 1000
    sent = await asyncio.gather(*(submit_in_chunks(client, *[chunk] * 10) for client in clients))
    assert sorted(sent) == await house.stored()
    assert not await house.has_counted("budget_waits_total", 0)
    assert await house.has_counted("bytes_in_flight", 0)


async def test_nobody_keeps_an_overdraft_by_small_talk(make_house: MakeHouse) -> None:
    """Whoever reads on beyond the budget has one data time-out to finish, whatever it says between its chunks."""
    house = await make_house(smtp_max_in_flight_bytes=1024 * 1024, smtp_data_timeout_seconds=1.5)
    await house.start()
    greedy, other = await house.client(), await house.client()
    await opened(greedy)
    greedy.send(b"BDAT 2000000\r\n" + LINE * 20_000)
    await greedy.expect(250)
    waiting = asyncio.create_task(submit_in_chunks(other, b"x\r\n", b"y\r\n"))
    async with asyncio.timeout(5):
        while (reply := await greedy.say("NOOP")).startswith("250"):
            await asyncio.sleep(0.2)
    assert reply.startswith("421 4.4.2")
    envelope_id = await waiting
    assert await house.stored() == [envelope_id]


async def test_rset_between_chunks_frees_the_memory(house: House) -> None:
    client = await house.client()
    await opened(client)
    client.send(b"BDAT 100000\r\n" + LINE * 1000)
    await client.expect(250)
    assert not await house.has_counted("bytes_in_flight", 0)
    await client.command(250, "RSET")
    assert await house.has_counted("bytes_in_flight", 0)


async def test_a_chunk_that_does_not_come_is_timed_out(make_house: MakeHouse) -> None:
    """Between two chunks a client has the time that it has within a text."""
    house = await make_house(smtp_data_timeout_seconds=1.0)
    await house.start()
    within, between = await house.client(), await house.client()
    for client, size in ((within, 10), (between, 3)):
        await opened(client)
        client.send(b"BDAT %d\r\nx\r\n" % size)
    await between.expect(250)
    for client in (within, between):
        assert (await client.reply()).startswith("421 4.4.2")
        assert await client.is_closed()


async def test_a_message_in_chunks_is_finished_in_a_drain(house: House) -> None:
    within, between, idle = await house.client(), await house.client(), await house.client()
    for client, size in ((within, 10), (between, 3)):
        await opened(client)
        client.send(b"BDAT %d\r\nx\r\n" % size)
    await between.expect(250)
    discarding = await house.client(log_in=False)
    discarding.send(b"BDAT 99999999999\r\nx")
    house.terminate()
    for client in (idle, discarding):
        assert (await client.reply()).startswith("421 4.3.2")
    within.send(b"6789 \r\nBDAT 5 LAST\r\nend\r\n")
    await within.expect(250)
    between.send(b"BDAT 5 LAST\r\nend\r\n")
    finished = {queued_id(await client.expect(250)) for client in (within, between)}
    for client in (within, between):
        assert (await client.reply()).startswith("421 4.3.2")
    await house.stopped()
    assert set(await house.stored()) == finished


@pytest.mark.parametrize("listener", ["starttls", "tls"])
async def test_clients_that_send_no_server_name(house: House, listener: Listener, client_tls: ssl.SSLContext) -> None:
    """RFC 6066 3 is optional; whoever connects by address has no name to send (RFC 8446 9.2)."""
    nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nameless.check_hostname = False
    nameless.load_verify_locations(cadata=client_tls.get_ca_certs(binary_form=True)[0])
    host, port = house.addresses[listener]
    wire = await asyncio.open_connection(host, port, ssl=nameless if listener == "tls" else None)
    client = Client(*wire)
    await client.expect(220)
    if listener == "starttls":
        await client.command(250, "EHLO client.example")
        await client.command(220, "STARTTLS")
        await client.writer.start_tls(nameless)
    await client.command(250, "EHLO client.example")
    assert (await client.log_in()).startswith("235")
    envelope_id = await client.submit()
    assert await house.stored() == [envelope_id]
    await client.vanish()


async def test_swaks_with_and_without_dsn(house: House) -> None:
    """swaks has no option for DSN, so its parameters ride behind the addresses; the ">" it adds is xtext as well."""
    host, port = house.addresses["starttls"]
    plain = ("--from", "plain@sender.example", "--to", "b@rcpt.example")
    asking = (
        "--from",
        "dsn@sender.example> RET=HDRS ENVID=swaks",
        "--to",
        "b@rcpt.example> NOTIFY=FAILURE ORCPT=rfc822;b@rcpt.example",
    )
    for addresses in (plain, asking):
        swaks = await asyncio.create_subprocess_exec(
            program("swaks", "swaks"), "--server", host,
            "--port", str(port), "--tls", "--auth", "PLAIN", "--auth-user", USERNAME,
            "--auth-password", PASSWORD, "--header", "Subject: swaks", *addresses,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await swaks.communicate()
        assert swaks.returncode == 0, said.decode()

    async def both_are_there() -> bool:
        return len(await house.stored()) == 2

    await eventually(both_are_there)
    first, second = [await house.store.message(each) for each in await house.stored()]
    assert (first.summary.reverse_path, first.ret, first.envid) == ("plain@sender.example", None, None)
    assert first.deliveries[0].notify is None
    assert (second.summary.reverse_path, second.ret, second.envid) == ("dsn@sender.example", Ret.HDRS, "swaks>")
    assert (second.deliveries[0].notify, second.deliveries[0].orcpt) == (Notify.FAILURE, "rfc822;b@rcpt.example>")
