"""`/api/v1/suppressions`: addresses that get no more mail of the caller's tenant."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, Field

from smtp_proxy.api.access import Caller, allowed
from smtp_proxy.api.fields import Body, Kept, Mailbox, Plain
from smtp_proxy.api.problems import Problem
from smtp_proxy.model.api_key import ApiScope
from smtp_proxy.model.mailbox import mailbox_key
from smtp_proxy.model.outcome import Suppression

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/v1/suppressions", tags=["suppressions"])

_REASON = "added by the API"


_AS_KEPT = "local-part@domain, in any spelling, or as it is listed."
NewAddress = Annotated[Mailbox, Path(description="local-part@domain, in any spelling.")]
Address = Annotated[Kept, Path(description=_AS_KEPT)]
Reason = Annotated[Plain, Field(min_length=1, max_length=500, description="Why; senders see it in the refusal.")]
Reader = Annotated[Caller, Depends(allowed(ApiScope.SUPPRESSIONS_READ))]
Writer = Annotated[Caller, Depends(allowed(ApiScope.SUPPRESSIONS_WRITE))]


class SuppressionOut(BaseModel):
    """An address that gets no more mail."""

    address: str
    reason: str
    created_at: datetime | None
    message_id: UUID | None = Field(description="Whose refusal put it there; null: somebody did.")


class SuppressionPage(BaseModel):
    """By address. `next`: what to give as `after` for the next page; null: this is the last."""

    suppressions: list[SuppressionOut]
    next: str | None


class SuppressionIn(Body):
    """Why."""

    reason: Reason = _REASON


class SuppressionsIn(Body):
    """Many at once, for one reason."""

    addresses: list[Mailbox] = Field(min_length=1, max_length=1000)
    reason: Reason = _REASON


class Added(BaseModel):
    """How many are new, and how many were there already and keep their reason."""

    added: int
    already: int


@router.get("")
async def list_suppressions(
    caller: Reader,
    after: Annotated[Kept, Query(description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> SuppressionPage:
    """List them, by address."""
    found = await caller.desk.store.list_suppressions(caller.key.tenant_id, after=after, limit=limit + 1)
    page = [_shown(each) for each in found[:limit]]
    return SuppressionPage(suppressions=page, next=page[-1].address if len(found) > limit else None)


@router.post("")
async def add_suppressions(caller: Writer, body: SuppressionsIn) -> Added:
    """Let these get no more mail of the tenant, from the next attempt on. All of them, or on an error none."""
    wanted = list({mailbox_key(address): address for address in body.addresses}.values())
    added = await caller.desk.store.add_suppressions(caller.key.tenant_id, wanted, body.reason)
    _tell(caller, "suppressed", added)
    return Added(added=added, already=len(wanted) - added)


@router.get("/{address:path}")
async def show_suppression(caller: Reader, address: Address) -> SuppressionOut:
    """Show one. 404: the address gets mail."""
    return await _of(caller, address)


@router.put("/{address:path}", responses={201: {"description": "It was not there yet.", "model": SuppressionOut}})
async def put_suppression(
    caller: Writer, address: NewAddress, response: Response, body: SuppressionIn | None = None
) -> SuppressionOut:
    """Let one get no more mail of the tenant. One that is there already keeps its reason."""
    reason = (body or SuppressionIn()).reason
    added = await caller.desk.store.add_suppressions(caller.key.tenant_id, [address], reason)
    _tell(caller, "suppressed", added)
    response.status_code = 201 if added else 200
    return await _of(caller, address)


@router.delete("/{address:path}", status_code=204)
async def remove_suppression(caller: Writer, address: Address) -> None:
    """Let one get mail again. What was refused stays refused."""
    removed = await caller.desk.store.remove_suppressions(caller.key.tenant_id, [address])
    if not removed:
        raise _not_there(address)
    _tell(caller, "unsuppressed", len(removed))


async def _of(caller: Caller, address: str) -> SuppressionOut:
    found = await caller.desk.store.list_suppressions(caller.key.tenant_id, address=address, limit=1)
    if not found:
        raise _not_there(address)
    return _shown(found[0])


def _not_there(address: str) -> Problem:
    return Problem(404, f"{address} is not suppressed")


def _shown(suppression: Suppression) -> SuppressionOut:
    return SuppressionOut(
        address=suppression.address,
        reason=suppression.reason,
        created_at=suppression.created_at,
        message_id=suppression.envelope_id,
    )


def _tell(caller: Caller, action: str, count: int) -> None:
    # Who and how many: the addresses are people's.
    if count:
        log.info("%s %d", action, count, extra={"action": action, "tenant": caller.key.tenant, "key": caller.key.name})
