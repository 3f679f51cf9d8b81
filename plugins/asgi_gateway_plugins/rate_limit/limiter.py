"""Counts callers against several rules at once: all of them admit a request, or none counts it."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Literal, NamedTuple, Protocol

from limits import RateLimitItemPerSecond
from limits.aio.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from asgi_gateway.units import Rate

from .bucket import BucketRateLimiter
from .fields import Standing
from .memory import LoopMemory

WindowKind = Literal["fixed", "sliding", "moving", "bucket"]

STRATEGIES: dict[WindowKind, Callable[[LoopMemory], RateLimiter]] = {
    "fixed": FixedWindowRateLimiter,
    "sliding": SlidingWindowCounterRateLimiter,
    "moving": MovingWindowRateLimiter,
    "bucket": BucketRateLimiter,
}


class Verdict(NamedTuple):
    """What was decided about a request."""

    admitted: bool
    wait: float
    """Seconds after which it would be admitted; 0 if it is."""
    standing: Standing
    """Where the caller stands; empty if nobody counted."""
    away: bool = False
    """Whether the store could not be asked."""


AtOnce = Callable[[str, int], tuple[int, int, float]]
"""What is left, in how many seconds there is more, and how long to wait; 0: it is admitted, and counted."""


class Counter(Protocol):
    """Decides, and counts what it admits."""

    at_once: AtOnce | None
    """The same as `decide` for one rule, where nothing has to be waited for."""

    async def decide(self, caller: str, cost: int = 1, *, take: bool = True) -> Verdict:
        """Whether a request that counts `cost` has room. `take`: count it if it has."""
        ...


class Rule(RateLimitItemPerSecond):
    """A rate as `limits` sees it. Its keys are the caller's, with the rate behind."""

    __slots__ = ("burst", "period", "suffix")

    def __init__(self, rate: Rate, burst: int | None = None) -> None:
        super().__init__(rate.amount, rate.period)
        self.period = rate.period
        self.burst = burst or rate.amount
        """How many a bucket holds."""
        self.suffix = f"/{rate}" if burst is None else f"/{rate}/{burst}"

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return f"{identifiers[0]!s}{self.suffix}"


class Limiter:
    """Some rules, one strategy, the memory of this process. Nothing in it suspends."""

    def __init__(
        self, rules: Sequence[Rule], window: WindowKind, now: Callable[[], float], most: int
    ) -> None:
        self.rules = rules
        self.storage = storage = LoopMemory(now, most * len(rules))
        self._hit = STRATEGIES[window](storage).hit
        rooms = {
            "fixed": storage.fixed,
            "sliding": storage.sliding,
            "moving": storage.moving,
            "bucket": storage.bucket,
        }
        self._room = rooms[window]
        takes = {
            "fixed": storage.take_fixed,
            "sliding": storage.take_sliding,
            "moving": storage.take_moving,
            "bucket": storage.take_bucket,
        }
        self._take = takes[window]
        self.at_once: AtOnce | None = self._decide_one if len(rules) == 1 else None

    def _decide_one(self, caller: str, cost: int) -> tuple[int, int, float]:
        """One rule, as most have: it is looked for once."""
        rule = self.rules[0]
        left, more, wait = self._take(caller + rule.suffix, rule, cost)
        return left if wait else left - cost, ceil(more), wait

    async def decide(self, caller: str, cost: int = 1, *, take: bool = True) -> Verdict:
        if take and self.at_once is not None:
            left, seconds, wait = self.at_once(caller, cost)
            return Verdict(not wait, wait, [(left, seconds)])
        longest = 0.0
        standing: list[tuple[int, int]] = []
        for rule in self.rules:
            left, more, wait = self._room(caller + rule.suffix, rule, cost)
            if wait > longest:
                longest = wait
            standing.append((left, ceil(more)))
        if longest:
            return Verdict(False, longest, standing)
        if take:
            for rule in self.rules:
                await self._hit(rule, caller, cost=cost)
            standing = [(left - cost, more) for left, more in standing]
        return Verdict(True, 0.0, standing)

    def decide_now(self, caller: str, *, take: bool) -> Verdict:
        """The same for one who cannot wait."""
        try:
            self.decide(caller, take=take).send(None)
        except StopIteration as decided:
            verdict: Verdict = decided.value
            return verdict
        raise RuntimeError("a decision in memory suspended")
