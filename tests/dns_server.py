"""A DNS server of our own on loopback, over UDP and TCP: records by name and type, and what else a server may do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from smtp_proxy.delivery.mx.resolver import Resolver


@dataclass
class DnsServer:
    """`records[name, type]` are texts as in a zone file. A name with records of any type exists."""

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)  # CNAMEs; whether the whole chain is signed says the first
    failing: set[str] = field(default_factory=set)  # SERVFAIL
    silent: set[str] = field(default_factory=set)  # no answer at all
    secure: set[str] = field(default_factory=set)  # AD, as a validating resolver says it
    ttl: int = 300
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    port: int = 0

    def add(self, name: str, kind: str, *texts: str) -> None:
        self.records[name, kind] = list(texts)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[DnsServer]:
        loop = asyncio.get_running_loop()
        tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", 0)
        self.port = tcp.sockets[0].getsockname()[1]
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", self.port))
        sock.setblocking(False)
        udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), sock=sock)
        try:
            yield self
        finally:
            udp.close()
            tcp.close()

    def resolver(self, timeout_seconds: float = 1.0, **options: str) -> Resolver:
        return Resolver([("127.0.0.1", self.port)], timeout_seconds=timeout_seconds, **options)  # type: ignore[arg-type]

    def answer(self, wire: bytes, *, tcp: bool = False) -> bytes | None:
        response = self._response(wire)
        if response is None:
            return None
        try:
            return response.to_wire(max_size=65_535 if tcp else 0)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()

    def _response(self, wire: bytes) -> dns.message.Message | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        if name in self.silent:
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if name in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        if name in self.secure and query.flags & dns.flags.AD:
            response.flags |= dns.flags.AD
        while (alias := self.aliases.get(name)) is not None:
            response.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", "CNAME", f"{alias}."))
            name = alias
        if texts := self.records.get((name, kind)):
            response.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", kind, *texts))
        elif not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            length = int.from_bytes(await reader.readexactly(2), "big")
            if answer := self.answer(await reader.readexactly(length), tcp=True):
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if answer := self._server.answer(data):
            self._transport.sendto(answer, address)  # type: ignore[attr-defined]
