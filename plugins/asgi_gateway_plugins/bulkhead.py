"""So many calls to an upstream at one time: a slow one cannot take everything with it."""

import asyncio
from collections import deque
from functools import partial
from typing import Annotated

from pydantic import Field

from asgi_gateway.asgi import RETRY_SOON, ASGIApp, Receive, Scope, Send
from asgi_gateway.call import CALL, Call
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.errors import UpstreamError
from asgi_gateway.stage import Stage
from asgi_gateway.units import Span

FULL = Refusal(503, "bulkhead_full", RETRY_SOON, "Too many requests are at this upstream, or wait for it.")
TOO_LONG = Refusal(503, "bulkhead_timeout", RETRY_SOON, "No place at this upstream became free in time.")


class Places:
    """The calls that are made, and a fair queue of those that wait."""

    __slots__ = ("_queue", "_waiting", "in_flight", "limit")

    def __init__(self, limit: int, queue: int) -> None:
        self.limit = limit
        self._queue = queue
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    def resize(self, limit: int, queue: int) -> None:
        """What a new configuration says. Who has a place keeps it."""
        self.limit, self._queue = limit, queue
        while self._waiting and self.in_flight < self.limit:
            if not (waiter := self._waiting.popleft()).done():
                self.in_flight += 1
                waiter.set_result(None)

    @property
    def full(self) -> bool:
        """Whether one more could not even wait."""
        return len(self._waiting) >= self._queue

    async def wait(self, call: Call, until: float) -> bool:
        """Wait for a place; False: it took too long. The ticker looks at the time."""
        waiter = call.waiter = asyncio.get_running_loop().create_future()
        call.phase, call.limit = "pool", until
        self._waiting.append(waiter)
        try:
            await waiter
        except BaseException as error:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # It was given a place in the very moment in which it gave up.
                self.give()
            if not isinstance(error, UpstreamError) or error.reason != "pool_timeout":
                raise
            return False
        finally:
            call.waiter, call.limit = None, float("inf")
        return True

    def give(self) -> None:
        """A call is over: its place goes to the one that waits longest."""
        while self._waiting and self.in_flight <= self.limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.in_flight -= 1


class Bulkhead(
    Component,
    name="bulkhead",
    stage=Stage.PROTECT,
    rank=10,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Makes so many calls to an upstream at one time, lets a few wait, and refuses the rest with 503.

    A place is held until the last byte of the answer, or the end of the WebSocket.
    """

    in_flight: Annotated[int, Field(ge=1)]
    """Calls at one time, in one worker."""
    queue: Annotated[int, Field(ge=0)] = 0
    """Calls that may wait for a place."""
    wait: Span = 1.0
    """How long one may wait."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        places = build.keep("places", partial(Places, self.in_flight, self.queue))
        build.on_live(partial(places.resize, self.in_flight, self.queue))
        refuse, monotonic, patience = build.refuse(app), build.clock.monotonic, self.wait

        async def bulkhead(scope: Scope, receive: Receive, send: Send) -> None:
            if places.in_flight < places.limit:
                places.in_flight += 1
            elif places.full:
                await refuse(scope, receive, send, FULL)
                return
            elif not await places.wait(scope[CALL], monotonic() + patience):
                await refuse(scope, receive, send, TOO_LONG)
                return
            try:
                await app(scope, receive, send)
            finally:
                places.give()

        return bulkhead
