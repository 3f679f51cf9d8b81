"""The circuit of a breaker: aiobreaker's states over a window of our own, and a gate for the trials.

aiobreaker is told outcomes, it wraps no call. It knows no rate, lets everybody through when half-open, and
reads a wall clock. So its storage is a window over monotonic time, which says whether enough has failed, and
who may try is decided here.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any

from aiobreaker.circuitbreaker import CircuitBreaker
from aiobreaker.listener import CircuitBreakerListener
from aiobreaker.state import CircuitBreakerError, CircuitBreakerState
from aiobreaker.storage.base import CircuitBreakerStorage

SLICES = 10
"""Parts of a window: what is older than that many of them is forgotten, a part at a time."""
CLOSED, HALF_OPEN, OPEN = (
    CircuitBreakerState.CLOSED,
    CircuitBreakerState.HALF_OPEN,
    CircuitBreakerState.OPEN,
)

logger = logging.getLogger("asgi_gateway")


@dataclass(frozen=True, slots=True)
class Rule:
    """When a circuit opens, and how it closes again. Times in seconds; None: that is not looked at."""

    failures: int | None = None
    failure_rate: float | None = None
    slow_rate: float | None = None
    minimum_calls: int = 1
    window: float = 10.0
    open_for: float = 10.0
    trials: int = 1
    ramp: float = 0.0


class Window(CircuitBreakerStorage):
    """The calls of the last seconds, in slices; and the state in which aiobreaker is."""

    def __init__(self, rule: Rule) -> None:
        super().__init__("window")
        self._rule = rule
        self._width = rule.window / SLICES
        self._state = CLOSED
        self.now = 0.0
        """When the call ended that is counted next, and whether it was slow."""
        self.slow_one = False
        self.begun: int | None = None
        """The slice in which it was counted as a good one already."""
        self._clear()

    def _clear(self) -> None:
        self._slice = 0
        self._calls, self._failed, self._slow = [0] * SLICES, [0] * SLICES, [0] * SLICES
        self.calls = self.failed = self.slow = self.streak = 0

    def _add(self) -> int:
        """Count one call; where."""
        self._move()
        place = self._slice % SLICES
        self._calls[place] += 1
        self.calls += 1
        if self.slow_one:
            self._slow[place] += 1
            self.slow += 1
        return place

    def _again(self, begun: int) -> int:
        """Where a call was counted; if that is forgotten, it counts anew."""
        self._move()
        return begun % SLICES if begun > self._slice - SLICES else self._add()

    def _move(self) -> None:
        if (now := int(self.now / self._width)) > self._slice:
            self._advance(now)

    def good(self, *, whole: bool) -> int:
        """A good answer, or only the beginning of one; the slice in which it counts."""
        self._add()
        if whole:
            self.streak = 0
        return self._slice

    def _advance(self, now: int) -> None:
        for passed in range(max(self._slice, now - SLICES) + 1, now + 1):
            place = passed % SLICES
            self.calls -= self._calls[place]
            self.failed -= self._failed[place]
            self.slow -= self._slow[place]
            self._calls[place] = self._failed[place] = self._slow[place] = 0
        self._slice = now

    # What aiobreaker asks for

    def increment_counter(self) -> None:
        place = self._add() if self.begun is None else self._again(self.begun)
        self._failed[place] += 1
        self.failed += 1
        self.streak += 1

    def reset_counter(self) -> None:
        self._add()
        self.streak = 0

    @property
    def counter(self) -> int:
        """1 when the circuit has to open."""
        rule = self._rule
        if rule.failures is not None and self.streak >= rule.failures:
            return 1
        if self.calls < rule.minimum_calls:
            return 0
        if rule.failure_rate is not None and self.failed >= rule.failure_rate * self.calls:
            return 1
        return int(rule.slow_rate is not None and self.slow >= rule.slow_rate * self.calls)

    @property
    def state(self) -> CircuitBreakerState:
        return self._state

    @state.setter
    def state(self, state: CircuitBreakerState) -> None:
        self._state = state
        if state is CLOSED:
            self._clear()

    @property
    def opened_at(self) -> datetime:
        """Long ago: the circuit itself knows when it may be tried again, on a clock that nobody sets."""
        return datetime.min

    @opened_at.setter
    def opened_at(self, date_time: datetime) -> None: ...


class CallFailed(Exception):
    """What aiobreaker is told of a call that failed."""


def good() -> None:
    """A call as aiobreaker sees it."""


def bad() -> None:
    raise CallFailed


class Circuit(CircuitBreaker):
    """One circuit. A call enters with a ticket, and settles it once or gives it back."""

    def __init__(self, name: str, rule: Rule) -> None:
        self.window = Window(rule)
        super().__init__(fail_max=1, state_storage=self.window, listeners=(Log(),), name=name)
        self.rule = rule
        self.generation = 1
        """Counts the states it was in: what began in another one says nothing about this one."""
        self.free = 0
        """Trials that may begin."""
        self._proved = 0
        self._retry_at = 0.0
        self._ramped = 0.0
        self._credit = 0.0

    def enter(self, now: float) -> int:
        """A ticket for one call, 0 if it must not be made."""
        state = self.window.state
        if state is CLOSED:
            return self.generation if now >= self._ramped or self._ramp(now) else 0
        if state is OPEN:
            if now < self._retry_at:
                return 0
            self.half_open()
        if not self.free:
            return 0
        self.free -= 1
        return self.generation

    def _ramp(self, now: float) -> bool:
        """Whether a call is let through shortly after recovery: a share that grows from 0 to all."""
        self._credit += 1 - (self._ramped - now) / self.rule.ramp
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def settle(self, ticket: int, now: float, *, failed: bool, slow: bool, whole: bool = True) -> int:
        """How a call ended, or (not `whole`) how its answer began: the slice in which that counts."""
        if ticket != self.generation:
            return 0
        window = self.window
        window.now, window.slow_one = now, slow
        if window.state is HALF_OPEN:
            self._prove(failed or (slow and self.rule.slow_rate is not None))
        elif failed:
            self._tell_failure()
        else:
            # All that aiobreaker does with a success while it is closed, at a third of the cost.
            place = window.good(whole=whole)
            if slow and window.counter:
                self.open()
            return place
        return 0

    def spoil(self, ticket: int, place: int, now: float) -> None:
        """An answer that began well has broken: the call that counts in that slice has failed after all."""
        if ticket != self.generation:
            return
        window = self.window
        window.now, window.slow_one = now, False
        if window.state is CLOSED:
            window.begun = place
        self._tell_failure()
        window.begun = None

    def finish(self, ticket: int) -> None:
        """An answer that began well is complete."""
        if ticket == self.generation:
            self.window.streak = 0

    def _prove(self, failed: bool) -> None:
        """A trial ended: one that failed is enough to open, all have to be well to close."""
        if failed:
            self._tell_failure()
            return
        self._proved += 1
        if self._proved == self.rule.trials:
            self.call(good)

    def leave(self, ticket: int) -> None:
        """A call ended that says nothing about the upstream."""
        if ticket == self.generation and self.window.state is HALF_OPEN:
            self.free += 1

    def retry_after(self, now: float) -> int:
        """Whole seconds after which it is worth to ask again."""
        return max(1, ceil(self._retry_at - now)) if self.window.state is OPEN else 1

    def _tell_failure(self) -> None:
        try:
            self.call(bad)
        except (CallFailed, CircuitBreakerError) as error:
            # Frames of aiobreaker know them, and they know those: nobody should have to collect the ring.
            error.__traceback__ = None
            if error.__cause__ is not None:
                error.__cause__.__traceback__ = None

    # What aiobreaker does; its own way to open reads a wall clock.

    def open(self) -> None:
        self.generation += 1
        self._retry_at = self.window.now + self.rule.open_for
        self.state = self.window.state = OPEN

    def half_open(self) -> None:
        self.generation += 1
        self.free, self._proved = self.rule.trials, 0
        self.state = self.window.state = HALF_OPEN

    def close(self) -> None:
        self.generation += 1
        self._ramped, self._credit = self.window.now + self.rule.ramp, 0.0
        self.state = self.window.state = CLOSED

    @property
    def opens_at(self) -> datetime | None:
        return None


class Log(CircuitBreakerListener):
    """Says in the log what a circuit does."""

    def state_change(self, breaker: Any, old: Any, new: Any) -> None:
        circuit: Circuit = breaker
        if new.state is OPEN:
            window = circuit.window
            logger.warning(
                "%s: the circuit is open for %g s: %d of %d calls failed, %d were slow",
                *(circuit.name, circuit.rule.open_for, window.failed, window.calls, window.slow),
            )
        elif new.state is CLOSED:
            logger.info("%s: the circuit is closed again", circuit.name)


class Circuits:
    """One circuit for each route, as many as were used last."""

    MOST = 10_000

    def __init__(self, make: Callable[[str], Circuit]) -> None:
        from cachetools import LRUCache

        self._make = make
        self._circuits: LRUCache[str, Circuit] = LRUCache(self.MOST)

    def of(self, route: str) -> Circuit:
        circuit = self._circuits.get(route)
        if circuit is None:
            circuit = self._circuits[route] = self._make(route)
        return circuit
