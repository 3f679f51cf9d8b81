"""Failures on demand, for tests of what stands in front of them."""

import asyncio
from typing import Annotated, Literal

from pydantic import Field, model_validator

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send, answer, problem
from asgi_gateway.call import CALL, Call
from asgi_gateway.component import Build, Component
from asgi_gateway.errors import UpstreamError
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.units import Time

from .failing import Status

Percent = Annotated[float, Field(ge=0, le=100)]


class Fault(Component, name="fault", stage=Stage.PROTECT, rank=20, serves=frozenset({"http", "websocket"})):
    """Delays calls, or lets them fail, as if the upstream did. For tests: never without a reason.

    It stands innermost, so that `retry`, `breaker` and `fallback` see its faults. `when` picks requests.
    """

    delay: Time = 0.0
    """How much later calls are made. `timeout.head` of the upstream holds for it."""
    delay_percent: Percent = 100.0
    """The part of the calls that is late. It can be turned while the gateway runs."""
    abort: Status | Literal["connect_failed", "reset"] | None = None
    """What becomes of calls: a status as the upstream's answer, or no connection, or one that ends."""
    abort_percent: Percent = 100.0
    """The part of the calls of which that becomes. It can be turned while the gateway runs."""

    @model_validator(mode="after")
    def does_something(self) -> "Fault":
        if not self.delay and self.abort is None:
            raise ValueError("it does nothing: give delay or abort")
        return self

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        late = build.dial("delay_percent", self.delay_percent, ge=0, le=100)
        broken = build.dial("abort_percent", self.abort_percent, ge=0, le=100)
        delay, abort, dice, monotonic = self.delay, self.abort, build.dice, build.clock.monotonic

        async def fault(scope: Scope, receive: Receive, send: Send) -> None:
            call: Call = scope[CALL]
            exchange: Exchange = scope[EXCHANGE]
            if delay and dice.random() * 100 < late.value:
                exchange.tag("fault", "delay")
                await pause(call, delay, monotonic() + call.timeouts.head)
            if abort is None or dice.random() * 100 >= broken.value:
                await app(scope, receive, send)
                return
            exchange.tag("fault", abort)
            if abort == "connect_failed":
                raise UpstreamError("connect_failed", "connect", "by the component fault")
            if abort == "reset":
                raise UpstreamError("reset", "head", "by the component fault", sent=True)
            body = problem(abort, "injected_fault", request_id=exchange.id, component="fault")
            await answer(scope, send, abort, body)

        return fault


async def pause(call: Call, seconds: float, limit: float) -> None:
    """Wait as for a target that is slow: the ticker ends it when it takes too long."""
    loop = asyncio.get_running_loop()
    waiter = call.waiter = loop.create_future()
    call.phase, call.limit = "head", limit
    timer = loop.call_later(seconds, over, waiter)
    try:
        await waiter
    finally:
        timer.cancel()
        call.waiter, call.limit = None, float("inf")


def over(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
