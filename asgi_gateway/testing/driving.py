"""The only place that plays the server: one task for a request, and messages that wait to be taken."""

import asyncio
from collections.abc import AsyncGenerator

from ..asgi import ASGIApp, Header, Message, Scope
from ..errors import Aborted
from .messages import Text

ENDED: Message = {"type": "ended"}


class Driven:
    """One call of the app in a task of its own. It goes on only as fast as its messages are taken."""

    def __init__(self, app: ASGIApp, scope: Scope, incoming: AsyncGenerator[Message, None]) -> None:
        self._incoming = incoming
        self._gone = asyncio.Event()
        self._out: asyncio.Queue[Message] = asyncio.Queue(1)
        self._error: Exception | None = None
        self._last: Message | None = None
        self._disconnect = f"{scope['type']}.disconnect"
        self._task = asyncio.create_task(self._run(app, scope))

    @property
    def cancelled(self) -> bool:
        """Whether the cancellation came out of the app, as it has to."""
        return self._task.cancelled()

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:
            self._error = error
        await self._send(ENDED)

    async def _receive(self) -> Message:
        async for message in self._incoming:
            return message
        await self._gone.wait()
        return {"type": self._disconnect, "code": 1006}

    async def _send(self, message: Message) -> None:
        # Nobody takes what comes after the caller left: servers drop it.
        if not self._gone.is_set():
            await self._out.put(message)

    async def take(self) -> Message:
        """The next message of the app; at its end `ended`, or what it raised."""
        message = self._last or await self._out.get()
        if message is ENDED:
            self._last = message
            if self._error is not None:
                raise self._error
        return message

    async def leave(self, patience: float = 5.0) -> bool:
        """Cancel the task, as a server does whose caller left. False: not ended after `patience` seconds."""
        self._gone.set()
        self._last = ENDED
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=patience)
        if self._out.empty():
            self._out.put_nowait(ENDED)
        return self._task.done()

    async def close(self) -> None:
        """Leave, if it goes on still, and let go of the body of the request."""
        if self._task.done() or await self.leave():
            await self._incoming.aclose()


class Stream:
    """A request whose answer is read piece by piece."""

    def __init__(self, driven: Driven) -> None:
        self._driven = driven
        self._more = True
        self.status = 0
        """0 until `head` was awaited."""
        self.headers: list[Header] = []

    async def head(self) -> int:
        """Wait for the head of the answer; its status."""
        if not self.status:
            message = await self._take()
            self.status, self.headers = message["status"], list(message.get("headers", ()))
        return self.status

    async def chunk(self) -> bytes:
        """The next piece of the body, never an empty one before its end. Aborted if the answer is cut."""
        await self.head()
        while self._more:
            message = await self._take()
            self._more = message.get("more_body", False)
            if body := bytes(message.get("body", b"")):
                return body
        return b""

    async def read(self) -> bytes:
        """The rest of the body."""
        body = b""
        while chunk := await self.chunk():
            body += chunk
        return body

    async def leave(self) -> bool:
        """Leave in the middle; whether the cancellation came out of the gateway, as it has to."""
        await self._driven.leave()
        return self._driven.cancelled

    async def _take(self) -> Message:
        message = await self._driven.take()
        if message is ENDED:
            raise Aborted("the app returned before its answer was complete")
        return message


class WebSocket:
    """One WebSocket: accepted, or denied with a status."""

    def __init__(self, driven: Driven, incoming: "asyncio.Queue[Message]") -> None:
        self._driven = driven
        self._incoming = incoming
        self.accepted = False
        self.status = 0
        """101, or the status with which the handshake was denied."""
        self.headers: list[Header] = []
        self.denial = b""
        """The body of a denial."""
        self.close_code = 0
        """With which code the gateway closed it."""

    async def open(self) -> None:
        """Take the answer to the handshake."""
        message = await self._driven.take()
        self.headers = list(message.get("headers", ()))
        if message["type"] == "websocket.accept":
            self.accepted, self.status = True, 101
        elif message["type"] == "websocket.close":
            self.status, self.close_code = 403, message.get("code", 1000)
        elif message is ENDED:
            raise Aborted("the app returned before it had answered the handshake")
        else:
            self.status = message["status"]
            self.denial = await self._body()

    async def _body(self) -> bytes:
        body = b""
        while (message := await self._driven.take()) is not ENDED:
            body += message.get("body", b"")
        return body

    async def send(self, data: Text) -> None:
        kind = "text" if isinstance(data, str) else "bytes"
        await self._incoming.put({"type": "websocket.receive", kind: data})

    async def receive(self) -> Text:
        """The next message; empty when the gateway closed it, see `close_code`."""
        message = await self._driven.take()
        if message["type"] != "websocket.send":
            self.close_code = message.get("code", 1000)
            return b""
        text: str | None = message.get("text")
        return bytes(message["bytes"]) if text is None else text

    async def close(self, code: int = 1000) -> None:
        """Close it, and wait until the gateway is done with it."""
        await self._incoming.put({"type": "websocket.disconnect", "code": code})
        while await self._driven.take() is not ENDED:
            pass
