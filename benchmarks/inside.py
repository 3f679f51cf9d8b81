"""A gateway in this process, asked without a socket, by an app that answers at once."""

import time
from collections.abc import Iterable, Mapping

from asgi_gateway.asgi import Message, Receive, Scope, Send
from asgi_gateway.gateway import Gateway

NOTHING: Mapping[str, str] = {}
HEAD: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
BODY: Message = {"type": "http.response.body", "body": b""}


async def instant(scope: Scope, receive: Receive, send: Send) -> None:
    """The upstream. Of a WebSocket it hears every message, and says nothing."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            pass
        return
    await send(dict(HEAD))
    await send(dict(BODY))


INSTANT = f"{__name__}:instant"
"""The same, as a configuration names it."""


def request(path: str = "/", fields: Mapping[str, str] = NOTHING, address: str = "127.0.0.1") -> Scope:
    """A request as a server gives it to an app."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"gateway.test"),
            (b"user-agent", b"benchmark"),
            (b"accept", b"*/*"),
            *((name.encode(), text.encode()) for name, text in fields.items()),
        ],
        "client": (address, 50_000),
        "server": ("127.0.0.1", 80),
    }


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


class Asked:
    """Sends requests to a gateway, and is sent the answers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.refused = 0

    async def send(self, message: Message) -> None:
        if message.get("status", 200) >= 400:
            self.refused += 1

    async def ask(self, wanted: Iterable[Scope]) -> float:
        """CPU microseconds of one request."""
        gateway, send, count = self._gateway, self.send, 0
        begin = time.process_time_ns()
        for scope in wanted:
            await gateway(scope, receive, send)
            count += 1
        return (time.process_time_ns() - begin) / 1e3 / count


class Talked(Asked):
    """Sends messages over one WebSocket through a gateway."""

    async def ask(self, wanted: Iterable[Scope]) -> float:
        """CPU microseconds of one message."""
        scope, *others = wanted
        said: list[Message] = [{"type": "websocket.receive", "text": "hello"}] * len(others)
        said += [{"type": "websocket.connect"}]

        async def receive() -> Message:
            return said.pop() if said else {"type": "websocket.disconnect", "code": 1000}

        begin = time.process_time_ns()
        await self._gateway({**scope, "type": "websocket", "scheme": "ws"}, receive, self.send)
        return (time.process_time_ns() - begin) / 1e3 / len(others)
