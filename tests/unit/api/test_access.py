"""Who asks, and how a refusal looks."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from asgi import ask
from fix_api import Api, problem
from starlette.exceptions import HTTPException
from starlette.types import Message

from smtp_proxy.api import access
from smtp_proxy.api.access import PLACES_OF_A_TENANT
from smtp_proxy.api.body import MAX_BYTES, BodyLimit
from smtp_proxy.api.observed import REQUESTS, Observed
from smtp_proxy.model.api_key import ApiKey, ApiScope

PATH = "/api/v1/suppressions"


async def test_who_does_not_say_who_it_is(api: Api) -> None:
    for headers in ({}, {"authorization": "Basic YTpi"}, {"authorization": "Bearer"}):
        answer = await api("GET", PATH, headers=headers)
        assert "Authorization: Bearer" in problem(answer, 401)
        assert answer.headers["www-authenticate"] == 'Bearer realm="smtp-proxy"'  # RFC 6750 3: no error code


async def test_a_key_that_opens_nothing(api: Api) -> None:
    key = await api.key()
    assert (await api("GET", PATH, key=key)).status == 200
    await api.store.revoke_api_key("acme", "crm")
    for given in (key, "spk_" + "A" * 43, "nonsense"):
        answer = await api("GET", PATH, key=given)
        assert "opens nothing" in problem(answer, 401)
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert given not in answer.body.decode()


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", PATH, ApiScope.SUPPRESSIONS_READ),
        ("GET", f"{PATH}/you@example.net", ApiScope.SUPPRESSIONS_READ),
        ("POST", PATH, ApiScope.SUPPRESSIONS_WRITE),
        ("PUT", f"{PATH}/you@example.net", ApiScope.SUPPRESSIONS_WRITE),
        ("DELETE", f"{PATH}/you@example.net", ApiScope.SUPPRESSIONS_WRITE),
        ("GET", "/api/v1/messages", ApiScope.MESSAGES_READ),
        ("GET", "/api/v1/messages/01890a5d-ac96-774b-bcce-b302099a8057", ApiScope.MESSAGES_READ),
        ("POST", "/api/v1/messages/01890a5d-ac96-774b-bcce-b302099a8057/hold", ApiScope.MESSAGES_WRITE),
    ],
)
async def test_each_route_asks_for_its_scope(api: Api, method: str, path: str, scope: ApiScope) -> None:
    body = {"addresses": ["you@example.net"]} if method == "POST" and path == PATH else None
    others = await api.key(*(set(ApiScope) - {scope}), name="others")
    answer = await api(method, path, key=others, body=body)
    assert problem(answer, 403) == f"the key others has not the scope {scope}"
    assert f'error="insufficient_scope", scope="{scope}"' in answer.headers["www-authenticate"]
    assert (await api(method, path, body=body)).status == 401
    mine = await api.key(scope, name="mine")
    assert (await api(method, path, key=mine, body=body)).status in (200, 201, 404)


async def test_every_route_of_the_description_is_one_that_asks(api: Api) -> None:
    described = (await api("GET", "/api/openapi.json")).json()
    assert len(described["paths"]) == 5
    for path, methods in described["paths"].items():
        for method, about in methods.items():
            assert about["security"] == [{"HTTPBearer": []}], (method, path)
            filled = path.format(
                address="you@example.net", message_id="01890a5d-ac96-774b-bcce-b302099a8057", change="hold"
            )
            body = {"addresses": ["you@example.net"]} if (method, path) == ("post", PATH) else None
            assert (await api(method.upper(), filled, body=body)).status == 401, (method, path)


async def test_what_is_not_there(api: Api) -> None:
    for path in ("/", "/api/v1", "/docs", "/redoc"):
        assert "/api/openapi.json" in problem(await api("GET", path), 404), path
    assert (await api("GET", "/api/v1/nothing")).status == 401
    answer = await api("PATCH", PATH, key=await api.key())
    assert "PATCH is not for this path" in problem(answer, 405)
    assert answer.headers["allow"] == "GET, POST"
    assert problem(answer, 405).endswith("there are GET, POST")
    answer = await api("HEAD", f"{PATH}/you@example.net", key=await api.key(name="head"))
    assert (answer.status, answer.headers["allow"]) == (405, "DELETE, GET, PUT")


async def test_a_database_that_is_away_is_said_to_be(api: Api) -> None:
    key = await api.key()
    api.store.down = True
    answer = await api("GET", PATH, key=key)
    assert "ask again" in problem(answer, 503)
    assert answer.headers["retry-after"] == "5"


async def test_a_mistake_of_ours_tells_nothing_but_that(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = await api.key()

    async def broken(*_: object, **__: object) -> list[object]:
        raise RuntimeError("a row with secret@example.net")

    monkeypatch.setattr(api.store, "list_suppressions", broken)
    with caplog.at_level(logging.ERROR):
        answer = await api("GET", PATH, key=key)
    assert answer.headers["x-request-id"] in problem(answer, 500)
    assert "secret@example.net" not in answer.body.decode()
    (logged,) = [r for r in caplog.records if getattr(r, "action", "") == "request_failed"]
    assert logged.request_id == answer.headers["x-request-id"]  # type: ignore[attr-defined]
    assert "secret@example.net" in caplog.text


async def test_no_request_is_too_large(api: Api) -> None:
    key = await api.key()
    announced = await api("POST", PATH, key=key, parts=[b"{}"], headers={"content-length": str(MAX_BYTES + 1)})
    streamed = await api("POST", PATH, key=key, parts=[b" " * (MAX_BYTES // 2)] * 4)
    assert (announced.reads, streamed.reads) == (0, 3)
    for answer in (announced, streamed):
        assert f"at most {MAX_BYTES} bytes" in problem(answer, 413)
        assert answer.headers["connection"] == "close"
    assert (
        await api("POST", PATH, key=key, body={"addresses": ["you@example.net"], "reason": "x" * 500})
    ).status == 200


async def test_health_says_no_more_than_whether(api: Api) -> None:
    answer = await api("GET", "/health")
    assert (answer.status, answer.json()) == (200, {"service": "api", "ready": True})
    api.health = 503
    answer = await api("GET", "/health")
    assert (answer.status, answer.json()) == (503, {"service": "api", "ready": False})


async def test_each_request_is_counted_by_its_route_and_has_an_id(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    key = await api.key()

    def counted(route: str, status: int) -> float:
        return REQUESTS.labels("GET", route, str(status))._value.get()

    route = PATH + "/{address:path}"
    before, nowhere = counted(route, 404), counted("none", 404)
    with caplog.at_level(logging.DEBUG, "smtp_proxy.api"):
        first = await api("GET", f"{PATH}/you@example.net", key=key)
        second = await api("GET", "/no/such/path")
    assert (counted(route, 404), counted("none", 404)) == (before + 1, nowhere + 1)
    ids = [first.headers["x-request-id"], second.headers["x-request-id"]]
    assert len(set(ids)) == 2
    logged = [r for r in caplog.records if getattr(r, "action", "") == "api_request"]
    assert [r.request_id for r in logged] == ids  # type: ignore[attr-defined]
    odd = await api("BREW", "/")
    assert odd.status == 404
    assert REQUESTS.labels("other", "none", "404")._value.get() >= 1
    assert "BREW" not in str(list(REQUESTS.collect()))
    assert (logged[0].tenant, logged[0].key) == ("acme", "crm")  # type: ignore[attr-defined]
    assert not any("you@example.net" in str(vars(record)) for record in logged)
    assert not any(key in str(vars(record)) for record in caplog.records)


async def test_nothing_of_a_body_is_read_before_it_is_known_whose_it_is(api: Api) -> None:
    for key in (None, "spk_" + "A" * 43):
        answer = await api("POST", PATH, key=key, parts=[b"{", b"}"])
        assert (answer.status, answer.reads, answer.headers["connection"]) == (401, 0, "close")
    api.store.down = True
    answer = await api("POST", PATH, key="spk_" + "A" * 43, parts=[b"{"])
    assert (answer.status, answer.reads, answer.headers["connection"]) == (503, 0, "close")


async def test_no_tenant_takes_all_places(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.store.create_tenant("abc")
    mine, theirs = await api.key(), await api.key(tenant="abc")
    go_on = asyncio.Event()
    listing = api.store.list_suppressions

    async def slow(*arguments: object, **named: object) -> object:
        await go_on.wait()
        return await listing(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(api.store, "list_suppressions", slow)
    under_way = [asyncio.create_task(api("GET", PATH, key=mine)) for _ in range(PLACES_OF_A_TENANT)]
    await asyncio.sleep(0)
    answer = await api("GET", PATH, key=mine)
    assert f"{PLACES_OF_A_TENANT} requests of this tenant" in problem(answer, 429)
    assert answer.headers["retry-after"] == "1"
    assert (await api("GET", "/api/v1/messages", key=theirs)).status == 200
    go_on.set()
    assert {each.status for each in await asyncio.gather(*under_way)} == {200}
    assert (await api("GET", PATH, key=mine)).status == 200


async def test_there_are_so_many_places(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PLACES", 2)
    go_on = asyncio.Event()

    async def slow(_: str) -> None:
        await go_on.wait()

    monkeypatch.setattr(api.app.state.desk.keys, "find", slow)
    under_way = [asyncio.create_task(api("GET", PATH, key="any")) for _ in range(2)]
    await asyncio.sleep(0)
    assert "too many requests" in problem(await api("GET", PATH, key="any"), 503)
    assert (await api("GET", "/health")).status == 200
    go_on.set()
    assert {each.status for each in await asyncio.gather(*under_way)} == {401}
    assert (await api("GET", PATH, key="any")).status == 401


async def test_a_body_that_does_not_come_is_not_waited_for(api: Api) -> None:
    async def read(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    scope = {"type": "http", "headers": []}
    with pytest.raises(HTTPException) as caught:
        await BodyLimit(read, seconds=0.05)(scope, never, never)  # type: ignore[arg-type]
    assert (caught.value.status_code, caught.value.headers) == (408, {"Connection": "close"})


async def test_a_request_that_is_cut_off_at_the_end_hears_so() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    asking = asyncio.create_task(ask(Observed(slow), "GET", "/"))
    await asyncio.sleep(0)
    asking.cancel()
    answer = await asking
    assert "ask again" in problem(answer, 503)


async def test_an_answer_that_has_begun_is_not_taken_for_whole() -> None:
    """No end is sent: the server below breaks the connection off."""
    sent: list[str] = []

    def broken(error: BaseException) -> Observed:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise error

        return Observed(app)

    async def noted(message: Message) -> None:
        sent.append(message["type"])

    scope = {"type": "http", "method": "GET"}
    with pytest.raises(RuntimeError, match="ours"):
        await broken(RuntimeError("ours"))(scope, noted, noted)  # type: ignore[arg-type]
    await broken(asyncio.CancelledError())(scope, noted, noted)  # type: ignore[arg-type]
    assert sent == ["http.response.start"] * 2


async def test_of_what_is_wrong_only_so_much_is_told(api: Api) -> None:
    key = await api.key()
    answer = await api("POST", PATH, key=key, body={"addresses": ["nonsense" * 10] * 1000})
    assert len(answer.json()["errors"]) == 20
    assert len(answer.body) < 10_000
    answer = await api("POST", PATH, key=key, body={"x" * 100_000: 1, **{f"y{n}": n for n in range(10_000)}})
    assert len(answer.body) < 1000
    assert "there are addresses, reason" in problem(answer, 422)


async def test_who_changed_what_is_logged_without_whose_address(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    key = await api.key()
    with caplog.at_level(logging.INFO):
        await api("PUT", f"{PATH}/you@example.net", key=key)
        await api("PUT", f"{PATH}/you@example.net", key=key)
        await api("DELETE", f"{PATH}/you@example.net", key=key)
    told = [(r.action, r.tenant, r.key) for r in caplog.records if hasattr(r, "tenant")]  # type: ignore[attr-defined]
    assert told == [("suppressed", "acme", "crm"), ("unsuppressed", "acme", "crm")]
    assert "you@example.net" not in caplog.text


def test_a_key_of_a_tenant_that_is_disabled_opens_nothing() -> None:
    now = datetime(2026, 11, 27, tzinfo=UTC)
    key = ApiKey(uuid4(), uuid4(), "acme", "crm", frozenset(ApiScope), now)
    assert key.is_valid(now)
    assert not replace(key, tenant_disabled=True).is_valid(now)
