"""So many messages and bytes in a second, for each WebSocket."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.units import Size, Span

LONGEST = 10.0
"""Seconds that a message may be held back; one that would take longer ends the connection."""
CODE = 1008
"""RFC 6455 7.4.1: it violates a policy."""


class Meter:
    """A bucket: what comes faster than `rate` for longer than `burst` is too early."""

    __slots__ = ("_at", "_debt", "_most", "_now", "_rate")

    def __init__(self, rate: float, burst: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._most = max(1.0, rate * burst)
        self._now = now
        self._debt = 0.0
        self._at = now()

    def spend(self, amount: float) -> float:
        """Count it; how many seconds too early it is."""
        now = self._now()
        self._debt = max(0.0, self._debt - (now - self._at) * self._rate) + amount
        self._at = now
        return max(0.0, self._debt - self._most) / self._rate


class WebsocketLimit(
    Component,
    name="websocket_limit",
    stage=Stage.LIMIT,
    rank=30,
    serves=frozenset({"websocket"}),
    refuses=True,
):
    """Bounds how many messages and bytes a caller sends over one WebSocket in a second.

    What is too much waits, so that the caller is slowed down, or ends the connection with 1008.
    """

    messages: Annotated[int, Field(ge=1)] | None = None
    """Messages in a second. Not given: any number."""
    bytes: Annotated[Size, Field(ge=1)] | None = None
    """Bytes in a second: `64KiB`. Not given: any number."""
    burst: Span = 1.0
    """What comes in so much time may come at once."""
    excess: Literal["delay", "close"] = "delay"
    """What happens to more: it waits, for 10 seconds at most, or the connection is closed with 1008."""

    @model_validator(mode="after")
    def limits_something(self) -> "WebsocketLimit":
        if self.messages is None and self.bytes is None:
            raise ValueError("write messages: 10, or bytes: 64KiB, or both")
        return self

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        reporting, now = build.refuse(app).reporting, build.clock.monotonic
        closes = self.excess == "close"

        async def websocket_limit(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            messages = Meter(self.messages, self.burst, now) if self.messages is not None else None
            size = Meter(self.bytes, self.burst, now) if self.bytes is not None else None
            closed = False

            async def take() -> Message:
                nonlocal closed
                message = await receive()
                if message["type"] != "websocket.receive" or closed:
                    return message
                wait = messages.spend(1) if messages is not None else 0.0
                if size is not None:
                    wait = max(wait, size.spend(length(message)))
                if not wait:
                    return message
                if reporting:
                    exchange.tag("websocket_limit", "reported")
                    return message
                if closes or wait > LONGEST:
                    closed = True
                    exchange.tag("websocket_limit", "closed")
                    await send({"type": "websocket.close", "code": CODE, "reason": "too much at once"})
                    return {"type": "websocket.disconnect", "code": CODE, "reason": "too much at once"}
                exchange.tag("websocket_limit", "delayed")
                await asyncio.sleep(wait)
                return message

            async def give(message: Message) -> None:
                # What still comes down when the caller was sent away has nowhere to go.
                if not closed:
                    await send(message)

            await app(scope, take, give)

        return websocket_limit


def length(message: Message) -> int:
    text = message.get("text")
    return len(message["bytes"]) if text is None else len(text.encode())
