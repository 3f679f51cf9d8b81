"""Leads everybody back to the stable side when a variant does worse than it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from math import sqrt

from pydantic import Field, model_validator

from asgi_gateway.asgi import Message
from asgi_gateway.component import Dial
from asgi_gateway.config.model import Model
from asgi_gateway.exchange import Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.store import Store, StoreError
from asgi_gateway.units import Span

logger = logging.getLogger("asgi_gateway")

STABLE = "stable"
SIGMAS = 3.0
"""How many standard errors a difference has: less may be chance."""
EVERY = 1.0
"""Seconds between two looks at what other processes have rolled back."""
KEPT = 30 * 86400.0
"""Seconds that a rollback is remembered in a shared store."""
BLAMELESS = ("configuration_expired", "shutdown")


class Rollback(Model):
    """When a variant is taken back. It is compared with the stable side of the same time, in one worker."""

    errors: float | None = Field(default=5.0, ge=0, le=100)
    """So many percent points more of its requests fail (5xx, no answer, cut) than on the stable side."""
    slower: float | None = Field(default=None, gt=1)
    """The mean time to its head is more than so many times that of the stable side."""
    minimum: int = Field(default=100, ge=10)
    """Requests on each side before they are compared."""
    window: Span = 60.0
    """Requests of the last one to two of these count."""

    @model_validator(mode="after")
    def says_something(self) -> "Rollback":
        if self.errors is None and self.slower is None:
            raise mistake("a rollback has a reason", "one of errors, slower")
        return self


class Sample:
    """What happened on one side."""

    __slots__ = ("answers", "errors", "requests", "squares", "times")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.answers = 0
        """Requests that had a head: only these took a time."""
        self.times = 0.0
        self.squares = 0.0

    def add(self, failed: bool, seconds: float | None) -> None:
        self.requests += 1
        self.errors += failed
        if seconds is not None:
            self.answers += 1
            self.times += seconds
            self.squares += seconds * seconds

    def __add__(self, other: "Sample") -> "Sample":
        both = Sample()
        for name in self.__slots__:
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    @property
    def mean(self) -> float:
        return self.times / self.answers

    @property
    def deviation(self) -> float:
        """The variance of the mean."""
        return max(0.0, self.squares / self.answers - self.mean**2) / self.answers


class Window:
    """The sample of the last one to two windows."""

    __slots__ = ("_before", "_length", "_since", "current")

    def __init__(self, length: float) -> None:
        self._length = length
        self._since = float("-inf")
        self._before = Sample()
        self.current = Sample()

    def at(self, now: float) -> "Window":
        """As it stands at this moment."""
        age = now - self._since
        if age >= self._length:
            self._before = self.current if age < 2 * self._length else Sample()
            self.current = Sample()
            self._since = now
        return self

    @property
    def whole(self) -> Sample:
        return self._before + self.current


class Shared:
    """Spreads what was rolled back to all processes that share a store, also to those that start later.
    Whoever turns a dial, all have it soon.
    """

    def __init__(self, store: Store, key: str, dials: Mapping[str, Dial], closed: Callable[[], None]) -> None:
        self._store = store
        self._dials = dials
        self._closed = closed
        self._keys = {variant: f"{key}/{variant}" for variant in dials}
        self._known = dict.fromkeys(dials, False)
        """What the store and the dial said when both were last the same."""

    async def run(self) -> None:
        while True:
            try:
                await self.follow()
            except StoreError as error:
                logger.debug("rollbacks are not shared at the moment: %s", error)
            await asyncio.sleep(EVERY)

    async def follow(self) -> None:
        """Bring dials and store together; what changed here goes first."""
        for variant, dial in self._dials.items():
            key, known = self._keys[variant], self._known[variant]
            there = await self._store.get(key) is not None
            mine = dial.value
            if mine is not known:
                await (self._store.set(key, b"1", KEPT) if mine else self._store.delete(key))
                self._known[variant] = mine
            elif there is not known:
                logger.warning("%s: another process turned it to %s", dial.name, there)
                self._known[variant] = there
                dial.set(there)
                if there:
                    self._closed()


class Guard:
    """Counts what happens on each side, and closes a variant that does worse."""

    def __init__(
        self,
        owner: str,
        options: Rollback,
        dials: Mapping[str, Dial],
        monotonic: Callable[[], float],
        closed: Callable[[], None],
    ) -> None:
        self._owner = owner
        self._monotonic = monotonic
        self._options = options
        self._dials = dials
        self._closed = closed
        self._windows = {side: Window(options.window) for side in (STABLE, *dials)}
        self._begun = False

    def begin(self) -> None:
        """The configuration is live: what was rolled back before was another one."""
        if not self._begun:
            self._begun = True
            for dial in self._dials.values():
                dial.set(False)

    def watch(self, exchange: Exchange, side: str) -> None:
        if self._options.slower is None:
            exchange.on_end(partial(self._count, side, None))
        else:
            head: list[float] = []
            exchange.on_start(partial(self._began, head))
            exchange.on_end(partial(self._count, side, head))

    def _began(self, head: list[float], exchange: Exchange, message: Message) -> None:
        head.append(self._monotonic())

    def _count(self, side: str, head: list[float] | None, exchange: Exchange) -> None:
        outcome = exchange.outcome
        # What no upstream was asked for says nothing about one, nor do callers who left.
        if not exchange.calls or outcome in ("caller_left", "refused") or exchange.cause in BLAMELESS:
            return
        now = exchange.ended
        failed = outcome != "answered" or exchange.status >= 500
        seconds = head[0] - exchange.started if head else None
        self._windows[side].at(now).current.add(failed, seconds)
        if side != STABLE and not self._dials[side].value:
            self._compare(side, now)

    def _compare(self, side: str, now: float) -> None:
        mine, stable = self._windows[side].at(now).whole, self._windows[STABLE].at(now).whole
        if why := worse(mine, stable, self._options):
            logger.error("%s: variant %r is rolled back: %s", self._owner, side, why)
            self._dials[side].set(True)
            self._closed()


def worse(mine: Sample, stable: Sample, options: Rollback) -> str:
    """Why a variant does worse than the stable side, or nothing."""
    least = options.minimum
    if options.errors is not None and mine.requests >= least and stable.requests >= least:
        rate, usual = mine.errors / mine.requests, stable.errors / stable.requests
        pooled = (mine.errors + stable.errors) / (mine.requests + stable.requests)
        error = sqrt(pooled * (1 - pooled) * (1 / mine.requests + 1 / stable.requests))
        if (rate - usual) * 100 > options.errors and rate - usual > SIGMAS * error:
            return (
                f"{rate:.1%} of {mine.requests} requests failed, "
                f"{usual:.1%} of {stable.requests} on the stable side"
            )
    if options.slower is not None and mine.answers >= least and stable.answers >= least:
        time, usual = mine.mean, stable.mean
        error = sqrt(mine.deviation + stable.deviation)
        if time > options.slower * usual and time - usual > SIGMAS * error:
            return (
                f"its answers take {time * 1e3:.0f} ms in the mean of {mine.answers}, "
                f"{usual * 1e3:.0f} ms on the stable side"
            )
    return ""
