"""Name servers for DNS-01: one that takes signed updates, and what a CA is shown of it, or of moto's Route 53."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.tsig
from dns_server import DnsServer

SECRET = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"
Texts = dict[str, list[str]]  # by name, with its last dot; quoted as in a zone file


class NameServer:
    """Takes signed updates over TCP (RFC 2136, RFC 8945), and keeps what they say."""

    def __init__(self, key: dns.tsig.Key | None) -> None:
        self._key = key
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.records: dict[str, list[str]] = {}
        self.rcode = dns.rcode.NOERROR
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                query, _ = dns.query.receive_tcp(connection, keyring=self._key)  # raises where it is not signed rightly
                assert query.opcode() == dns.opcode.UPDATE
                assert (query.keyname is not None) == (self._key is not None)
                response = dns.message.make_response(query)
                response.set_rcode(self.rcode)
                if self.rcode == dns.rcode.NOERROR:
                    self._take(query)
                dns.query.send_tcp(connection, response)

    def _take(self, update: Any) -> None:
        for rrset in update.update:
            name = rrset.name.derelativize(update.zone[0].name).to_text()
            if rrset.deleting:
                self.records.pop(name, None)
            else:
                self.records.setdefault(name, []).extend(each.to_text() for each in rrset)

    def close(self) -> None:
        self._socket.close()


class Shown(DnsServer):
    """Answers with the texts that are there when it is asked."""

    def __init__(self, texts: Callable[[], Texts]) -> None:
        super().__init__(ttl=0)
        self._texts = texts

    def answer(self, wire: bytes, *, tcp: bool = False) -> bytes | None:
        self.records = {(name.rstrip("."), "TXT"): texts for name, texts in self._texts().items()}
        return super().answer(wire, tcp=tcp)


def texts_of_route53(client: Any, zone: str) -> Texts:
    """All that a hosted zone has."""
    found = client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    return {r["Name"]: [v["Value"] for v in r["ResourceRecords"]] for r in found if r["Type"] == "TXT"}
