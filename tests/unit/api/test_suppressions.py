"""Addresses that get no more mail of a tenant, by HTTP (issue: the list is fed by hard bounces and by API)."""

from __future__ import annotations

from urllib.parse import quote
from uuid import UUID

import pytest
from fix_api import Api, problem
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.errors import InvalidValue
from smtp_proxy.model.mailbox import mailbox_key
from smtp_proxy.model.outcome import Suppression
from smtp_proxy.tenants.names import mailbox

PATH = "/api/v1/suppressions"


async def test_the_life_of_one(api: Api) -> None:
    key = await api.key()
    one = f"{PATH}/you@example.net"
    assert problem(await api("GET", one, key=key), 404) == "you@example.net is not suppressed"
    made = await api("PUT", one, key=key, body={"reason": "asked us to"})
    assert made.status == 201
    assert made.json()["address"] == "you@example.net"
    assert (made.json()["reason"], made.json()["message_id"]) == ("asked us to", None)
    assert made.json()["created_at"].startswith("2026-01-01T00:00:00")

    again = await api("PUT", f"{PATH}/You@EXAMPLE.net", key=key, body={"reason": "another"})
    assert (again.status, again.json()) == (200, made.json())
    bare = await api("PUT", f"{PATH}/third@example.net", key=key)
    assert (bare.status, bare.json()["reason"]) == (201, "added by the API")
    assert (await api("GET", f"{PATH}/YOU@example.NET", key=key)).json() == made.json()

    gone = await api("DELETE", one, key=key)
    assert (gone.status, gone.body) == (204, b"")
    assert problem(await api("DELETE", one, key=key), 404) == "you@example.net is not suppressed"


async def test_another_tenants_are_not_there(api: Api) -> None:
    await api.store.create_tenant("abc")
    mine, theirs = await api.key(), await api.key(tenant="abc")
    await api("PUT", f"{PATH}/you@example.net", key=mine)
    assert (await api("GET", PATH, key=theirs)).json() == {"suppressions": [], "next": None}
    assert (await api("GET", f"{PATH}/you@example.net", key=theirs)).status == 404
    assert (await api("DELETE", f"{PATH}/you@example.net", key=theirs)).status == 404
    assert (await api("PUT", f"{PATH}/you@example.net", key=theirs, body={"reason": "theirs"})).status == 201
    assert (await api("GET", f"{PATH}/you@example.net", key=mine)).json()["reason"] == "added by the API"


async def test_many_at_once(api: Api) -> None:
    key = await api.key()
    addresses = [f"{n:04}@example.net" for n in range(999)]
    added = await api("POST", PATH, key=key, body={"addresses": [*addresses, "0000@EXAMPLE.net"], "reason": "moved"})
    assert (added.status, added.json()) == (200, {"added": 999, "already": 0})
    again = await api("POST", PATH, key=key, body={"addresses": ["0001@example.net", "new@example.net"]})
    assert again.json() == {"added": 1, "already": 1}

    seen: list[str] = []
    after = ""
    for _ in range(4):
        page = (await api("GET", f"{PATH}?limit=400&after={quote(after)}", key=key)).json()
        seen += [each["address"] for each in page["suppressions"]]
        after = page["next"]
        if after is None:
            break
    assert seen == sorted([*addresses, "new@example.net"])
    assert (await api("GET", f"{PATH}?limit=1000", key=key)).json()["next"] is None


async def test_one_that_is_none_keeps_all_out_and_is_named(api: Api) -> None:
    key = await api.key()
    answer = await api("POST", PATH, key=key, body={"addresses": ["you@example.net", "nonsense"]})
    assert "body.addresses.1" in problem(answer, 422)
    (error,) = answer.json()["errors"]
    assert error["field"] == "body.addresses.1"
    assert "'nonsense' is no address: write local-part@domain alone" in error["detail"]
    assert (await api("GET", PATH, key=key)).json()["suppressions"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body.addresses"),
        ({"addresses": []}, "body.addresses"),
        ({"addresses": ["a@b.example"] * 1001}, "body.addresses"),
        ({"addresses": ["a@b.example"], "reason": ""}, "body.reason"),
        ({"addresses": ["a@b.example"], "reason": "x" * 501}, "body.reason"),
        ({"addresses": ["a@b.example"], "reason": "two\r\nlines"}, "body.reason"),
        ({"addresses": ["a@b.example"], "reson": "x"}, "body"),
        ({"addresses": ["a\0@b.example"]}, "body.addresses.0"),
        ({"addresses": ["\ud800@b.example"]}, "body.addresses.0"),
        ({"addresses": [7]}, "body.addresses.0"),
        ([], "body"),
    ],
)
async def test_what_is_wrong_with_a_request_is_named(api: Api, body: object, field: str) -> None:
    answer = await api("POST", PATH, key=await api.key(), body=body)
    assert field in problem(answer, 422)
    assert field in [error["field"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after=%00", f"after={'a' * 2801}"])
async def test_what_is_wrong_with_a_query_is_named(api: Api, query: str) -> None:
    answer = await api("GET", f"{PATH}?{query}", key=await api.key())
    assert f"query.{query.partition('=')[0]}" in problem(answer, 422)


async def test_no_json(api: Api) -> None:
    answer = await api("POST", PATH, key=await api.key(), parts=[b"{"], headers={"content-type": "application/json"})
    assert problem(answer, 422).startswith("body")


@pytest.mark.parametrize(
    "address",
    [
        "a/b@example.net",
        "a%b@example.net",
        '"a b"@example.net',
        "a+b?c#d@example.net",
        "müller@müller.example",
    ],
)
async def test_any_local_part_has_a_path(api: Api, address: str) -> None:
    key = await api.key()
    path = f"{PATH}/{quote(address, safe='')}"
    assert (await api("PUT", path, key=key)).json()["address"] == mailbox_key(address)
    assert (await api("GET", path, key=key)).status == 200
    assert (await api("DELETE", path, key=key)).status == 204


@pytest.mark.parametrize(
    "address",
    [
        "",
        "@",
        "nonsense",
        "you@",
        "@example.net",
        "a@b c.example",
        "a\t@b.example",
        "a" * 255,
        "You <you@b.example>",
        "<you@b.example>",
        "a@b.example/",
        "x<script>, y@b.example",
        "a..b@b.example",
        "a b@b.example",
        "a@b..example",
        "a@-b.example",
        "a@[300.0.0.1]",
        "\ufffd@b.example",
        "a@" + "b" * 64 + ".example",
        "a" * 65 + "@b.example",
        "a\u2028@b.example",
    ],
)
async def test_what_is_no_address(api: Api, address: str) -> None:
    answer = await api("PUT", f"{PATH}/{quote(address, safe='')}", key=await api.key())
    assert "path.address" in problem(answer, 422)


async def test_whose_refusal_put_it_there(api: Api) -> None:
    tenant = await api.store.tenant_by_name("acme")
    message_id = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
    api.store._suppress(Suppression(tenant.id, "you@example.net", "550 5.1.1 no such user", message_id))
    shown = (await api("GET", f"{PATH}/you@example.net", key=await api.key())).json()
    assert (shown["message_id"], shown["reason"]) == (str(message_id), "550 5.1.1 no such user")


@given(st.text(max_size=300))
def test_whatever_is_written_is_an_address_or_invalid(text: str) -> None:
    try:
        found = mailbox(text)
    except InvalidValue as error:
        said = str(error)
        assert len(said) < 600
        return
    assert mailbox(found) == found
    assert mailbox_key(found).encode()


async def test_what_a_bounce_put_there_is_listed_shown_and_removed(api: Api) -> None:
    """Letters that are joined by invisible characters, as in Persian, are a local part like another."""
    key = await api.key()
    tenant = await api.store.tenant_by_name("acme")
    addresses = sorted(
        ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645@example.net", "a\u00adb@example.net", "z@example.net"]
    )
    await api.store.add_suppressions(tenant.id, addresses, "550 5.1.1 gone")
    seen, after = [], ""
    while after is not None:
        page = (await api("GET", f"{PATH}?limit=1&after={quote(after, safe='')}", key=key)).json()
        seen += [each["address"] for each in page["suppressions"]]
        after = page["next"]
    assert seen == addresses
    for address in seen:
        one = f"{PATH}/{quote(address, safe='')}"
        assert (await api("GET", one, key=key)).json()["address"] == address
        assert (await api("PUT", one, key=key)).status == 200
        assert (await api("DELETE", one, key=key)).status == 204
