"""A request that is a little too early waits instead of being refused."""

import asyncio
from collections.abc import Callable

from .limiter import Counter, Verdict


class Waiting:
    """Waits for room, within a time and a number of requests that wait. Nothing is reserved while it waits:
    who leaves takes nothing along.
    """

    def __init__(self, longest: float, most: int, now: Callable[[], float]) -> None:
        self._longest = longest
        self._most = most
        self._now = now
        self.waiting = 0

    async def until_admitted(self, counter: Counter, caller: str, cost: int, verdict: Verdict) -> Verdict:
        """The last verdict: admitted, or out of time."""
        if self.waiting >= self._most:
            return verdict
        late = self._now() + self._longest
        self.waiting += 1
        try:
            while not verdict.admitted and self._now() + verdict.wait <= late:
                await asyncio.sleep(verdict.wait)
                verdict = await counter.decide(caller, cost)
        finally:
            self.waiting -= 1
        return verdict
