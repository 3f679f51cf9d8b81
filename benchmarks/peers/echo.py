"""uvicorn as a WebSocket server that sends back what it gets: the unit for WebSockets, and their upstream."""

from collections.abc import Awaitable, Callable, Sequence

from .answer import Message
from .answer import create as create_answer
from .peer import Peer, Place, uvicorn


def create() -> Callable[..., Awaitable[None]]:
    """An ASGI app that echoes text messages, and answers requests as the one answer does."""
    answer = create_answer()

    async def echo(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "http":
            await answer(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    return echo


class Echo(Peer):
    """With the websockets package, in the way of it that costs uvicorn less."""

    name = "uvicorn echo by itself"
    install = "pip install uvicorn httptools uvloop websockets"
    module = "websockets"

    def command(self, program: str, place: Place) -> Sequence[str]:
        server = uvicorn("benchmarks.peers.echo:create", place, "websockets-sansio")
        return [*server, "--lifespan", "off", "--no-proxy-headers", "--ws-per-message-deflate", "false"]
