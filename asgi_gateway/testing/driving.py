"""The only place that plays the server: one request, one task, and messages that wait until somebody takes them."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..asgi import ASGIApp, Header, Message, Scope
from ..errors import Aborted

Text = str | bytes
Body = bytes | AsyncIterable[bytes]

ENDED: Message = {"type": "ended"}


@dataclass(frozen=True)
class Request:
    """What a caller asks for."""

    method: str = "GET"
    path: str = "/"
    """With its query, as in `/orders?page=2`."""
    headers: Iterable[tuple[Text, Text]] = ()
    """`host` is added when it is missing."""
    body: Body = b""
    client: tuple[str, int] = ("127.0.0.1", 1234)
    """The address that the caller comes from."""

    def scope(self, kind: str = "http") -> Scope:
        """The scope as the gateway's own server makes it: one that cancels the task of a caller who left."""
        raw, _, query = self.path.partition("?")
        headers = [(as_bytes(name).lower(), as_bytes(value)) for name, value in self.headers]
        if not any(name == b"host" for name, _ in headers):
            headers.insert(0, (b"host", b"gateway.test"))
        headers += self._framing({name for name, _ in headers})
        scope: Scope = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "http" if kind == "http" else "ws",
            "path": unquoted(raw),
            "raw_path": raw.encode("ascii"),
            "query_string": query.encode("ascii"),
            "root_path": "",
            "headers": headers,
            "client": self.client,
            "server": ("gateway.test", 80),
        }
        if kind == "http":
            return {**scope, "method": self.method, "extensions": {"asgi_gateway": {}}}
        return {**scope, "subprotocols": [], "extensions": {"websocket.http.response": {}}}

    def _framing(self, given: set[bytes]) -> list[Header]:
        if given & {b"content-length", b"transfer-encoding"} or self.body == b"":
            return []
        if isinstance(self.body, bytes):
            return [(b"content-length", b"%d" % len(self.body))]
        return [(b"transfer-encoding", b"chunked")]

    async def messages(self) -> AsyncIterator[Message]:
        """The body as the server hands it on."""
        if isinstance(self.body, bytes):
            yield {"type": "http.request", "body": self.body, "more_body": False}
            return
        async for chunk in self.body:
            yield {"type": "http.request", "body": chunk, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}


def as_bytes(text: Text) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


def unquoted(path: str) -> str:
    from urllib.parse import unquote

    return unquote(path)


@dataclass(frozen=True)
class Response:
    """What the caller got."""

    status: int
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""

    def values(self, name: str) -> list[str]:
        """All values of a header."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key == wanted]

    def json(self) -> Any:
        return json.loads(self.body)


class Driven:
    """One call of the app in a task of its own. It goes on only as fast as its messages are taken."""

    def __init__(self, app: ASGIApp, scope: Scope, incoming: AsyncIterator[Message]) -> None:
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
            await app(scope, self._receive, self._out.put)
        except Exception as error:
            self._error = error
        await self._out.put(ENDED)

    async def _receive(self) -> Message:
        async for message in self._incoming:
            return message
        await self._gone.wait()
        return {"type": self._disconnect, "code": 1006}

    async def take(self) -> Message:
        """The next message of the app; at its end `ended`, or what it raised."""
        message = self._last or await self._out.get()
        if message is ENDED:
            self._last = message
            if self._error is not None:
                raise self._error
        return message

    async def leave(self, patience: float = 5.0) -> bool:
        """Cancel the task, as a server does whose caller left. False: it has not ended after `patience` seconds."""
        self._gone.set()
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=patience)
        return self._task.done()


class Exchange:
    """A request whose answer is read piece by piece."""

    def __init__(self, driven: Driven, head: Message) -> None:
        self._driven = driven
        self._more = True
        self.status: int = head["status"]
        self.headers: list[Header] = list(head.get("headers", ()))

    async def chunk(self) -> bytes:
        """The next piece of the body that is not empty; empty at its end. Raises Aborted if the answer is cut."""
        while self._more:
            message = await self._driven.take()
            if message is ENDED:
                raise Aborted("the app returned before its answer was complete")
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
            self.denial = await Exchange(self._driven, message).read()

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
