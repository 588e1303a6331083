"""How this house talks to Redis: one client per purpose, short time-outs, every trouble a `StreamUnavailable`.

Commands are sent raw and answers read in their RESP2 shape, so the wire is what the code says and a change of
redis-py's answer objects changes nothing here. With `redis_cluster` the client finds each key's node by itself and
follows it when it moves; every command of this house names one key.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redis._parsers.commands import AsyncCommandsParser
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, NoScriptError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from smtp_proxy.aws.cache_login import cache_login
from smtp_proxy.aws.logins import redis_login
from smtp_proxy.errors import ConfigurationError, SecretUnavailable, StreamUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from smtp_proxy.aws.cache_login import CacheLogin
    from smtp_proxy.aws.logins import Login
    from smtp_proxy.aws.secrets import SecretValue
    from smtp_proxy.config import Settings

_T = TypeVar("_T")

MAX_BLOCK_SECONDS: Final = 5.0
# Of a cluster, within one call: a node that failed or gave its slots away has the map of nodes read anew.
_MOVES_FOLLOWED: Final = 3
_RAW = ("XREADGROUP", "XAUTOCLAIM", "XINFO GROUPS", "XLEN", "EVALSHA", "EVAL")


class Connection:
    """A client that connects when first used and again whenever it has to.

    A connection gone stale since its last use is replaced once, at once; every other trouble is the caller's.
    """

    def __init__(self, settings: Settings, *, blocking_seconds: float = 0.0) -> None:
        """Raises ConfigurationError: an option in redis_url can not be used."""
        self._provider = _provider(settings)
        self._redis = _client(settings, blocking_seconds, self._provider)
        for command in _RAW:
            self._redis.set_response_callback(command, _as_it_came)

    async def call(self, *command: bytes | str | int) -> Any:
        """Send one command; the answer is lists, bytes and integers. Raises what redis-py raises."""
        return await self._logged_in(lambda: self._call(command))

    async def _call(self, command: Sequence[bytes | str | int]) -> Any:
        with _closed_meanwhile():
            return await self._redis.execute_command(*command)

    async def call_each(self, commands: Sequence[Sequence[bytes | str | int]]) -> list[Any]:
        """Send several commands in one round trip; an answer may be a ResponseError. Raises what redis-py raises."""
        answers = await self._logged_in(lambda: self._call_each(commands))
        if self._provider is not None and any(isinstance(a, RedisError) and _is_refused(a) for a in answers):
            # By one node of a cluster. Others have done as told, so it is for the caller to come again.
            await self._provider.renew()
        return answers

    async def _call_each(self, commands: Sequence[Sequence[bytes | str | int]]) -> list[Any]:
        with _closed_meanwhile():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def close(self) -> None:
        await self._redis.aclose()

    async def _logged_in(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Call; when the login out of a secret is refused, and there is a new one by now, call once more.

        The caller's time is short (`stream_errors`), and comes again: there is no waiting here.
        """
        try:
            return await call()
        except (RedisError, RedisClusterException) as error:
            # Whoever is refused was not heard: nothing was done.
            if self._provider is None or not _is_refused(error) or not await self._provider.renew():
                raise
        return await call()


@contextmanager
def _closed_meanwhile() -> Iterator[None]:
    """What redis-py lets through when a connection is closed under whoever is just opening it.

    It finds None where the stream was, when a cluster's node was given up; uvloop refuses to write to a closed handle
    with a RuntimeError, where asyncio's own loop says so later, as an OSError.
    """
    try:
        yield
    except (AttributeError, RuntimeError) as error:
        raise RedisConnectionError("the connection was closed while it was opened") from error


class _Credentials(CredentialProvider):
    """Gives redis-py what a secret says, whenever it connects."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._given: SecretValue | None = None

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        try:
            value = await self._login.read()
        except SecretUnavailable as error:
            raise RedisConnectionError(str(error)) from error
        self._given = value
        user, password = value.fields.get("username"), self._login.password(value)
        return (user, password) if user else (password,)

    async def renew(self) -> bool:
        """Read again, since what was given last was refused. Whether there is another now."""
        return self._given is not None and await self._login.renew(self._given)


class _Tokens(CredentialProvider):
    """Gives redis-py a token of IAM, whenever it connects."""

    def __init__(self, login: CacheLogin) -> None:
        self._login = login

    async def get_credentials_async(self) -> tuple[str, str]:
        try:
            return self._login.user, await self._login.token()
        except SecretUnavailable as error:
            raise RedisConnectionError(str(error)) from error

    async def renew(self) -> bool:
        """Forget the token, since it was refused. Whether another one may be taken."""
        return await self._login.renew()


def _provider(settings: Settings) -> _Credentials | _Tokens | None:
    if (by_iam := cache_login(settings)) is not None:
        return _Tokens(by_iam)
    login = redis_login(settings)
    return None if login is None else _Credentials(login)


def _is_refused(error: BaseException | None) -> bool:
    """A refused login, perhaps as the cause of what redis-py says of a whole cluster."""
    while error is not None:
        if isinstance(error, AuthenticationError) or is_error(error, "WRONGPASS") or is_error(error, "NOAUTH"):
            return True
        error = error.__cause__
    return False


class _NoCommands(AsyncCommandsParser):
    """Never asked: see `_Cluster._determine_slot`."""

    async def initialize(self, node: object = None) -> None:
        pass


class _Cluster(RedisCluster):
    """Knows where the key of our commands is.

    redis-py asks the server for that before each XREADGROUP, a round trip more, does not find it in XGROUP CREATE, and
    for it reads the server's table of all commands with each map of the nodes, some tenths of a second.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.commands_parser = _NoCommands()

    async def _determine_slot(self, command: str, *args: Any) -> int:
        match command:
            case "EVAL" | "EVALSHA":
                key = args[1 + int(args[1])]
            case "XREADGROUP":
                key = args[args.index("STREAMS") + 1]
            case _:
                key = args[0]
        return int(self.keyslot(key))


def _client(settings: Settings, blocking_seconds: float, provider: CredentialProvider | None) -> Redis | RedisCluster:
    url, timeout = settings.redis_url.get_secret_value(), settings.redis_timeout_seconds
    options: dict[str, Any] = {
        "protocol": 2,
        "decode_responses": False,
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout + blocking_seconds,
    }
    if provider is not None:
        options["credential_provider"] = provider
    if not url.lower().startswith("unix:"):
        options["socket_keepalive"] = True
    try:
        if settings.redis_cluster:
            # The shards of nodes that live go on while another is away.
            return _Cluster.from_url(
                url, retry=Retry(NoBackoff(), _MOVES_FOLLOWED), require_full_coverage=False, **options
            )
        redis: Redis = Redis.from_url(
            url, retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)), **options
        )
        # Opens nothing: options that redis-py does not know would else come out with the first command.
        redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, RedisError, RedisClusterException):
        # What they say may quote the URL, and so the password.
        raise ConfigurationError("REDIS_URL: redis-py can not use an option after its ?") from None
    return redis


def _as_it_came(response: Any, **_: Any) -> Any:
    return response


@asynccontextmanager
async def stream_errors(seconds: float) -> AsyncIterator[None]:
    """Bound what is done inside by `seconds`; turn every failure of Redis into StreamUnavailable."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise StreamUnavailable(f"Redis did not answer within {seconds:g} s") from None
    except (RedisError, RedisClusterException, OSError) as error:
        raise StreamUnavailable(f"Redis: {error or type(error).__name__}") from error


def is_error(error: BaseException, word: str) -> bool:
    """Redis names the kind of an error by its first word; redis-py has no class for these."""
    return str(error).startswith(word)


class Script:
    """A Lua script, called by its hash.

    It is sent whole only when the server does not know it: at first use, after a restart or SCRIPT FLUSH.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def call(
        self, connection: Connection, key: str | tuple[str, ...], arguments: Sequence[bytes | str | int]
    ) -> Any:
        """Run on the one `key`, or on several of one slot. Raises what redis-py raises."""
        keys = (key,) if isinstance(key, str) else key
        try:
            return await connection.call("EVALSHA", self._sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await connection.call("EVAL", self._source, len(keys), *keys, *arguments)

    async def call_each(
        self, connection: Connection, calls: Sequence[tuple[str, Sequence[bytes | str | int]]]
    ) -> list[Any]:
        """Run once for each (key, arguments), in one round trip. Raises what redis-py raises."""
        answers = await connection.call_each([("EVALSHA", self._sha, 1, key, *arguments) for key, arguments in calls])
        unknown = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = [("EVAL", self._source, 1, calls[n][0], *calls[n][1]) for n in unknown]
            for n, answer in zip(unknown, await connection.call_each(again), strict=True):
                answers[n] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers
