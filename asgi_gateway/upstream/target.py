"""The only place that knows the state of one target: what carries requests to it, how busy and how well it
is.
"""

import asyncio
import time
from collections.abc import Callable
from math import exp

from ..local import Local
from ..origin import Origin
from ..transport import Transport

MEMORY = 10.0
"""Seconds after which a third of a time that was measured is left."""
PENALTY = 1.0
"""Seconds that a failure counts as, at least: a target that fails at once is not a quick one."""


class Target:
    """One place where an upstream is served. It outlives reloads, so that its connections and its health do
    too.
    """

    def __init__(
        self,
        name: str,
        *,
        origin: Origin | None = None,
        transport: Transport | None = None,
        local: Local | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.origin = origin
        self.authority = origin.authority.encode() if origin else b""
        self.transport = transport
        self.local = local
        self._monotonic = monotonic
        self.active = 0
        """Calls in flight."""
        self.tunnels = 0
        """WebSockets among them."""
        self.failures = 0
        """Failed calls in a row."""
        self.told = False
        """Whether the log says that it fails."""
        self.healthy = True
        """What the active checks say."""
        self.ejected = False
        """What the passive ones say."""
        self.ejections = 0
        """How often lately."""
        self.readmission: asyncio.TimerHandle | None = None
        """What ends that."""
        self.since = monotonic()
        """Since when it is available."""
        self._latency = 0.0
        self._measured = 0.0
        self._watching: set[Callable[[], None]] = set()

    @property
    def available(self) -> bool:
        return self.healthy and not self.ejected

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever `available` may have changed."""
        self._watching.add(changed)

    def forget(self, changed: Callable[[], None]) -> None:
        self._watching.discard(changed)

    def mark(self, *, healthy: bool | None = None, ejected: bool | None = None) -> None:
        before = self.available
        if healthy is not None:
            self.healthy = healthy
        if ejected is not None:
            self.ejected = ejected
        if self.available != before:
            if not before:
                self.since = self._monotonic()
            for changed in tuple(self._watching):
                changed()

    def took(self, seconds: float, now: float) -> None:
        """Its head came after so many seconds. A peak counts at once, and is forgotten slowly."""
        if seconds < self._latency:
            kept = exp((self._measured - now) / MEMORY)
            seconds = self._latency * kept + seconds * (1 - kept)
        self._latency, self._measured = seconds, now

    def fell(self, now: float) -> None:
        """A call to it failed."""
        self.took(max(PENALTY, 2 * self.latency(now)), now)

    def latency(self, now: float) -> float:
        """What was measured, less the older it is: a target that nobody asks is tried again."""
        return self._latency * exp((self._measured - now) / MEMORY)

    def cost(self, now: float) -> float:
        """How long another call would wait; one that was never measured is asked once."""
        if not self._latency:
            return PENALTY * self.active
        return self.latency(now) * (self.active + 1)

    async def aclose(self) -> None:
        if self.transport is not None:
            await self.transport.aclose()

    def __repr__(self) -> str:
        state = "ejected" if self.ejected else "up" if self.healthy else "down"
        return f"<Target {self.name} {state} active={self.active}>"
