"""The only place that ends a WebSocket because its time is over."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ..clock import Clock
from ..config import WebSocketConfig

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds."""

    idle: float
    life: float

    @classmethod
    def of(cls, options: WebSocketConfig) -> "Bound":
        return cls(
            NEVER if options.idle is None else options.idle, NEVER if options.life is None else options.life
        )


class Watch:
    """One timer for a whole WebSocket: a message only leaves a stamp."""

    __slots__ = ("_began", "_bound", "_end", "_last", "_monotonic", "_timer", "expired")

    def __init__(self, bound: Bound, clock: Clock) -> None:
        self._bound = bound
        self._monotonic = clock.monotonic
        self._began = self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._end: Callable[[], None] | None = None
        self.expired = ""
        """For machines: `websocket_idle` or `websocket_life`; empty while there is time."""

    @property
    def reason(self) -> str:
        """For the close frame."""
        return "idle for too long" if self.expired == "websocket_idle" else "open for too long"

    def begin(self, end: Callable[[], None]) -> None:
        """Call `end` once when the time is over."""
        self._began = self._last = self._monotonic()
        self._end = end
        self._look()

    def stamp(self) -> None:
        """A message went through."""
        self._last = self._monotonic()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._end = None

    def _look(self) -> None:
        now = self._monotonic()
        life, idle = self._began + self._bound.life - now, self._last + self._bound.idle - now
        if min(life, idle) > 0:
            if min(life, idle) < NEVER:
                self._timer = asyncio.get_running_loop().call_later(min(life, idle), self._look)
            return
        self.expired = "websocket_life" if life <= 0 else "websocket_idle"
        end = self._end
        self.stop()
        if end is not None:
            end()
