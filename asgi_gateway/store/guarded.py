"""The only place that decides how long a store may take, and when it is not asked any more."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from .base import Arg, Script, Store, StoreError

T = TypeVar("T")

FAILURES = 3
"""Failures in a row after which the store is not asked for a while."""
PAUSE = 1.0
"""Seconds until it is asked again, by one caller."""

logger = logging.getLogger("asgi_gateway")


class Guarded(Store):
    """A store behind a deadline and a breaker: one that is frozen costs little, and soon nothing.

    After three failures in a row it fails at once; after a second one caller probes whether it is back.
    """

    def __init__(self, store: Store, *, timeout: float, prefix: str, now: Callable[[], float]) -> None:
        self._store = store
        self._timeout = timeout
        self._prefix = f"{prefix}:" if prefix else ""
        self._now = now
        self._row = 0
        self._until = 0.0
        self._probing = False
        self.failures = 0
        """How often it failed since the start."""
        self.skipped = 0
        """How often it was not asked because it had failed before."""

    @classmethod
    def open(cls, url: str, *, timeout: float, now: Callable[[], float]) -> "Store":
        raise NotImplementedError("it is put around a store: open_store")

    @property
    def name(self) -> str:
        return self._store.name

    @property
    def is_away(self) -> bool:
        """Whether it is not asked at the moment."""
        return self._row >= FAILURES

    async def get(self, key: str) -> bytes | None:
        return await self._guard(lambda: self._store.get(self._prefix + key))

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        named = [self._prefix + key for key in keys]
        return await self._guard(lambda: self._store.get_many(named))

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        await self._guard(lambda: self._store.set(self._prefix + key, value, ttl))

    async def add(self, key: str, value: bytes, ttl: float) -> bool:
        return await self._guard(lambda: self._store.add(self._prefix + key, value, ttl))

    async def delete(self, key: str) -> bool:
        return await self._guard(lambda: self._store.delete(self._prefix + key))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Sequence[int]:
        named = [self._prefix + key for key in keys]
        return await self._guard(lambda: self._store.run(script, named, args))

    async def aclose(self) -> None:
        await self._store.aclose()

    async def _guard(self, ask: Callable[[], Awaitable[T]]) -> T:
        probe = self._row >= FAILURES
        if probe:
            if self._probing or self._now() < self._until:
                self.skipped += 1
                raise StoreError(f"{self.name} is away", asked=False)
            self._probing = True
        try:
            async with asyncio.timeout(self._timeout):
                answer = await ask()
        except TimeoutError as error:
            raise self._fail(StoreError(f"{self.name} did not answer in {self._timeout:g} s")) from error
        except StoreError as error:
            raise self._fail(error) from error
        except Exception as error:
            raise self._fail(StoreError(f"{self.name}: {type(error).__name__}")) from error
        finally:
            if probe:
                self._probing = False
        if self._row:
            self._recover()
        return answer

    def _fail(self, error: StoreError) -> StoreError:
        self.failures += 1
        self._row += 1
        if self._row >= FAILURES:
            self._until = self._now() + PAUSE
        if self._row == FAILURES:
            logger.warning("the store is away: %s", error)
        return error

    def _recover(self) -> None:
        if self._row >= FAILURES:
            logger.warning("the store is back: %s", self.name)
        self._row = 0
