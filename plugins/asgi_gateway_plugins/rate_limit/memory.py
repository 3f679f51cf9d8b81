"""A storage for `limits` within one event loop: it costs the same with one caller and with a million.

Nothing here suspends, so that no other request comes between a check and its count.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from limits import RateLimitItem
from limits.aio.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage

from asgi_gateway.recent import Recent

MOMENT = 1e-6
"""Seconds. A sliding window admits just after the instant at which it has room again, not at it."""
Room = tuple[int, float, float]
"""How much is left; in how many seconds there will be more; how long to wait for what was asked for."""


class Whole(Protocol):
    """What a rule says, in numbers."""

    amount: int
    period: int
    """Seconds."""
    burst: int


@dataclass(slots=True)
class Window:
    """A count that begins anew at `until`."""

    until: float
    count: int = 0
    weight: ClassVar[int] = 1


@dataclass(slots=True)
class Pair:
    """The counts of two windows in a row; the later one began at `start`."""

    start: float
    until: float
    previous: int = 0
    current: int = 0
    weight: ClassVar[int] = 1


@dataclass(slots=True)
class Times:
    """When each request was admitted."""

    until: float
    # Of doubles, in order: an empty deque alone takes 600 bytes.
    times: "array[float]" = field(default_factory=lambda: array("d"))

    @property
    def weight(self) -> int:
        return len(self.times)


@dataclass(slots=True)
class Level:
    """How far a bucket is from being full, in microseconds times amount, which makes it a whole number."""

    until: float
    debt: int = 0
    at: int = 0
    weight: ClassVar[int] = 1


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
        self._levels: Recent[Level] = Recent(most)

    @property
    def size(self) -> int:
        return self._windows.size + self._pairs.size + self._times.size + self._levels.size

    # Fixed window: begins with the first request.

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

    def fixed(self, key: str, item: RateLimitItem, cost: int) -> Room:
        """The room for a request that counts so much. So do the other three."""
        window = self._window(key)
        if window is None:
            return item.amount, float(item.get_expiry()), 0
        left, more = max(0, item.amount - window.count), max(MOMENT, window.until - self.now())
        return left, more, 0 if cost <= left else more

    def take_fixed(self, key: str, rule: Whole, cost: int) -> Room:
        """The same, and counts it if there is room. So do the other three."""
        now, window = self.now(), self._windows.get(key)
        if window is None or now >= window.until:
            self._windows.forget(key)
            self._windows.add(key, Window(now + rule.period, cost))
            self._windows.make_room(now)
            return rule.amount, float(rule.period), 0
        left, more = max(0, rule.amount - window.count), max(MOMENT, window.until - now)
        if cost > left:
            return left, more, more
        window.count += cost
        return left, more, 0

    # Sliding window: two windows, the earlier one counts for the part of it that is less than a window ago.

    def _pair(self, key: str, expiry: int, now: float) -> Pair | None:
        pair = self._pairs.get(key)
        if pair is None or now < pair.start + expiry:
            return pair
        if now >= pair.until or not pair.current:
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

    def sliding(self, key: str, item: RateLimitItem, cost: int) -> Room:
        limit, expiry = item.amount, item.get_expiry()
        pair = self._pair(key, expiry, now := self.now())
        if pair is None:
            return limit, float(expiry), 0
        ends = pair.start + expiry - now
        left = max(0, limit - int(pair.previous * ends / expiry) - pair.current)
        wait = until_room(pair, limit, expiry, ends, cost) if cost > left else 0
        if left:
            return left, ends, wait
        return 0, wait if cost == 1 else until_room(pair, limit, expiry, ends, 1), wait

    def take_sliding(self, key: str, rule: Whole, cost: int) -> Room:
        limit, expiry, now = rule.amount, rule.period, self.now()
        pair = self._pairs.get(key)
        if pair is None or (now >= pair.start + expiry and (pair := self._pair(key, expiry, now)) is None):
            self._pairs.add(key, Pair(now, now + 2 * expiry, 0, cost))
            self._pairs.make_room(now)
            return limit, float(expiry), 0
        ends = pair.start + expiry - now
        left = limit - pair.current
        if pair.previous:
            left -= int(pair.previous * ends / expiry)
        if cost <= left:
            pair.current += cost
            return left, ends, 0
        wait = until_room(pair, limit, expiry, ends, cost)
        if left > 0:
            return left, ends, wait
        return 0, wait if cost == 1 else until_room(pair, limit, expiry, ends, 1), wait

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        self._pairs.forget(key)

    # Moving window: the time of each request, which takes memory for each of them.

    def _past(self, key: str, expiry: int, now: float) -> Times | None:
        past = self._times.get(key)
        if past is None:
            return None
        times, oldest = past.times, now - expiry
        if times[0] <= oldest:
            expired = bisect_right(times, oldest)
            del times[:expired]
            self._times.size -= expired
            if not times:
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

    def moving(self, key: str, item: RateLimitItem, cost: int) -> Room:
        limit, expiry = item.amount, item.get_expiry()
        past = self._past(key, expiry, now := self.now())
        if past is None:
            return limit, float(expiry), 0
        times = past.times
        left, more = max(0, limit - len(times)), max(MOMENT, times[0] + expiry - now)
        if cost <= left:
            return left, more, 0
        return left, more, max(MOMENT, times[len(times) + cost - limit - 1] + expiry - now)

    def take_moving(self, key: str, rule: Whole, cost: int) -> Room:
        limit, expiry, now = rule.amount, rule.period, self.now()
        past = self._past(key, expiry, now)
        count = len(past.times) if past is not None else 0
        left = max(0, limit - count)
        more = float(expiry) if past is None else max(MOMENT, past.times[0] + expiry - now)
        if cost > left:
            assert past is not None
            return left, more, max(MOMENT, past.times[count + cost - limit - 1] + expiry - now)
        if past is None:
            past = self._times.add(key, Times(now))
        past.until = now + expiry
        for _ in range(cost):
            past.times.append(now)
            self._times.size += 1
            self._times.make_room(now)
        return left, more, 0

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        now = self.now()
        past = self._past(key, expiry, now)
        if past is None:
            return now, 0
        return past.times[0], len(past.times)

    # Token bucket: one number and when it was written. All of it in whole numbers, so that nothing adds up.

    def _debt(self, key: str, amount: int, now: int) -> int:
        level = self._levels.get(key)
        return max(0, level.debt - (now - level.at) * amount) if level is not None else 0

    async def acquire_tokens(self, key: str, amount: int, period: int, burst: int, cost: int = 1) -> bool:
        seconds = self.now()
        now = int(seconds * 1e6)
        debt = self._debt(key, amount, now) + cost * period * 1_000_000
        if debt > burst * period * 1_000_000:
            return False
        self._levels.forget(key)
        self._levels.add(key, Level(seconds + debt / amount / 1e6, debt, now))
        self._levels.make_room(seconds)
        return True

    def bucket(self, key: str, item: RateLimitItem, cost: int) -> Room:
        amount, each = item.amount, item.get_expiry() * 1_000_000
        debt = self._debt(key, amount, int(self.now() * 1e6))
        free = getattr(item, "burst", amount) * each - debt
        left = free // each
        wait = (cost * each - free) / amount / 1e6 + MOMENT if cost > left else 0
        return left, ((left + 1) * each - free) / amount / 1e6 + MOMENT, wait

    def take_bucket(self, key: str, rule: Whole, cost: int) -> Room:
        amount, each, seconds = rule.amount, rule.period * 1_000_000, self.now()
        now, level = int(seconds * 1e6), self._levels.get(key)
        if level is None:
            level = self._levels.add(key, Level(seconds))
            debt, new = 0, True
        else:
            debt, new = max(0, level.debt - (now - level.at) * amount), False
        free = rule.burst * each - debt
        left = free // each
        more = ((left + 1) * each - free) / amount / 1e6 + MOMENT
        if cost > left:
            return left, more, (cost * each - free) / amount / 1e6 + MOMENT
        level.debt, level.at = debt + cost * each, now
        level.until = seconds + level.debt / amount / 1e6
        if new:
            self._levels.make_room(seconds)
        return left, more, 0

    # What the rest of the interface asks for.

    async def check(self) -> bool:
        return True

    async def reset(self) -> int:
        size = self.size
        for entries in (self._windows, self._pairs, self._times, self._levels):
            entries.clear()
        return size

    async def clear(self, key: str) -> None:
        for entries in (self._windows, self._pairs, self._times, self._levels):
            entries.forget(key)


def until_room(pair: Pair, limit: int, expiry: int, ends: float, cost: int) -> float:
    """Seconds until a sliding window, whose later part ends in so many seconds, has room."""
    over = limit - pair.current - cost + 1
    if over > 0:
        # As soon as less of the window before counts.
        return max(MOMENT, ends - over * expiry / pair.previous + MOMENT)
    return ends + max(0.0, expiry - (limit - cost + 1) * expiry / pair.current) + MOMENT
