"""ASGI middlewares that do no good, for gateways in processes of their own."""

import asyncio
import sys

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send, answer

LEAKED: list[asyncio.Task[bool]] = []
MANY = 4000


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


class Waits:
    """Never answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        say("waiting")
        await asyncio.Event().wait()


class Swallows:
    """Goes on, whatever it is told."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        say("waiting")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                say("not me")


class Leaks:
    """Starts tasks that nobody ends, and answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        LEAKED.extend(asyncio.create_task(asyncio.Event().wait()) for _ in range(MANY))
        await answer(scope, send, 200, b"leaked")
