"""Counts callers against several rules at once: all of them admit a request, or none counts it."""

from collections.abc import Callable
from math import ceil
from typing import Literal

from limits import RateLimitItemPerSecond
from limits.aio.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from asgi_gateway.units import Rate

from .memory import LoopMemory

WindowKind = Literal["fixed", "sliding", "moving"]

STRATEGIES: dict[WindowKind, Callable[[LoopMemory], RateLimiter]] = {
    "fixed": FixedWindowRateLimiter,
    "sliding": SlidingWindowCounterRateLimiter,
    "moving": MovingWindowRateLimiter,
}


class Rule(RateLimitItemPerSecond):
    """A rate as `limits` sees it. Its keys are the caller's, with the rate behind."""

    __slots__ = ("suffix",)

    def __init__(self, rate: Rate) -> None:
        super().__init__(rate.amount, rate.period)
        self.suffix = f"/{rate}"

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return f"{identifiers[0]!s}{self.suffix}"


class Limiter:
    """Some rules, one strategy, one storage."""

    def __init__(
        self, rates: tuple[Rate, ...], window: WindowKind, now: Callable[[], float], most: int
    ) -> None:
        self.rules = tuple(Rule(rate) for rate in rates)
        self.storage = LoopMemory(now, most * len(rates))
        self._strategy = STRATEGIES[window](self.storage)
        storage = self.storage
        self._room = {"fixed": storage.fixed, "sliding": storage.sliding, "moving": storage.moving}[window]

    async def hit(self, caller: str) -> bool:
        """Count a request. False: one of the rules has no room, and none counted it."""
        if len(self.rules) > 1:
            for rule in self.rules:
                if not await self._strategy.test(rule, caller):
                    return False
        for rule in self.rules:
            if not await self._strategy.hit(rule, caller):
                return False
        return True

    def standing(self, caller: str) -> list[tuple[int, int]]:
        """For each rule: how many requests are left, and in how many whole seconds there will be more."""
        standing = []
        for rule in self.rules:
            remaining, wait = self._room(rule.key_for(caller), rule.amount, rule.get_expiry())
            standing.append((remaining, ceil(wait)))
        return standing
