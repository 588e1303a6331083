"""Which domain signs for a message, and when which key does."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from mail import TENANT, envelope

from smtp_proxy.clock import ManualClock
from smtp_proxy.delivery.sign import CannotSign
from smtp_proxy.model.domain import Domain
from smtp_proxy.model.envelope import Envelope
from smtp_proxy.sealing import SecretKeys
from smtp_proxy.store import MemoryStore
from smtp_proxy.tenants import domains
from smtp_proxy.worker.signing import DomainSigner

KEYS = SecretKeys({"k1": bytes(32)})
START = datetime(2026, 11, 26, tzinfo=UTC)


class Desk:
    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.store = MemoryStore(self.clock)
        self.signer = DomainSigner(self.store, KEYS, self.clock)

    async def add(
        self, name: str, tenant: UUID = TENANT, algorithms: tuple[str, ...] = ("ed25519-sha256",), **options: float
    ) -> Domain:
        begins = START + timedelta(seconds=options.get("after", 0))
        found = await self.store.add_domain(tenant, name, domains.new_keys(KEYS, list(algorithms), START, begins))
        await self.signer.load()
        return found

    async def signed_by(self, sender: str, reverse_path: str = "a@other.example") -> list[str]:
        header = await self.signer.headers(mail_from(sender, reverse_path))
        return re.findall(r"d=([^;]+)", header.decode())


def mail_from(sender: str, reverse_path: str = "a@other.example") -> Envelope:
    return envelope(f"From: {sender}\r\nSubject: x\r\n\r\nhi\r\n".encode(), reverse_path=reverse_path)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_the_domain_of_from_signs_or_one_above_it(desk: Desk) -> None:
    await desk.add("example.com")
    await desk.add("shop.example.com")
    for sender, expected in (
        ("a@example.com", ["example.com"]),
        ("A B <a@Example.COM>", ["example.com"]),
        ('"c@evil.example" <a@news.example.com>', ["example.com"]),
        ("a@mail.shop.example.com", ["shop.example.com"]),
        ("a@notexample.com", []),
        ("a@com", []),
        ("nobody", []),
        ("", []),
    ):
        assert await desk.signed_by(sender) == expected, sender


async def test_else_that_of_the_reverse_path(desk: Desk) -> None:
    await desk.add("example.com")
    assert await desk.signed_by("a@else.example", "bounce@mail.example.com") == ["example.com"]
    assert await desk.signed_by("a@else.example", "") == []


async def test_nobody_signs_for_another_tenant(desk: Desk) -> None:
    await desk.add("example.com", uuid4())
    assert await desk.signed_by("a@example.com") == []


async def test_names_that_are_not_ascii(desk: Desk) -> None:
    await desk.add(domains.domain_name("Bücher.example"))
    assert await desk.signed_by("a@bücher.example") == ["xn--bcher-kva.example"]
    assert await desk.signed_by("a@xn--bcher-kva.example") == ["xn--bcher-kva.example"]


async def test_a_key_is_published_before_it_signs_and_overlaps_the_next(desk: Desk) -> None:
    domain = await desk.add("example.com", after=3600)
    assert await desk.signed_by("a@example.com") == []
    desk.clock.advance(3600)

    async def selector() -> str:
        await desk.signer.load()
        (found,) = re.findall(r"s=([^;]+)", (await desk.signer.headers(mail_from("a@example.com"))).decode())
        return found

    first = await selector()
    domain = await domains.rotate(desk.store, KEYS, (await desk.store.list_domains())[0], desk.clock.now(), 600, 900)  # type: ignore[arg-type]
    states = {r.selector: r.state for r in domains.records(domain, desk.clock.now(), 900)}
    second = next(name for name, state in states.items() if state == "next")
    assert states == {first: "signs", second: "next"}
    desk.clock.advance(599)
    assert await selector() == first
    desk.clock.advance(1)
    assert await selector() == second
    states = {r.selector: r.state for r in domains.records(domain, desk.clock.now(), 900)}
    assert states == {first: "retired", second: "signs"}
    desk.clock.advance(901)
    assert [r.selector for r in domains.records(domain, desk.clock.now(), 900)] == [second]


async def test_a_rotation_waits_for_the_last_one(desk: Desk) -> None:
    await desk.add("example.com", after=3600)
    (domain,) = await desk.store.list_domains()
    with pytest.raises(domains.InvalidValue, match="does not sign yet"):
        await domains.rotate(desk.store, KEYS, domain, START, 600, 900)  # type: ignore[arg-type]


async def test_a_key_that_does_not_open_keeps_the_mail(desk: Desk) -> None:
    domain = await desk.add("example.com")
    other = replace(desk.signer._domains[TENANT, "example.com"], keys=(replace(domain.keys[0], id=uuid4()),))  # type: ignore[index]
    desk.signer._domains = {(TENANT, "example.com"): other}
    with pytest.raises(CannotSign, match=domain.keys[0].selector):
        await desk.signer.headers(mail_from("a@example.com"))
    assert await desk.signed_by("a@else.example") == []


async def test_before_the_keys_are_read_nothing_leaves(desk: Desk) -> None:
    with pytest.raises(CannotSign):
        await desk.signer.headers(mail_from("a@example.com"))


async def test_keys_are_read_again_when_told(desk: Desk) -> None:
    await desk.signer.load()
    running = asyncio.create_task(desk.signer.run())
    await asyncio.sleep(0)
    keys = domains.new_keys(KEYS, ["ed25519-sha256"], START, START)
    await desk.store.add_domain(TENANT, "example.com", keys)
    await asyncio.sleep(0.05)
    assert await desk.signed_by("a@example.com") == ["example.com"]
    running.cancel()


@pytest.mark.parametrize("body", [b"hi\r\n", b"line  of text\r\n" * 20_000])
async def test_one_signature_alone_is_by_rsa_and_covers_nothing_that_ses_replaces(desk: Desk, body: bytes) -> None:
    await desk.add("example.com", algorithms=("ed25519-sha256", "rsa-sha256"))
    mail = envelope(b"From: a@example.com\r\nDate: now\r\nMessage-ID: <1@example.com>\r\nSubject: x\r\n\r\n" + body)
    (signature,) = (await desk.signer.headers(mail, alone=True)).decode().split("DKIM-Signature:")[1:]
    tags = dict(part.strip().partition("=")[::2] for part in re.sub(r"\s+", "", signature).split(";"))
    assert tags["a"] == "rsa-sha256"
    assert tags["h"].split(":")[:3] == ["from", "from", "reply-to"]
    assert not {"date", "message-id"} & set(tags["h"].split(":"))
    both = re.sub(rb"\s+", b"", await desk.signer.headers(mail))
    assert both.count(b"DKIM-Signature:") == 2
    assert both.count(b"date:date:") == both.count(b"message-id:message-id:") == 2


async def test_one_signature_alone_is_by_another_key_where_there_is_no_rsa(desk: Desk) -> None:
    await desk.add("example.com")
    assert b"a=ed25519-sha256" in await desk.signer.headers(mail_from("a@example.com"), alone=True)


async def test_large_mail_is_signed_too(desk: Desk) -> None:
    await desk.add("example.com")
    large = envelope(b"From: a@example.com\r\n\r\n" + b"line  of text\r\n" * 20_000)
    assert b"d=example.com" in await desk.signer.headers(large)
