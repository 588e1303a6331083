"""Who asks, and how a refusal looks."""

from __future__ import annotations

import logging

import pytest
from fix_api import Api, problem

from smtp_proxy.api.body import MAX_BYTES
from smtp_proxy.api.observed import REQUESTS
from smtp_proxy.model.api_key import ApiScope

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
    for path in ("/", "/api/v1", "/api/v1/nothing", "/docs", "/redoc"):
        assert "/api/openapi.json" in problem(await api("GET", path), 404), path
    answer = await api("PATCH", PATH)
    assert "PATCH is not for this path" in problem(answer, 405)
    assert answer.headers["allow"]


async def test_a_database_that_is_away_is_said_to_be(api: Api) -> None:
    key = await api.key()
    api.store.down = True
    answer = await api("GET", PATH, key=key)
    assert "try again" in problem(answer, 503)
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
    streamed = await api("POST", PATH, key=key, parts=[b" " * (MAX_BYTES // 2)] * 3)
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
    assert (logged[0].tenant, logged[0].key) == ("acme", "crm")  # type: ignore[attr-defined]
    assert not any("you@example.net" in str(vars(record)) for record in logged)
    assert not any(key in str(vars(record)) for record in caplog.records)
