"""A tenant's mail by HTTP: what became of it, and what is to become of what waits."""

from __future__ import annotations

import logging
from uuid import UUID, uuid4

import pytest
from fix_api import Api, problem
from store_suite import LEASE, SWEEP_AFTER, attempt_for, core_envelope, ids_of

from smtp_proxy.model.api_key import ApiScope
from smtp_proxy.model.attempt import Outcome
from smtp_proxy.model.envelope import DeliveryState

PATH = "/api/v1/messages"


async def submitted(api: Api, tenant: str = "acme", count: int = 1) -> list[UUID]:
    """Messages of that tenant, each to two recipients."""
    owner = await api.store.tenant_by_name(tenant)
    batch = [core_envelope(["a@example.net", "b@example.net"], tenant=owner.id.bytes) for _ in range(count)]
    await api.store.accept(batch, sweep_after_seconds=SWEEP_AFTER)
    return ids_of(batch)


async def test_a_message_that_waits(api: Api) -> None:
    (message_id,) = await submitted(api)
    shown = (await api("GET", f"{PATH}/{message_id}", key=await api.key())).json()
    assert shown["id"] == str(message_id)
    assert [(d["recipient"], d["state"], d["attempts"]) for d in shown["deliveries"]] == [
        ("a@example.net", "queued", []),
        ("b@example.net", "queued", []),
    ]
    assert all(d["next_attempt_at"] for d in shown["deliveries"])
    assert shown["lane"] == "transactional"


async def test_an_unknown_outcome_is_visible(api: Api) -> None:
    (message_id,) = await submitted(api)
    worker = uuid4()
    (job,) = await api.store.claim([message_id], worker, LEASE)
    await api.store.record([attempt_for(job, worker, Outcome.UNKNOWN)])
    shown = (await api("GET", f"{PATH}/{message_id}", key=await api.key())).json()
    (attempt,) = shown["deliveries"][0]["attempts"]
    assert attempt["outcome"] == "unknown"
    assert "worker_id" not in attempt


async def test_hold_release_cancel(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (message_id,) = await submitted(api)
    key = await api.key()
    for change, state in (("hold", "held"), ("release", "queued"), ("cancel", "cancelled")):
        answer = await api("POST", f"{PATH}/{message_id}/{change}", key=key)
        assert (answer.status, {d["state"] for d in answer.json()["deliveries"]}) == (200, {state})
        again = await api("POST", f"{PATH}/{message_id}/{change}", key=key)
        assert f"{change} does not apply" in problem(again, 409)
    assert all(d["next_attempt_at"] is None for d in answer.json()["deliveries"])
    told = [(r.action, r.tenant, r.key, r.envelope_id) for r in caplog.records if hasattr(r, "envelope_id")]
    changes = ("hold", "release", "cancel")
    assert told == [(f"message_{change}", "acme", "crm", str(message_id)) for change in changes]
    assert (await api.store.message(message_id)).deliveries[0].state is DeliveryState.CANCELLED


async def test_another_tenants_message_is_not_there(api: Api) -> None:
    await api.store.create_tenant("abc")
    (message_id,) = await submitted(api)
    theirs = await api.key(tenant="abc")
    for method, path in (("GET", f"{PATH}/{message_id}"), ("POST", f"{PATH}/{message_id}/cancel")):
        assert problem(await api(method, path, key=theirs), 404) == f"there is no message {message_id}"
        nothing = path.replace(str(message_id), str(uuid4()))
        assert (await api(method, nothing, key=theirs)).status == 404
    assert (await api("GET", PATH, key=theirs)).json() == {"messages": [], "next": None}
    assert (await api.store.message(message_id)).deliveries[0].state is DeliveryState.QUEUED


@pytest.mark.parametrize("count", [4, 5])
async def test_listing_page_by_page(api: Api, count: int) -> None:
    ids = [str(each) for each in await submitted(api, count=count)]
    key = await api.key(ApiScope.MESSAGES_READ)
    seen, before = [], ""
    while before is not None:
        page = (await api("GET", f"{PATH}?limit=2{before and f'&before={before}'}", key=key)).json()
        seen += [each["id"] for each in page["messages"]]
        before = page["next"]
    assert seen == sorted(ids, reverse=True)
    assert page["messages"][0]["recipients"] == [
        {"recipient": "a@example.net", "state": "queued"},
        {"recipient": "b@example.net", "state": "queued"},
    ]


async def test_listing_those_in_a_state(api: Api) -> None:
    first, second = await submitted(api, count=2)
    key = await api.key()
    await api("POST", f"{PATH}/{second}/hold", key=key)
    for state, wanted in (("held", [second]), ("queued", [first]), ("delivered", [])):
        found = (await api("GET", f"{PATH}?state={state}", key=key)).json()["messages"]
        assert [each["id"] for each in found] == [str(each) for each in wanted]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{PATH}/nonsense", "path.message_id"),
        (f"{PATH}?state=waiting", "query.state"),
        (f"{PATH}?before=1", "query.before"),
        (f"{PATH}?limit=501", "query.limit"),
    ],
)
async def test_what_is_wrong_is_named(api: Api, path: str, field: str) -> None:
    assert field in problem(await api("GET", path, key=await api.key()), 422)


async def test_there_are_three_changes(api: Api) -> None:
    (message_id,) = await submitted(api)
    answer = await api("POST", f"{PATH}/{message_id}/reroute", key=await api.key())
    assert "path.change" in problem(answer, 422)
    assert "'hold', 'release' or 'cancel'" in answer.json()["detail"]
