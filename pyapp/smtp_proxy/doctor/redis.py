"""Redis or Valkey: whether it is there, a cluster as we believe, with all slots served, and keeps its keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from smtp_proxy.doctor.finding import Finding, failed, ok, warning
from smtp_proxy.errors import ConfigurationError, StreamUnavailable
from smtp_proxy.stream.connection import Connection, stream_errors

if TYPE_CHECKING:
    from smtp_proxy.config import Settings

_SLOTS = 16_384  # Redis cluster specification, "Key distribution model"


async def examine(settings: Settings) -> list[Finding]:
    """All that one node says of itself and of its cluster."""
    # The node that REDIS_URL names, whether it is one of many or not.
    connection = Connection(settings.model_copy(update={"redis_cluster": False}))
    try:
        async with stream_errors(3 * settings.redis_timeout_seconds + 2):
            info = _texts(await connection.call("INFO"))
            is_cluster = info.get("cluster_enabled") == "1"
            cluster = _texts(await connection.call("CLUSTER INFO")) if is_cluster else {}
    except StreamUnavailable as error:
        step = "see REDIS_URL, REDIS_SECRET, REDIS_IAM (rediss:// for TLS), and the security group of the cache"
        return [failed(f"{error}; mail is accepted, and delivered with a delay", step)]
    except ConfigurationError as error:
        return [failed(str(error), "see REDIS_SECRET, REDIS_IAM")]
    finally:
        await connection.close()
    return [*judge(info, is_cluster=is_cluster, settings=settings), *(judge_slots(cluster) if is_cluster else ())]


def judge(info: Mapping[str, str], *, is_cluster: bool, settings: Settings) -> Iterator[Finding]:
    """Pure; `info` is the answer to INFO."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    yield ok(f"{name} {info.get('valkey_version') or info.get('redis_version', '?')} answers")
    if is_cluster != settings.redis_cluster:
        yield failed(
            f"{'it is a cluster' if is_cluster else 'it is no cluster'}, and REDIS_CLUSTER is {settings.redis_cluster}",
            f"set REDIS_CLUSTER={str(is_cluster).lower()}",
        )
    if info.get("role") not in (None, "master"):
        yield failed("REDIS_URL names a replica, which takes no writes", "name the primary or configuration endpoint")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        yield failed(
            f"maxmemory-policy is {policy}: the stream is thrown away when memory is short",
            "set maxmemory-policy to noeviction in the parameter group",
        )
    elif policy != "noeviction":
        yield warning(
            f"maxmemory-policy is {policy}: limits of tenants are forgotten when memory is short",
            "set maxmemory-policy to noeviction in the parameter group",
        )
    else:
        yield ok("maxmemory-policy is noeviction")
    if info.get("aof_enabled") != "1":
        yield warning(
            "appendonly is off: after a restart the stream is empty, and the sweeper fills it again from Postgres",
            "switch appendonly on if that delay of some seconds matters; nothing is lost either way",
        )


def judge_slots(cluster: Mapping[str, str]) -> Iterator[Finding]:
    """Pure; `cluster` is the answer to CLUSTER INFO."""
    assigned, working = (int(cluster.get(key, 0)) for key in ("cluster_slots_assigned", "cluster_slots_ok"))
    if cluster.get("cluster_state") != "ok" or assigned != _SLOTS or working != _SLOTS:
        yield failed(
            f"the cluster's state is {cluster.get('cluster_state')}: of {_SLOTS} slots {assigned} are assigned and "
            f"{working} served",
            "give every slot to a node that lives (`CLUSTER SHARDS` shows them)",
        )
    else:
        yield ok(f"all {_SLOTS} slots of the cluster are served, by {cluster.get('cluster_size', '?')} shards")


def _texts(answer: Any) -> dict[str, str]:
    """INFO's lines, which redis-py may have read already."""
    if isinstance(answer, dict):
        return {_text(key): _text(value) for key, value in answer.items()}
    lines = _text(answer).splitlines()
    return {key: value for key, colon, value in (line.partition(":") for line in lines) if colon}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
