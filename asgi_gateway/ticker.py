"""The only place that enforces deadlines, and notices callers who left where the server does not say so."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from .asgi import Receive
from .call import Call
from .clock import Clock
from .errors import Reason, UpstreamError
from .exchange import Exchange
from .replay import Replay

PERIOD = 0.025
"""Seconds between two looks: how late a deadline may be noticed."""
PATIENCE = 0.05
"""Seconds after which a call on a foreign server gets a watcher of its own."""

REASONS: dict[str, Reason] = {
    "pool": "pool_timeout",
    "connect": "connect_timeout",
    "tls": "tls_timeout",
    "write": "write_timeout",
    "head": "head_timeout",
    "body": "idle_timeout",
}


SENT = ("write", "head", "body")
"""Phases in which a target may have got the request already."""


class Ticker:
    """One look at all calls every 25 ms, instead of a timer for each of them. Sleeps while there are none."""

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._calls: set[Call] = set()
        self._exchanges: set[Exchange] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._armed = False

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            self._enter(loop)
        self._calls.add(call)
        if not self._armed:
            self._arm(loop)

    def watch(self, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> None:
        """End the whole request when its deadline passes, wherever it is."""
        if loop is not self._loop:
            self._enter(loop)
        self._exchanges.add(exchange)
        if not self._armed:
            self._arm(loop)

    def forget(self, exchange: Exchange) -> None:
        self._exchanges.discard(exchange)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._armed = loop, False
        self._calls.clear()
        self._exchanges.clear()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._armed = True
        loop.call_later(PERIOD, self._tick, loop)

    def discard(self, call: Call) -> None:
        self._calls.discard(call)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        now = self._monotonic()
        for call in list(self._calls):
            if call.deadline <= now and not call.streaming:
                expire(call, UpstreamError("total_timeout", call.phase, sent=call.phase in SENT))
            elif call.limit <= now and call.waiter is not None:
                interrupt(call, UpstreamError(REASONS[call.phase], call.phase, sent=call.phase in SENT))
            elif call.silence <= now:
                expire(call, UpstreamError("idle_timeout", "body", sent=True))
            elif call.per_try is not None and call.per_try.by <= now and not call.started:
                call.per_try.end(call, now)
            if (
                call.receive is not None
                and call.body_read
                and call.watcher is None
                and now - call.began > PATIENCE
            ):
                call.watcher = loop.create_task(watch(call, call.receive))
        for exchange in list(self._exchanges):
            # A call that is late says more of it, and has its turn first.
            if exchange.deadline + 2 * PERIOD <= now:
                self._exchanges.discard(exchange)
                if not any(call.streaming for call in exchange.calls):
                    exchange.cut("total_timeout")
        self._armed = False
        if self._calls or self._exchanges:
            self._arm(loop)


class PerTry:
    """How long one attempt may take until its answer begins, in all its phases."""

    __slots__ = ("_body", "_within", "by", "error")

    def __init__(self, within: float, now: float, body: Replay | None) -> None:
        """`within`: seconds; `body`: what the caller has sent of it so far."""
        self._within = within
        self._body = body
        self.by = now + within
        """Monotonic seconds."""
        self.error: UpstreamError | None = None
        """How it ended, if its time was over."""

    def end(self, call: Call, now: float) -> None:
        """Its time is over: end it as the phase would end that it is in."""
        if self._waits_for_caller(call):
            self.by = now + self._within
            return
        self.by = float("inf")
        reason: Reason = "head_timeout" if call.phase == "body" else REASONS[call.phase]
        self.error = UpstreamError(reason, call.phase, sent=call.phase in SENT)
        expire(call, self.error)

    def _waits_for_caller(self, call: Call) -> bool:
        """Whether it is the caller who is late, with its body. One that is not held whole is tried once."""
        if self._body is None or self._body.whole or call.owing:
            return False
        return call.waiter is None or call.phase == "head"


def interrupt(call: Call, error: UpstreamError) -> bool:
    waiter = call.waiter
    if waiter is None or waiter.done():
        return False
    waiter.set_exception(error)
    return True


def expire(call: Call, error: UpstreamError) -> None:
    """End a call whose deadline has passed, wherever it is: its own waits by an error, anything else by
    cancellation.
    """
    if call.expired is None and not interrupt(call, error) and call.task is not None:
        call.expired = error
        call.task.cancel()


def watch(call: Call, receive: Receive) -> Coroutine[Any, Any, None]:
    """Wait for the caller to leave; then cancel the request's task."""

    async def watcher() -> None:
        while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
            pass
        if call.task is not None:
            call.left = True
            call.task.cancel()

    return watcher()
