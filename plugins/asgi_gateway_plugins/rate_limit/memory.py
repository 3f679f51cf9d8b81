"""A storage for `limits` within one event loop: it costs the same with one caller and with a million.

Nothing here suspends, so that no other request comes between a check and its count.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from limits.aio.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage

from asgi_gateway.recent import Recent

MOMENT = 1e-6
"""Seconds. A sliding window admits just after the instant at which it has room again, not at it."""


@dataclass(slots=True)
class Window:
    """A count that begins anew at `until`."""

    until: float
    count: int = 0
    weight: int = 1


@dataclass(slots=True)
class Pair:
    """The counts of two windows in a row; the later one began at `start`."""

    start: float
    until: float
    previous: int = 0
    current: int = 0
    weight: int = 1


@dataclass(slots=True)
class Times:
    """When each request was admitted."""

    until: float
    # Of doubles, in order: an empty deque alone takes 600 bytes.
    times: "array[float]" = field(default_factory=lambda: array("d"))

    @property
    def weight(self) -> int:
        return len(self.times)


class LoopMemory(Storage, MovingWindowSupport, SlidingWindowCounterSupport):
    """What was counted, for each key. Seconds are those of `now`, which should be monotonic."""

    STORAGE_SCHEME = None
    base_exceptions = ()

    def __init__(self, now: Callable[[], float], most: int) -> None:
        super().__init__()
        self.now = now
        self._windows: Recent[Window] = Recent(most)
        self._pairs: Recent[Pair] = Recent(most)
        self._times: Recent[Times] = Recent(most)

    @property
    def size(self) -> int:
        return self._windows.size + self._pairs.size + self._times.size

    # Fixed window: begins with the first request, and counts what is refused too.

    def _window(self, key: str) -> Window | None:
        window = self._windows.get(key)
        return window if window is not None and self.now() < window.until else None

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        window = self._window(key)
        if window is None:
            self._windows.forget(key)
            now = self.now()
            window = self._windows.add(key, Window(now + expiry))
            self._windows.make_room(now)
        window.count += amount
        return window.count

    async def get(self, key: str) -> int:
        window = self._window(key)
        return window.count if window is not None else 0

    async def get_expiry(self, key: str) -> float:
        window = self._window(key)
        return window.until if window is not None else self.now()

    def fixed(self, key: str, limit: int, expiry: int) -> tuple[int, float]:
        """What is left of the limit, and in how many seconds there will be more. So do the other two."""
        window = self._window(key)
        if window is None:
            return limit, float(expiry)
        return max(0, limit - window.count), window.until - self.now()

    # Sliding window: two windows, the earlier one counts for the part of it that is less than a window ago.

    def _pair(self, key: str, expiry: int, now: float) -> Pair | None:
        pair = self._pairs.get(key)
        if pair is None or now < pair.start + expiry:
            return pair
        if now >= pair.until:
            self._pairs.forget(key)
            return None
        pair.previous, pair.current = pair.current, 0
        pair.start += expiry
        pair.until += expiry
        return pair

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = self.now()
        pair = self._pair(key, expiry, now)
        if pair is None:
            if amount > limit:
                return False
            pair = self._pairs.add(key, Pair(now, now + 2 * expiry))
            self._pairs.make_room(now)
        elif int(pair.previous * (pair.start + expiry - now) / expiry) + pair.current + amount > limit:
            return False
        pair.current += amount
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        now = self.now()
        pair = self._pair(key, expiry, now)
        if pair is None:
            return 0, float(expiry), 0, 2.0 * expiry
        left = pair.start + expiry - now
        return pair.previous, left, pair.current, left + expiry

    def sliding(self, key: str, limit: int, expiry: int) -> tuple[int, float]:
        pair = self._pair(key, expiry, now := self.now())
        if pair is None:
            return limit, float(expiry)
        left = pair.start + expiry - now
        remaining = limit - int(pair.previous * left / expiry) - pair.current
        if remaining > 0:
            return remaining, left
        if pair.current < limit:
            left -= (limit - pair.current) * expiry / pair.previous
        return 0, left + MOMENT

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        self._pairs.forget(key)

    # Moving window: the time of each request, which takes memory for each of them.

    def _past(self, key: str, expiry: int, now: float) -> Times | None:
        past = self._times.get(key)
        if past is None:
            return None
        if expired := bisect_right(past.times, now - expiry):
            del past.times[:expired]
            self._times.size -= expired
        if not past.times:
            self._times.forget(key)
            return None
        return past

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = self.now()
        past = self._past(key, expiry, now)
        if (len(past.times) if past is not None else 0) + amount > limit:
            return False
        if past is None:
            past = self._times.add(key, Times(now))
        for _ in range(amount):
            past.times.append(now)
            self._times.size += 1
            past.until = now + expiry
            self._times.make_room(now)
        return True

    def moving(self, key: str, limit: int, expiry: int) -> tuple[int, float]:
        past = self._past(key, expiry, now := self.now())
        if past is None:
            return limit, float(expiry)
        return max(0, limit - len(past.times)), past.times[0] + expiry - now

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        now = self.now()
        past = self._past(key, expiry, now)
        if past is None:
            return now, 0
        return past.times[0], len(past.times)

    # What the rest of the interface asks for.

    async def check(self) -> bool:
        return True

    async def reset(self) -> int:
        size = self.size
        for entries in (self._windows, self._pairs, self._times):
            entries.clear()
        return size

    async def clear(self, key: str) -> None:
        for entries in (self._windows, self._pairs, self._times):
            entries.forget(key)
