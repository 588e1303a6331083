"""What operators say of certificates to be issued."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from fix_shell import Shell

from smtp_proxy.store.certificates import OrderAttempt


def test_declared_listed_asked_for_and_undeclared(shell: Shell) -> None:
    """REQ-INFRA-TLS-004: on demand too."""
    assert shell("certs", "renew") == 0
    assert "no certificate is declared" in shell.out
    shell("certs", "declare", "MX.example.com", "mail.example.com", "--name", "mx")
    shell("certs", "declare", "*.example.com")
    (wild, mx) = shell.json("certs", "orders")
    assert (mx["name"], mx["names"], mx["challenge"]) == ("mx", ["mx.example.com", "mail.example.com"], "http-01")
    assert (wild["name"], wild["challenge"], wild["declared_by"]) == ("_.example.com", "dns-01", "operator")
    assert (mx["asked_at"], mx["not_after"], mx["attempts"]) == (None, None, 0)
    assert shell("certs", "renew", "mx") == 0
    assert "asked for: mx" in shell.out
    assert [order["asked_at"] is not None for order in shell.json("certs", "orders")] == [False, True]
    shell("certs", "undeclare", "mx")
    assert [order["name"] for order in shell.json("certs", "orders")] == ["_.example.com"]
    assert shell("certs", "renew", "other") != 0


def test_what_programs_are_told(shell: Shell) -> None:
    declared = shell.json("certs", "declare", "mx.example.com", "--name", "mx")
    assert declared == {"name": "mx", "names": ["mx.example.com"], "challenge": "http-01"}
    assert shell.json("certs", "renew") == {"asked": ["mx"]}
    assert shell.json("certs", "undeclare", "mx") == {"name": "mx"}
    assert shell.json("certs", "renew") == {"asked": []}


def test_why_it_failed_is_shown(shell: Shell) -> None:
    shell("certs", "declare", "mx.example.com")
    now = shell.store._clock.now()
    later = now + timedelta(hours=1)

    async def fail() -> None:
        (order,) = await shell.store.list_certificate_orders()
        await shell.store.begin_certificate_attempt(order, later)
        await shell.store.record_certificate_attempt(OrderAttempt(order.name, "rateLimited: too many", later))

    asyncio.run(fail())
    (order,) = shell.json("certs", "orders")
    assert (order["attempts"], order["last_error"]) == (1, "rateLimited: too many")
