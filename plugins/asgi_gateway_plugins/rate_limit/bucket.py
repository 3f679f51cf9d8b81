"""A token bucket (GCRA) as a strategy of `limits`, which has none."""

from limits import RateLimitItem, WindowStats
from limits.aio.strategies import RateLimiter

from .memory import LoopMemory


class BucketRateLimiter(RateLimiter):
    """A bucket that holds `burst` requests, and is filled at a steady rate: `amount` in each period."""

    storage: LoopMemory

    async def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        key, period = item.key_for(*identifiers), item.get_expiry()
        return await self.storage.acquire_tokens(key, item.amount, period, burst_of(item), cost)

    async def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        return self.storage.bucket(item.key_for(*identifiers), item, cost)[2] == 0

    async def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        left, more, _ = self.storage.bucket(item.key_for(*identifiers), item, 1)
        return WindowStats(self.storage.now() + more, left)


def burst_of(item: RateLimitItem) -> int:
    burst: int = getattr(item, "burst", item.amount)
    return burst
