"""The only place that bounds what is under way over a transport that does not do so well itself."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from ..call import Call
from ..errors import UpstreamError


class Gate:
    """So many may be inside at one time, so many more may wait, each so long; who came first goes first."""

    def __init__(self, places: int, most: int, wait: float, now: Callable[[], float]) -> None:
        """`wait`: seconds; `now`: monotonic."""
        self._free = places
        self._most = most
        self._wait = wait
        self._now = now
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        """In the order in which they came. Any of them may leave, many at one time."""

    async def enter(self, call: Call) -> None:
        """UpstreamError if too many wait, or when the ticker ends the wait. Who is inside calls `leave`."""
        if self._free:
            self._free -= 1
            return
        if len(self._waiting) >= self._most:
            raise UpstreamError("pool_full", "pool", f"{len(self._waiting)} requests wait already")
        waiter = call.waiter = asyncio.get_running_loop().create_future()
        call.phase, call.limit = "pool", self._now() + self._wait
        self._waiting[waiter] = None
        try:
            await waiter
        except BaseException:
            if waiter in self._waiting:
                del self._waiting[waiter]
            elif not waiter.cancelled() and waiter.exception() is None:
                # It was let in in the very moment in which it gave up.
                self.leave()
            raise
        finally:
            call.waiter, call.limit = None, float("inf")

    def leave(self) -> None:
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1
