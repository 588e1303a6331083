"""DNS: our own name, and what tenants' domains need so that their mail is believed (SPF, DKIM, DMARC)."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from smtp_proxy.delivery.mx.resolver import DnsTrouble, Resolver
from smtp_proxy.doctor.finding import Finding, failed, ok, skipped, warning
from smtp_proxy.errors import StoreError
from smtp_proxy.store import Store
from smtp_proxy.tenants.domains import Record, records

if TYPE_CHECKING:
    from smtp_proxy.config import Settings
    from smtp_proxy.model.domain import Domain


async def examine_hostname(settings: Settings) -> list[Finding]:
    """The name in greetings and certificates leads somewhere."""
    name = settings.hostname
    if name == "localhost" or _is_address(name):
        return [
            warning(
                f"SMTP_PROXY_HOSTNAME is {name}, which is no name of the DNS", "set it to the name that clients use"
            )
        ]
    resolver = Resolver.of(settings)
    try:
        addresses = [str(record) for kind in ("A", "AAAA") for record in (await resolver.ask(name, kind)).records]
    except DnsTrouble as error:
        return [failed(str(error), "see DNS_SERVERS and the resolver of this network")]
    if not addresses:
        return [failed(f"{name} has no address in the DNS", "let it name the load balancer (A, AAAA, or an alias)")]
    return [ok(f"{name} is {', '.join(addresses)}")]


async def examine_domains(settings: Settings) -> list[Finding]:
    """Of all tenants, as the store has them."""
    try:
        store = await Store.connect(settings, purpose="doctor", accepts=False)
    except StoreError as error:
        return [skipped(f"tenants' domains are not known: {error}", "see what is said of postgres")]
    try:
        domains = await store.list_domains()
    finally:
        await store.close()
    if not domains:
        return [
            skipped("no tenant has a domain", "`smtp-proxy domains add` gives one, with the keys that sign its mail")
        ]
    resolver = Resolver.of(settings)
    now = datetime.now(UTC)
    return [
        finding
        for domain in domains
        async for finding in _domain(resolver, domain, records(domain, now, settings.dkim_retire_seconds))
    ]


async def _domain(resolver: Resolver, domain: Domain, keys: Sequence[Record]) -> AsyncIterator[Finding]:
    try:
        yield _spf(domain.name, await _texts(resolver, domain.name))
        for key in keys:
            if key.state != "retired":
                yield _dkim(domain.name, key, await _texts(resolver, key.name))
        yield _dmarc(domain.name, await _texts(resolver, f"_dmarc.{domain.name}"))
    except DnsTrouble as error:
        yield failed(f"{domain.name}: {error}", "see DNS_SERVERS, and the name servers of that domain")


def _spf(domain: str, texts: Sequence[str]) -> Finding:
    """RFC 7208 4.5: exactly one."""
    found = [text for text in texts if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")]
    if len(found) > 1:
        return failed(f"{domain} has {len(found)} SPF records, which is as good as none", "leave one of them")
    if not found:
        return warning(
            f"{domain} has no SPF record", f'publish: {domain}. IN TXT "v=spf1 include:… -all", of your next hop'
        )
    return ok(f"{domain}: {found[0]}")


def _dkim(domain: str, key: Record, texts: Sequence[str]) -> Finding:
    """RFC 6376 3.6.1: tags in any order, spaces between them."""
    wanted = _tags(key.text)
    if any(_tags(text).get("p") == wanted.get("p") for text in texts):
        return ok(f"{domain}: the key {key.selector} is published")
    what = "is published with another key" if texts else "is not published"
    text = f"{domain}: the key {key.selector}, which {'signs' if key.state == 'signs' else 'will sign'}, {what}"
    step = f"publish what `smtp-proxy domains records {domain}` prints"
    return failed(text, step) if key.state == "signs" else warning(text, step)


def _dmarc(domain: str, texts: Sequence[str]) -> Finding:
    """RFC 7489 6.6.3: exactly one."""
    found = [text for text in texts if text.replace(" ", "").lower().startswith("v=dmarc1")]
    if len(found) > 1:
        return failed(f"{domain} has {len(found)} DMARC records, which is as good as none", "leave one of them")
    if not found:
        step = f'publish: _dmarc.{domain}. IN TXT "v=DMARC1; p=none; rua=mailto:…", and a stricter one later'
        return warning(f"{domain} has no DMARC record, which large receivers ask of bulk senders", step)
    return ok(f"{domain}: {found[0]}")


async def _texts(resolver: Resolver, name: str) -> list[str]:
    answer = await resolver.ask(name, "TXT")
    return [b"".join(getattr(record, "strings", ())).decode("utf-8", "replace") for record in answer.records]


def _tags(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";"))
    return {key.strip(): "".join(value.split()) for key, equals, value in pairs if equals}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]").removeprefix("IPv6:"))
    except ValueError:
        return False
    return True
