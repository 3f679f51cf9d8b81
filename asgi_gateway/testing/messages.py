"""The only place that says what a caller sends and gets, in ASGI's words."""

import json
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ..asgi import Header, Message, Scope

Text = str | bytes
Body = bytes | AsyncIterable[bytes]


@dataclass(frozen=True)
class Request:
    """What a caller asks for."""

    method: str = "GET"
    path: str = "/"
    """With its query, as in `/orders?page=2`."""
    headers: Sequence[tuple[Text, Text]] = ()
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
            "path": unquote(raw),
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

    async def messages(self) -> AsyncGenerator[Message, None]:
        """The body as the server hands it on."""
        if isinstance(self.body, bytes):
            yield {"type": "http.request", "body": self.body, "more_body": False}
            return
        async for chunk in self.body:
            yield {"type": "http.request", "body": chunk, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}


def as_bytes(text: Text) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


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
