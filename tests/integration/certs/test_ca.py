"""What a CA may want or say: an account of its own books, another order in place of the last, patience."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from acme import client, messages
from aiohttp import web
from fix_pebble import Pebble, prepared
from fix_postgres import free_port

from smtp_proxy.certs.backup import Backup
from smtp_proxy.certs.ca import Binding, Ca, new_key
from smtp_proxy.certs.issuer import Issuer
from smtp_proxy.certs.responder import answering
from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError, IssuanceFailed
from smtp_proxy.model.certificate import CertificateOrder
from smtp_proxy.sealing import SecretKeys
from smtp_proxy.store import Store

pytestmark = pytest.mark.integration
MAC = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
ORDER = CertificateOrder("mx", ("mx.example.com",))


@pytest.fixture
def strict_ca(tmp_path: Path) -> Iterator[Pebble]:
    """Knows accounts of its own books alone."""
    found = prepared(tmp_path / "strict", free_port())
    found.config = {"externalAccountBindingRequired": True, "externalAccountMACKeys": {"kid-1": MAC}}
    found.start()
    yield found
    found.stop()


def test_external_account_binding(strict_ca: Pebble) -> None:
    key = new_key()
    with pytest.raises(ConfigurationError, match="ACME_EAB_KID and ACME_EAB_HMAC_FILE"):
        Ca(strict_ca.url, key, ca_file=strict_ca.ca_file).register("", None)
    with pytest.raises(IssuanceFailed, match="making an account") as caught:
        Ca(strict_ca.url, key, ca_file=strict_ca.ca_file).register("", Binding("kid-1", "QUFBQUFBQUFBQUFBQUFBQQ"))
    assert "QUFB" not in str(caught.value)
    bound = Ca(strict_ca.url, key, ca_file=strict_ca.ca_file).register("ops@example.com", Binding("kid-1", MAC))
    assert bound.startswith("https://localhost:")
    again = Ca(strict_ca.url, key, ca_file=strict_ca.ca_file).register("ops@example.com", Binding("kid-1", MAC))
    assert again == bound, "the account of this key"
    assert MAC not in repr(Binding("kid-1", MAC))


async def test_an_order_names_what_it_replaces(
    db_settings: Settings, store: Store, pebble: Pebble, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 9773 5; and a CA that knows nothing of that certificate is no obstacle."""
    changes = {"acme_directory": pebble.url, "acme_ca_file": pebble.ca_file, "acme_profile": "default"}
    settings, keys = db_settings.model_copy(update=changes), SecretKeys({"k1": bytes(32)})
    issuer = Issuer(settings, store, keys, None, SystemClock())
    async with answering("127.0.0.1", pebble.http_port, store):
        with caplog.at_level(logging.DEBUG, "acme"):
            first = await issuer.issue(ORDER, None)
            assert '"replaces"' not in caplog.text
            await issuer.issue(ORDER, first)
            assert '"replaces"' in caplog.text
        pebble.stop()
        pebble.start()
        second = await Issuer(settings, store, keys, None, SystemClock()).issue(ORDER, first)
    assert await Backup(settings, keys).save(second) is False


async def test_a_ca_that_does_not_find_it_yet_is_asked_without_it(
    db_settings: Settings, store: Store, pebble: Pebble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pebble sometimes answers so to who renews a certificate of a moment ago; the next try came a minute later."""
    changes = {"acme_directory": pebble.url, "acme_ca_file": pebble.ca_file, "acme_profile": "default"}
    settings, keys = db_settings.model_copy(update=changes), SecretKeys({"k1": bytes(32)})
    issuer, new_order, named = (
        Issuer(settings, store, keys, None, SystemClock()),
        client.ClientV2.new_order,
        list[str](),
    )

    def not_found(self: client.ClientV2, request: bytes, profile: str | None = None) -> messages.OrderResource:
        named.append(self.net.replaces)  # type: ignore[attr-defined]
        if named[-1]:
            raise messages.Error.with_code("serverInternal", detail="could not find an order")
        return new_order(self, request, profile)

    async with answering("127.0.0.1", pebble.http_port, store):
        first = await issuer.issue(ORDER, None)
        monkeypatch.setattr(client.ClientV2, "new_order", not_found)
        second = await issuer.issue(ORDER, first)
    assert second.id != first.id
    assert [bool(name) for name in named] == [True, False]


async def test_what_a_ca_says_of_when_to_come_again() -> None:
    """REQ-INFRA-TLS-006: a limit of its rate (RFC 8555 6.6), in seconds or as a date."""
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    said = ["120", f"{later:%a, %d %b %Y %H:%M:%S} GMT", "soon"]

    async def refuse(_: web.Request) -> web.Response:
        problem = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many new orders"}
        headers = {"Retry-After": said[0], "Replay-Nonce": "bm9uY2U"}
        return web.json_response(problem, status=429, headers=headers, content_type="application/problem+json")

    async def directory(request: web.Request) -> web.Response:
        base = f"http://{request.host}"
        return web.json_response({f"new{what}": f"{base}/{what}" for what in ("Nonce", "Account", "Order")})

    async def nonce(_: web.Request) -> web.Response:
        return web.Response(headers={"Replay-Nonce": "bm9uY2U"})

    application = web.Application()
    application.add_routes([web.get("/dir", directory), web.head("/Nonce", nonce), web.post("/Account", refuse)])
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/dir"
        ca = await asyncio.to_thread(Ca, url, new_key())
        heard = []
        while said:
            with pytest.raises(IssuanceFailed, match="rateLimited: too many new orders") as caught:
                await asyncio.to_thread(ca.register, "", None)
            assert caught.value.code == "rateLimited"
            heard.append(caught.value.retry_after)
            said.pop(0)
    finally:
        await runner.cleanup()
    assert heard[0] is not None
    assert 100 < (heard[0] - datetime.now(UTC)).total_seconds() <= 120
    assert heard[1:] == [later, None]
