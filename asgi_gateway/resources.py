"""The only place that knows what outlives a configuration: kept objects, who asked for them, and when they
are closed.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

T = TypeVar("T")
Action = Callable[[Any], Coroutine[Any, Any, None]]

logger = logging.getLogger("asgi_gateway")

BACKOFF = (0.1, 1.0, 5.0, 30.0)
"""Seconds until something supervised that failed is run again."""


class Kept:
    """One object, how many configurations hold it, and the coroutine that belongs to it."""

    __slots__ = ("close", "key", "leases", "run", "task", "value")

    def __init__(self, key: Hashable, value: Any, run: Action | None, close: Action | None) -> None:
        self.key = key
        self.value = value
        self.run = run
        self.close = close
        self.leases = 0
        self.task: asyncio.Task[None] | None = None


class Resources:
    """All that is kept by one gateway."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Kept] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def lease(self) -> "Lease":
        return Lease(self)

    def start(self) -> None:
        """Run what has to run and does not yet, in the loop of the caller."""
        loop = asyncio.get_running_loop()
        for kept in self._kept.values():
            if kept.run is not None and (kept.task is None or kept.task.get_loop() is not loop):
                kept.task = loop.create_task(supervise(kept.key, kept.run, kept.value))

    def hold(self, key: Hashable, make: Callable[[], T], run: Action | None, close: Action | None) -> Kept:
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = Kept(key, make(), run, close)
        kept.leases += 1
        return kept

    def drop(self, kept: Kept) -> None:
        kept.leases -= 1
        if kept.leases:
            return
        del self._kept[kept.key]
        try:
            task = asyncio.get_running_loop().create_task(end(kept))
        except RuntimeError:
            # No loop, so that it never ran: what a refused configuration made at start.
            asyncio.run(end(kept))
            return
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def settle(self) -> None:
        """Wait until everything that was let go of is closed."""
        while self._closing:
            await asyncio.wait(self._closing)

    async def stop(self) -> None:
        """Cancel what runs, and close what is open. The objects stay: the gateway may start again."""
        tasks = [kept.task for kept in self._kept.values() if kept.task is not None]
        for kept in self._kept.values():
            kept.task = None
        loop = asyncio.get_running_loop()
        for task in (mine := [task for task in tasks if task.get_loop() is loop]):
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        for kept in list(self._kept.values()):
            await end(kept)


class Lease:
    """What one configuration holds."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._held: dict[Hashable, Kept] = {}

    def keep(
        self, key: Hashable, make: Callable[[], T], run: Action | None = None, close: Action | None = None
    ) -> T:
        kept = self._held.get(key)
        if kept is None:
            kept = self._held[key] = self._resources.hold(key, make, run, close)
        value: T = kept.value
        return value

    def release(self) -> None:
        """Let go of everything, once. What nobody else holds is closed."""
        held, self._held = self._held, {}
        for kept in held.values():
            self._resources.drop(kept)

    def __len__(self) -> int:
        return len(self._held)


async def supervise(key: Hashable, run: Action, value: Any) -> None:
    """Run a coroutine for as long as the gateway runs; one that fails is run again, after a growing pause."""
    failures = 0
    while True:
        try:
            await run(value)
            return
        except Exception:
            logger.exception("what runs for %s failed", key)
        await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])
        failures += 1


async def end(kept: Kept) -> None:
    if kept.task is not None:
        kept.task.cancel()
        await asyncio.gather(kept.task, return_exceptions=True)
    if kept.close is not None:
        try:
            await kept.close(kept.value)
        except Exception:
            logger.exception("closing %s failed", kept.key)
