"""The only place that bounds the WebSockets of an ASGI app in this process in time."""

import asyncio

from ..asgi import ASGIApp, Message, Receive, Scope, Send
from ..call import CALL
from ..exchange import EXCHANGE
from .watch import Watch


async def within(watch: Watch, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let the app serve a WebSocket. When its time is over the caller is told; the server tells the app."""
    closing: asyncio.Task[None] | None = None

    async def close() -> None:
        await send({"type": "websocket.close", "code": 1001, "reason": watch.reason})

    def expire() -> None:
        nonlocal closing
        closing = asyncio.create_task(close())

    async def take() -> Message:
        message = await receive()
        watch.stamp()
        return message

    async def give(message: Message) -> None:
        await send(message)
        watch.stamp()
        if message["type"] == "websocket.accept":
            scope[CALL].streaming = True
            watch.begin(expire)

    try:
        await app(scope, take, give)
    finally:
        watch.stop()
        if closing is not None:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
        scope[EXCHANGE].cause = scope[EXCHANGE].cause or watch.expired
