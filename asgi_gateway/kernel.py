"""The only place that holds what all configurations of one gateway share."""

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any

from .clock import Clock
from .control import Control
from .resources import Resources
from .ticker import Ticker

logger = logging.getLogger("asgi_gateway")


class Kernel:
    """What outlives a configuration: time and dice, ticker, kept resources, control calls, other work."""

    def __init__(self, clock: Clock | None = None, dice: random.Random | None = None) -> None:
        self.clock = clock or Clock()
        self.dice = dice or random.Random()
        self.ticker = Ticker(self.clock)
        self.resources = Resources()
        self.control = Control(self.clock)
        self.ready = True
        """What the readiness probe answers."""
        self.max_spawned = 1000
        self.dropped = 0
        """Background work that was refused because there was too much already."""
        self._spawned: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        if len(self._spawned) >= self.max_spawned:
            self.dropped += 1
            coroutine.close()
            return False
        task = asyncio.get_running_loop().create_task(coroutine)
        self._spawned.add(task)
        task.add_done_callback(self._done)
        return True

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._spawned.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background work failed", exc_info=error)

    async def stop(self, grace: float = 1.0) -> None:
        """Give background work a last moment, then end it, and everything that was kept running."""
        loop = asyncio.get_running_loop()
        mine = {task for task in self._spawned if task.get_loop() is loop}
        if mine:
            _, late = await asyncio.wait(mine, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.resources.stop()
        await self.resources.settle()
        await self.control.aclose()
