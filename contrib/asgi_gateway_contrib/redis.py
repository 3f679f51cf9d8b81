"""State in Redis, for all workers and machines that use the same one. The extra is `redis`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.store import Arg, Script, Store, StoreError

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from .redis_pool import Pool

MISSING = Problem("redis:// needs the extra 'redis'", "store", 'pip install "asgi-gateway[redis]"')
CONNECTIONS = 50
"""Connections of one process unless the URL says `?max_connections=`."""


class RedisStore(Store, schemes=("redis", "rediss")):
    """Redis 6 or newer, `redis://user:password@host:6379/0`; `rediss://` speaks TLS."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._client: Redis | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        place = urlsplit(url)
        self._name = f"{place.scheme}://{place.hostname or 'localhost'}:{place.port or 6379}"

    @classmethod
    def open(cls, url: str, *, timeout: float, now: Callable[[], float]) -> "RedisStore":
        try:
            store = cls(url, timeout)
            # Also what a connection would say to its options.
            cast("Pool", store._connect().connection_pool).tls()
        except ImportError:
            raise ConfigError(MISSING) from None
        except OSError as error:
            what = f"the TLS files that the URL names cannot be used: {error.strerror}"
            raise ConfigError(
                Problem(what, "store", "as in rediss://host:6379/0?ssl_ca_certs=/ca.pem")
            ) from None
        except (ValueError, TypeError, AttributeError):
            # The text of these errors may show the URL, and in it the password.
            hint = "as in redis://user:password@host:6379/0"
            raise ConfigError(Problem("is not a URL of Redis", "store", hint)) from None
        return store

    @property
    def name(self) -> str:
        return self._name

    def _connect(self) -> "Redis":
        """A client with a pool; nothing is opened before the first command."""
        from redis.asyncio import Redis

        return Redis(connection_pool=self._pool())

    def _pool(self) -> "Pool":
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        from .redis_pool import OPENING, Pool

        return Pool.from_url(
            self._url,
            **{
                "max_connections": CONNECTIONS,
                # Beside the deadline of each answer: what waits for a connection.
                "timeout": self._timeout,
                "socket_connect_timeout": OPENING,
                # RESP3 switches on notices of maintenance, and with them off the check of idle connections:
                # each of them would fail once after a restart of Redis.
                "protocol": 2,
                # A decision that may have been counted is not asked for twice.
                "retry": Retry(NoBackoff(), 0),
            },
        )

    def _redis(self) -> "Redis":
        loop = asyncio.get_running_loop()
        if self._client is None or loop is not self._loop:
            self._client, self._loop = self._connect(), loop
        return self._client

    async def get(self, key: str) -> bytes | None:
        found: bytes | None = await ask(self._redis().get(key))
        return found

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = await ask(self._redis().mget(keys)) if keys else []
        return found

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        await ask(self._redis().set(key, value, px=milliseconds(ttl)))

    async def add(self, key: str, value: bytes, ttl: float) -> bool:
        return bool(await ask(self._redis().set(key, value, px=milliseconds(ttl), nx=True)))

    async def delete(self, key: str) -> bool:
        return bool(await ask(self._redis().delete(key)))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Sequence[int]:
        return cast("Sequence[int]", await ask(self._run(script, keys, args)))

    async def _run(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        from redis.exceptions import NoScriptError

        redis = self._redis()
        try:
            return await redis.evalsha(script.digest, len(keys), *keys, *args)
        except NoScriptError:
            # It is new there, or Redis was started again. It keeps it from now on.
            return await redis.eval(script.lua, len(keys), *keys, *args)

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose(close_connection_pool=True)


async def ask(answer: Awaitable[Any]) -> Any:
    """The answer, or StoreError."""
    from redis.exceptions import RedisError

    try:
        return await answer
    except (RedisError, OSError) as error:
        raise StoreError(f"Redis failed: {type(error).__name__}: {error}") from error


def milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
