"""SQLSTATE and exception types to our own words."""

from __future__ import annotations

import asyncpg
import pytest

from smtp_proxy.errors import AlreadyExists, NotFound, StoreError, StoreMisconfigured, StoreUnavailable
from smtp_proxy.store.faults import store_errors, translate

UNAVAILABLE = [
    asyncpg.ConnectionDoesNotExistError("x"),  # 08003
    asyncpg.DeadlockDetectedError("x"),  # 40P01
    asyncpg.SerializationError("x"),  # 40001
    asyncpg.DiskFullError("x"),  # 53100
    asyncpg.TooManyConnectionsError("x"),  # 53300
    asyncpg.QueryCanceledError("x"),  # 57014
    asyncpg.AdminShutdownError("x"),  # 57P01
    asyncpg.CrashShutdownError("x"),  # 57P02
    asyncpg.CannotConnectNowError("x"),  # 57P03
    asyncpg.PostgresIOError("x"),  # 58030
    asyncpg.ReadOnlySQLTransactionError("x"),  # 25006
    asyncpg.LockNotAvailableError("x"),  # 55P03
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InternalClientError("x"),
    ConnectionRefusedError(111, "refused"),
    ConnectionResetError(),
    TimeoutError(),
]
MISCONFIGURED = [
    asyncpg.InvalidPasswordError("x"),  # 28P01
    asyncpg.InvalidAuthorizationSpecificationError("x"),  # 28000
    asyncpg.InvalidCatalogNameError("x"),  # 3D000
    asyncpg.InsufficientPrivilegeError("x"),  # 42501
]


@pytest.mark.parametrize("error", UNAVAILABLE, ids=lambda e: type(e).__name__)
def test_not_now(error: Exception) -> None:
    ours = translate(error, "storing")
    assert type(ours) is StoreUnavailable
    assert ours.temporary
    assert str(ours).startswith("storing: ")
    assert ours.sqlstate == getattr(error, "sqlstate", None)


@pytest.mark.parametrize("error", MISCONFIGURED, ids=lambda e: type(e).__name__)
def test_turned_away(error: Exception) -> None:
    ours = translate(error, "storing")
    assert type(ours) is StoreMisconfigured
    assert (ours.fault, ours.temporary) == ("operator", False)


def test_a_refused_value_is_ours_to_mend() -> None:
    for error in (asyncpg.CharacterNotInRepertoireError("x"), asyncpg.DataError("asyncpg could not encode it")):
        ours = translate(error, "storing")
        assert type(ours) is StoreError
        assert not ours.temporary


def test_taken() -> None:
    assert type(translate(asyncpg.UniqueViolationError("x"), "creating")) is AlreadyExists


def test_a_mistake_in_our_code_is_not_covered_up() -> None:
    assert translate(asyncpg.ClientConfigurationError("no such option"), "storing") is None
    assert translate(KeyError("x"), "storing") is None
    with pytest.raises(asyncpg.ClientConfigurationError), store_errors("storing"):
        raise asyncpg.ClientConfigurationError("no such option")


def test_ours_pass_through_and_causes_are_kept() -> None:
    with pytest.raises(NotFound), store_errors("looking"):
        raise NotFound
    cause = ConnectionResetError()
    with pytest.raises(StoreUnavailable) as caught, store_errors("looking"):
        raise cause
    assert caught.value.__cause__ is cause
