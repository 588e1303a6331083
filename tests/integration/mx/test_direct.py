"""Direct delivery, whole: a DNS server, real TLS servers, and what each policy lets through."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from certificates import Authority
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from dns_server import DnsServer
from mail import job
from scripted_server import ScriptedServer

from smtp_proxy.clock import SystemClock
from smtp_proxy.delivery.mx.sts import StsPolicies
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.routing.file import RoutesFile
from smtp_proxy.delivery.routing.load import Surroundings, build
from smtp_proxy.delivery.smtp import SmtpTransport
from smtp_proxy.model.attempt import Outcome, RecipientResult

pytestmark = pytest.mark.integration

STARTTLS = (b"PIPELINING", b"STARTTLS")
STS = b"version: STSv1\nmode: %s\nmx: %s\nmax_age: 1000\n"


class Direct:
    """Delivers to a.example by MX. `policy` is what its MTA-STS host would give."""

    def __init__(self, dns: DnsServer, authority: Authority) -> None:
        self.dns = dns
        self.authority = authority
        self.policy = b""
        self.rule: dict[str, object] = {"ca_file": str(authority.ca_file)}
        self.trust_ad = "loopback"
        dns.add("a.example", "MX", "10 mx.a.example.")
        dns.add("mx.a.example", "A", "127.0.0.1")

    async def fetch(self, domain: str) -> bytes:
        assert domain == "a.example"
        return self.policy

    async def deliver(self, port: int, address: str = "x@a.example") -> RecipientResult:
        if self.policy:
            self.dns.add("_mta-sts.a.example", "TXT", '"v=STSv1; id=1;"')
        resolver = self.dns.resolver(trust_ad=self.trust_ad)
        clock = SystemClock()
        base = Route("unused.example", 25, "none", "proxy.example")
        policies = StsPolicies(resolver, self.fetch, clock)
        around = Surroundings(base, resolver, policies, "proxy.example", clock, _nobody)
        quick = {"connect_timeout_seconds": 2, "command_timeout_seconds": 1, "data_timeout_seconds": 1}
        rule = {"kind": "mx", "port": port, "private_addresses": True, **quick, **self.rule}
        routes = RoutesFile.model_validate({"default": "direct", "routes": {"direct": rule}})
        transport = SmtpTransport(build(routes, around))
        (result,) = await transport.deliver(job(address))
        await transport.close()
        return result

    def sign(self, port: int, *records: str) -> None:
        """DNSSEC for the whole of a.example, and TLSA records of its host."""
        name = f"_{port}._tcp.mx.a.example"
        self.dns.add(name, "TLSA", *records)
        self.dns.secure |= {"a.example", "mx.a.example", name}


async def _nobody(_: UUID) -> str:
    return ""


@pytest.fixture
def direct(dns: DnsServer, authority: Authority) -> Direct:
    return Direct(dns, authority)


@pytest.fixture
async def plain() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer().running() as server:
        yield server


def alias(direct: Direct) -> None:
    """The MX host is an alias of one in another zone, and has no addresses itself."""
    del direct.dns.records["mx.a.example", "A"]
    direct.dns.aliases["mx.a.example"] = "mx.real.example"
    direct.dns.add("mx.real.example", "A", "127.0.0.1")


def tls_server(file: Path, asked: list[str] | None = None) -> ScriptedServer:
    """`asked` gets the name of each handshake (SNI)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    if asked is not None:
        context.sni_callback = lambda _socket, name, _context: asked.append(str(name))
    return ScriptedServer(tls=context, extensions=STARTTLS)


def spki_sha256(file: Path) -> str:
    key = x509.load_pem_x509_certificate(file.read_bytes()).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


class TestOpportunistic:
    async def test_in_clear_where_there_is_no_tls(self, direct: Direct, plain: ScriptedServer) -> None:
        result = await direct.deliver(plain.port)
        assert (result.outcome, result.remote) == (Outcome.DELIVERED, f"mx.a.example:{plain.port}")

    async def test_tls_with_any_certificate(self, direct: Direct, authority: Authority) -> None:
        async with tls_server(authority.issue("someone.else.example", days=-1)).running() as server:
            result = await direct.deliver(server.port)
        assert result.outcome is Outcome.DELIVERED
        assert b"STARTTLS" in server.commands
        assert len(server.received) == 1

    async def test_in_clear_where_tls_is_broken(self, direct: Direct, authority: Authority) -> None:
        old = authority.server("mx.a.example")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        async with ScriptedServer(tls=old, extensions=STARTTLS).running() as server:
            result = await direct.deliver(server.port)
        assert (result.outcome, server.connections) == (Outcome.DELIVERED, 2)


class TestRequired:
    async def test_no_tls_no_delivery(self, direct: Direct, plain: ScriptedServer) -> None:
        direct.rule["tls"] = "required"
        result = await direct.deliver(plain.port)
        assert result.outcome is Outcome.DEFERRED
        assert "does not offer STARTTLS, and the route direct asks for it" in result.reply_text
        assert b"MAIL" not in b" ".join(plain.commands)

    async def test_any_certificate(self, direct: Direct, authority: Authority) -> None:
        direct.rule["tls"] = "required"
        async with tls_server(authority.issue("someone.else.example")).running() as server:
            assert (await direct.deliver(server.port)).outcome is Outcome.DELIVERED


class TestOwnPolicy:
    """`mx_names`: what MTA-STS would say, by the operator's word."""

    async def test_the_right_name(self, direct: Direct, authority: Authority) -> None:
        direct.rule |= {"tls": "verified", "mx_names": ["*.a.example"]}
        async with tls_server(authority.issue("mx.a.example")).running() as server:
            assert (await direct.deliver(server.port)).outcome is Outcome.DELIVERED

    async def test_a_forged_mx_with_a_good_certificate_of_its_own(self, direct: Direct, authority: Authority) -> None:
        direct.rule |= {"tls": "verified", "mx_names": ["*.a.example"]}
        direct.dns.add("a.example", "MX", "10 mx.thief.example.")
        direct.dns.add("mx.thief.example", "A", "127.0.0.1")
        async with tls_server(authority.issue("mx.thief.example")).running() as server:
            result = await direct.deliver(server.port)
        assert (result.outcome, result.enhanced_code, server.connections) == (Outcome.DEFERRED, "4.7.5", 0)


class TestSts:
    async def test_enforce_and_a_right_certificate(self, direct: Direct, authority: Authority) -> None:
        direct.policy = STS % (b"enforce", b"mx.a.example")
        async with tls_server(authority.issue("mx.a.example")).running() as server:
            assert (await direct.deliver(server.port)).outcome is Outcome.DELIVERED

    @pytest.mark.parametrize(("mode", "outcome"), [(b"enforce", Outcome.DEFERRED), (b"testing", Outcome.DELIVERED)])
    async def test_a_wrong_certificate(
        self, mode: bytes, outcome: Outcome, direct: Direct, authority: Authority
    ) -> None:
        direct.policy = STS % (mode, b"mx.a.example")
        async with tls_server(authority.issue("other.example")).running() as server:
            assert (await direct.deliver(server.port)).outcome is outcome
        assert len(server.received) == (outcome is Outcome.DELIVERED)

    async def test_enforce_and_no_tls(self, direct: Direct, plain: ScriptedServer) -> None:
        direct.policy = STS % (b"enforce", b"mx.a.example")
        assert (await direct.deliver(plain.port)).outcome is Outcome.DEFERRED
        assert not plain.received

    async def test_enforce_and_a_host_that_is_not_named(self, direct: Direct, authority: Authority) -> None:
        direct.policy = STS % (b"enforce", b"mx2.a.example")
        async with tls_server(authority.issue("mx.a.example")).running() as server:
            result = await direct.deliver(server.port)
        assert (result.outcome, result.enhanced_code, server.connections) == (Outcome.DEFERRED, "4.7.5", 0)

    async def test_not_heeded_where_the_route_says_so(self, direct: Direct, plain: ScriptedServer) -> None:
        direct.policy = STS % (b"enforce", b"mx2.a.example")
        direct.rule["mta_sts"] = False
        assert (await direct.deliver(plain.port)).outcome is Outcome.DELIVERED


class TestDane:
    async def test_the_key_that_dns_names_whatever_the_certificate_says(
        self, direct: Direct, authority: Authority
    ) -> None:
        file = authority.issue("other.example", days=-1)
        async with tls_server(file).running() as server:
            direct.sign(server.port, f"3 1 1 {spki_sha256(file)}")
            assert (await direct.deliver(server.port)).outcome is Outcome.DELIVERED

    async def test_another_key(self, direct: Direct, authority: Authority) -> None:
        async with tls_server(authority.issue("mx.a.example")).running() as server:
            direct.sign(server.port, f"3 1 1 {'00' * 32}")
            result = await direct.deliver(server.port)
        assert result.outcome is Outcome.DEFERRED
        assert "not the one that its TLSA records speak of" in result.reply_text
        assert not server.received

    async def test_a_trust_anchor_in_full(self, direct: Direct, authority: Authority) -> None:
        anchor = x509.load_pem_x509_certificate(authority.ca_file.read_bytes()).public_bytes(Encoding.DER).hex()
        async with tls_server(authority.issue("mx.a.example")).running() as server:
            direct.sign(server.port, f"2 0 0 {anchor}")
            assert (await direct.deliver(server.port)).outcome is Outcome.DELIVERED
        async with tls_server(authority.issue("other.example")).running() as server:
            direct.sign(server.port, f"2 0 0 {anchor}")
            assert (await direct.deliver(server.port)).outcome is Outcome.DEFERRED

    async def test_a_trust_anchor_that_the_server_shows(self, direct: Direct, authority: Authority) -> None:
        file = authority.issue("mx.a.example")
        file.write_bytes(file.read_bytes() + authority.ca_file.read_bytes())
        digest = spki_sha256(authority.ca_file)
        async with tls_server(file).running() as server:
            direct.sign(server.port, f"2 1 1 {digest}")
            assert (await direct.deliver(server.port)).outcome is Outcome.DELIVERED

    async def test_no_tls_offered(self, direct: Direct, plain: ScriptedServer) -> None:
        direct.sign(plain.port, f"3 1 1 {'00' * 32}")
        assert (await direct.deliver(plain.port)).outcome is Outcome.DEFERRED
        assert not plain.received

    async def test_records_of_no_use_make_tls_a_must(
        self, direct: Direct, plain: ScriptedServer, authority: Authority
    ) -> None:
        direct.sign(plain.port, f"1 1 1 {'00' * 32}")
        assert (await direct.deliver(plain.port)).outcome is Outcome.DEFERRED
        async with tls_server(authority.issue("other.example")).running() as server:
            direct.sign(server.port, f"1 1 1 {'00' * 32}")
            assert (await direct.deliver(server.port)).outcome is Outcome.DELIVERED

    async def test_a_host_whose_records_are_not_to_be_had_is_not_asked(
        self, direct: Direct, plain: ScriptedServer
    ) -> None:
        direct.sign(plain.port)
        direct.dns.failing.add(f"_{plain.port}._tcp.mx.a.example")
        result = await direct.deliver(plain.port)
        assert (result.outcome, result.enhanced_code, plain.connections) == (Outcome.DEFERRED, "4.7.5", 0)

    async def test_without_records_as_ever(self, direct: Direct, plain: ScriptedServer) -> None:
        direct.dns.secure |= {"a.example", "mx.a.example"}
        assert (await direct.deliver(plain.port)).outcome is Outcome.DELIVERED

    @pytest.mark.parametrize("unsigned", ["a.example", "mx.a.example", "tlsa", "resolver"])
    async def test_what_nobody_signed_counts_for_nothing(
        self, unsigned: str, direct: Direct, plain: ScriptedServer
    ) -> None:
        direct.sign(plain.port, f"3 1 1 {'00' * 32}")
        direct.dns.secure.discard(f"_{plain.port}._tcp.mx.a.example" if unsigned == "tlsa" else unsigned)
        direct.trust_ad = "never" if unsigned == "resolver" else "loopback"
        assert (await direct.deliver(plain.port)).outcome is Outcome.DELIVERED

    @pytest.mark.parametrize("at", ["mx.real.example", "mx.a.example"])
    async def test_records_of_an_alias_are_looked_for_where_it_leads_first(
        self, at: str, direct: Direct, authority: Authority
    ) -> None:
        """RFC 7672 2.2.2, and 8.1 for the name that is asked for in the handshake. They once were not found there."""
        alias(direct)
        asked: list[str] = []
        file = authority.issue("other.example", days=-1)
        async with tls_server(file, asked).running() as server:
            direct.sign(server.port)
            names = [f"_{server.port}._tcp.{host}" for host in ("mx.real.example", "mx.a.example")]
            direct.dns.secure |= set(names)
            direct.dns.add(f"_{server.port}._tcp.{at}", "TLSA", f"3 1 1 {spki_sha256(file)}")
            if at == "mx.real.example":
                direct.dns.add(names[1], "TLSA", f"3 1 1 {'00' * 32}")
            assert (await direct.deliver(server.port)).outcome is Outcome.DELIVERED
            direct.dns.add(f"_{server.port}._tcp.{at}", "TLSA", f"3 1 1 {'00' * 32}")
            assert (await direct.deliver(server.port)).outcome is Outcome.DEFERRED
        assert len(server.received) == 1
        assert asked == [at, at]

    async def test_a_trust_anchor_vouches_for_the_name_that_an_alias_leads_to(
        self, direct: Direct, authority: Authority
    ) -> None:
        alias(direct)
        anchor = x509.load_pem_x509_certificate(authority.ca_file.read_bytes()).public_bytes(Encoding.DER).hex()
        for name, outcome in (("mx.real.example", Outcome.DELIVERED), ("other.example", Outcome.DEFERRED)):
            async with tls_server(authority.issue(name)).running() as server:
                direct.sign(server.port)
                direct.dns.secure.add(records := f"_{server.port}._tcp.mx.real.example")
                direct.dns.add(records, "TLSA", f"2 0 0 {anchor}")
                assert (await direct.deliver(server.port)).outcome is outcome

    async def test_an_alias_of_which_dns_gives_no_records_is_not_asked(
        self, direct: Direct, plain: ScriptedServer
    ) -> None:
        alias(direct)
        direct.sign(plain.port)
        direct.dns.failing.add(f"_{plain.port}._tcp.mx.real.example")
        result = await direct.deliver(plain.port)
        assert (result.outcome, result.enhanced_code, plain.connections) == (Outcome.DEFERRED, "4.7.5", 0)

    async def test_an_alias_that_nobody_signed_counts_for_nothing(self, direct: Direct, plain: ScriptedServer) -> None:
        alias(direct)
        direct.dns.secure |= {"a.example", name := f"_{plain.port}._tcp.mx.real.example"}
        direct.dns.add(name, "TLSA", f"3 1 1 {'00' * 32}")
        assert (await direct.deliver(plain.port)).outcome is Outcome.DELIVERED

    async def test_before_mta_sts(self, direct: Direct, authority: Authority) -> None:
        direct.policy = STS % (b"enforce", b"elsewhere.example")
        file = authority.issue("other.example")
        async with tls_server(file).running() as server:
            direct.sign(server.port, f"3 1 1 {spki_sha256(file)}")
            assert (await direct.deliver(server.port)).outcome is Outcome.DELIVERED


class TestHosts:
    async def test_the_next_address_and_the_next_host(self, direct: Direct, plain: ScriptedServer) -> None:
        direct.dns.add("a.example", "MX", "10 dead.a.example.", "20 mx.a.example.")
        direct.dns.add("dead.a.example", "A", "127.0.0.3")
        direct.dns.add("mx.a.example", "A", "127.0.0.2", "127.0.0.1")
        result = await direct.deliver(plain.port)
        assert (result.outcome, result.remote) == (Outcome.DELIVERED, f"mx.a.example:{plain.port}")

    async def test_an_international_domain(self, direct: Direct, plain: ScriptedServer) -> None:
        direct.dns.add("xn--bcher-kva.example", "MX", "10 mx.a.example.")
        assert (await direct.deliver(plain.port, "x@Bücher.example")).outcome is Outcome.DELIVERED
        assert direct.dns.asked["xn--bcher-kva.example", "MX"] == 1

    async def test_an_address_literal(self, direct: Direct, plain: ScriptedServer) -> None:
        result = await direct.deliver(plain.port, "x@[127.0.0.1]")
        assert (result.outcome, result.remote) == (Outcome.DELIVERED, f"127.0.0.1:{plain.port}")

    async def test_a_domain_that_takes_no_mail(self, direct: Direct, plain: ScriptedServer) -> None:
        direct.dns.add("a.example", "MX", "0 .")
        result = await direct.deliver(plain.port)
        assert (result.outcome, result.enhanced_code, plain.connections) == (Outcome.REFUSED, "5.1.10", 0)
