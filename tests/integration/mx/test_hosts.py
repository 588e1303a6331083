"""From a domain to its hosts, by a DNS server of our own on loopback."""

from __future__ import annotations

import random

import pytest
from dns_server import DnsServer

from smtp_proxy.config import Settings
from smtp_proxy.delivery.mx.hosts import MailHosts, MxHost, Undeliverable
from smtp_proxy.delivery.mx.resolver import DnsTrouble, Resolver
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.model.attempt import Kind, Outcome

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def three_hosts(dns: DnsServer) -> None:
    # Documentation networks are not public: the tests of addresses say what is.
    for host in ("mx1.example", "mx2.example", "mx3.example"):
        dns.add(host, "A", "198.51.100.1")


def hosts(dns: DnsServer, *own: str, private: bool = True, literals: bool = True) -> MailHosts:
    return MailHosts(dns.resolver(), own, private_addresses=private, address_literals=literals)


async def names(found: MailHosts, domain: str) -> list[str]:
    return [host.name for host in await found.of(domain)]


async def refusal(found: MailHosts, domain: str) -> tuple[Outcome, str, Kind]:
    with pytest.raises(Undeliverable) as raised:
        await found.of(domain)
    return raised.value.outcome, raised.value.enhanced_code, raised.value.kind


async def test_by_preference(dns: DnsServer) -> None:
    dns.add("a.example", "MX", "20 mx2.example.", "10 MX1.example.", "30 mx3.example.")
    assert await names(hosts(dns), "a.example") == ["mx1.example", "mx2.example", "mx3.example"]


async def test_equals_in_a_random_order(dns: DnsServer) -> None:
    random.seed(1)
    dns.add("a.example", "MX", "10 mx1.example.", "10 mx2.example.", "20 mx3.example.")
    found = hosts(dns)
    orders = [tuple(await names(found, "a.example")) for _ in range(200)]
    assert {order[2] for order in orders} == {"mx3.example"}
    assert 70 < sum(order[0] == "mx1.example" for order in orders) < 130


async def test_without_mx_its_own_addresses(dns: DnsServer) -> None:
    dns.add("b.example", "A", "198.51.100.7")
    dns.add("b.example", "AAAA", "2001:db8::7")
    found = hosts(dns)
    assert await found.of("b.example") == [MxHost("b.example", 0)]
    assert await found.addresses("b.example") == ["2001:db8::7", "198.51.100.7"]


async def test_null_mx(dns: DnsServer) -> None:
    dns.add("n.example", "MX", "0 .")
    dns.add("n.example", "A", "198.51.100.7")
    assert await refusal(hosts(dns), "n.example") == (Outcome.REFUSED, "5.1.10", Kind.DNS)


async def test_no_such_domain(dns: DnsServer) -> None:
    assert await refusal(hosts(dns), "no.example") == (Outcome.REFUSED, "5.1.2", Kind.DNS)


async def test_no_address(dns: DnsServer) -> None:
    dns.add("t.example", "TXT", '"exists"')
    dns.add("u.example", "MX", "10 gone.example.", "20 t.example.")
    assert await refusal(hosts(dns), "t.example") == (Outcome.REFUSED, "5.4.4", Kind.DNS)
    assert await refusal(hosts(dns), "u.example") == (Outcome.REFUSED, "5.4.4", Kind.DNS)


async def test_dns_that_fails_defers(dns: DnsServer) -> None:
    dns.failing.add("f.example")
    dns.silent.add("s.example")
    assert await refusal(hosts(dns), "f.example") == (Outcome.DEFERRED, "4.4.3", Kind.DNS)
    assert await refusal(hosts(dns), "s.example") == (Outcome.DEFERRED, "4.4.3", Kind.DNS)


async def test_a_host_whose_address_is_not_to_be_had_now_stays(dns: DnsServer) -> None:
    dns.add("a.example", "MX", "10 f.example.", "20 gone.example.")
    dns.failing.add("f.example")
    found = hosts(dns)
    assert await names(found, "a.example") == ["f.example"]
    with pytest.raises(DnsTrouble):
        await found.addresses("f.example")


async def test_a_lost_address_does_not_switch_dane_off(dns: DnsServer) -> None:
    """Whoever can drop one answer was once spared the TLSA records of a host that was looked up in a signed zone."""
    dns.add("s.example", "MX", "10 mx1.example.")
    dns.secure.update({"s.example", "mx1.example"})
    found = hosts(dns)
    assert await found.of("s.example") == [MxHost("mx1.example", 10, True)]
    dns.add("t.example", "MX", "10 mx9.example.")
    dns.secure.add("t.example")
    dns.failing.add("mx9.example")
    assert await found.of("t.example") == [MxHost("mx9.example", 10, True)]


async def test_a_host_that_is_an_inside_address_is_not_asked(dns: DnsServer) -> None:
    """Nothing resolves it, so it was once passed on as it is when its lookup failed."""
    assert await hosts(dns, private=False).addresses("10.0.0.5") == []
    assert await hosts(dns, private=False).addresses("64:ff9b::a00:5") == []
    assert await hosts(dns, private=False).addresses("1.1.1.1") == ["1.1.1.1"]
    assert await hosts(dns).addresses("10.0.0.5") == ["10.0.0.5"]


async def test_ourselves(dns: DnsServer) -> None:
    dns.add("a.example", "MX", "10 mx1.example.", "20 mx2.example.", "20 mx3.example.")
    assert await names(hosts(dns, "mx2.example"), "a.example") == ["mx1.example"]
    assert await refusal(hosts(dns, "MX1.example."), "a.example") == (Outcome.REFUSED, "5.4.6", Kind.LOCAL)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "A"),
        ("10.1.2.3", "A"),
        ("169.254.169.254", "A"),
        ("100.64.0.1", "A"),
        ("224.0.0.5", "A"),
        ("0.0.0.0", "A"),
        ("::1", "AAAA"),
        ("fe80::1", "AAAA"),
        ("fd00::1", "AAAA"),
        ("::ffff:127.0.0.1", "AAAA"),
    ],
)
async def test_addresses_that_are_not_public_are_left_out(dns: DnsServer, address: str, kind: str) -> None:
    dns.add("p.example", kind, address)
    dns.add("q.example", "MX", "10 p.example.")
    assert await refusal(hosts(dns, private=False), "q.example") == (Outcome.REFUSED, "5.4.4", Kind.DNS)
    assert await names(hosts(dns), "q.example") == ["p.example"]
    dns.add("p.example", "A", "9.9.9.9")
    assert await hosts(dns, private=False).addresses("p.example") == ["9.9.9.9"]


async def test_address_literals(dns: DnsServer) -> None:
    found = hosts(dns, private=False)
    assert await found.of("[9.9.9.9]") == [MxHost("9.9.9.9", 0)]
    assert await found.of("[ipv6:2620:fe::9]") == [MxHost("2620:fe::9", 0)]
    assert await found.addresses("9.9.9.9") == ["9.9.9.9"]
    assert (await refusal(found, "[127.0.0.1]"))[:2] == (Outcome.REFUSED, "5.4.4")
    assert (await refusal(found, "[nonsense]"))[:2] == (Outcome.REFUSED, "5.1.2")
    assert (await refusal(hosts(dns, literals=False), "[9.9.9.9]"))[:2] == (Outcome.REFUSED, "5.1.2")
    assert not dns.asked


async def test_answers_are_kept_for_their_ttl(dns: DnsServer) -> None:
    dns.add("a.example", "MX", "10 mx1.example.")
    found = hosts(dns)
    for _ in range(5):
        assert await names(found, "a.example") == ["mx1.example"]
    assert dns.asked["a.example", "MX"] == 1
    dns.ttl = 0
    short = hosts(dns)
    for _ in range(3):
        await short.of("a.example")
    assert dns.asked["a.example", "MX"] >= 3


async def test_no_more_hosts_than_one_can_ask(dns: DnsServer) -> None:
    dns.add("big.example", "MX", *[f"{n} h{n}.example." for n in range(100)])
    for n in range(100):
        dns.add(f"h{n}.example", "A", "198.51.100.1")
    assert await names(hosts(dns), "big.example") == [f"h{n}.example" for n in range(16)]


@pytest.mark.parametrize("domain", ["a" * 64 + ".example", "-", "x..example", "a b.example", "ex\x00ample"])
async def test_what_is_no_domain_is_an_answer_too(dns: DnsServer, domain: str) -> None:
    outcome, code, _ = await refusal(hosts(dns), domain)
    assert (outcome, code) in {(Outcome.REFUSED, "5.1.2"), (Outcome.DEFERRED, "4.4.3")}


async def test_whose_word_on_validation_counts(dns: DnsServer) -> None:
    dns.add("s.example", "A", "9.9.9.9")
    dns.secure.add("s.example")
    assert (await dns.resolver().ask("s.example", "A")).secure
    assert not (await dns.resolver(trust_ad="never").ask("s.example", "A")).secure
    assert not Resolver([("192.0.2.1", 53)]).validates
    assert Resolver([("192.0.2.1", 53)], trust_ad="always").validates


def test_servers_that_are_none() -> None:
    for text in ("dns.example", "127.0.0.1:0", "127.0.0.1:x"):
        with pytest.raises(ConfigurationError, match="DNS_SERVERS"):
            Resolver.of(Settings.load({"dns_servers": text}, {}))
    assert Resolver.of(Settings.load({"dns_servers": "127.0.0.1:5353, [::1]:54, ::1"}, {})).validates
