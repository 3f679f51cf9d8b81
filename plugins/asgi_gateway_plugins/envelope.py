"""Puts the JSON of answers into an envelope, `{"code": 0, "message": "ok", "data": ...}`."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from pydantic import Field, model_validator

from asgi_gateway.asgi import ASGIApp, Header, Headers, Message, Receive, Scope, Send, header, title
from asgi_gateway.component import Build, Component
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage

from .enveloping import DEFAULT, Members, around

Around = Callable[[Exchange, int], tuple[bytes, bytes]]

NO_BODY = frozenset({204, 205, 206, 304})
GONE = frozenset(
    {
        b"accept-ranges",
        b"content-digest",
        b"content-length",
        b"content-md5",
        b"content-type",
        b"digest",
        b"repr-digest",
    }
)
"""What is said of the bytes that were."""
PLAIN: Header = (b"accept-encoding", b"identity")
JSON: Header = (b"content-type", b"application/json")


class Envelope(Component, name="envelope", stage=Stage.TRANSFORM, rank=-25):
    """Puts the JSON of answers into an envelope, as older micro service frameworks have it."""

    members: Members = DEFAULT
    """What an envelope holds, by name: `data` (what the upstream answered), `code`, `message`, `reason`,
    `status`, `title` or `request_id`."""
    code: int | str = 0
    """The code of an answer that went well. That of an error is its status."""
    message: Annotated[str, Field(max_length=1000)] = "ok"
    """The message of an answer that went well. That of an error is the name of its status."""
    always_ok: bool = False
    """Whether errors of the upstream get the status 200, too: who reads them looks at the code."""

    @model_validator(mode="after")
    def holds_data(self) -> "Envelope":
        if not any(source == "data" for _, source in self.members):
            raise mistake("holds no data", "one of `members` is what the upstream answered: `data: data`")
        return self

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        make, always_ok = self.maker(), self.always_ok

        def envelope(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            # Nothing can be put around what is compressed; `compress` stands further out.
            headers = [field for field in scope["headers"] if field[0] != b"accept-encoding"]
            headers.append(PLAIN)
            wrapping = Wrapping(scope, send, make, always_ok=always_ok)
            return app({**scope, "headers": headers}, receive, wrapping.send)

        return envelope

    def maker(self) -> Around:
        """The function that says what stands around the data of an answer."""
        members, code, message = self.members, self.code, self.message
        known: dict[int, tuple[bytes, bytes]] = {}
        is_fixed = not any(source == "request_id" for _, source in members)
        always_ok = self.always_ok

        def make(exchange: Exchange, status: int) -> tuple[bytes, bytes]:
            if status in known:
                return known[status]
            failed = status >= 400
            values = {
                "code": status if failed else code,
                "message": title(status) if failed else message,
                "reason": "upstream_error" if failed else "",
                "status": 200 if always_ok else status,
                "title": title(status),
                "request_id": "" if is_fixed else exchange.id,
            }
            found = around(members, values)
            if is_fixed:
                known[status] = found
            return found

        return make


class Wrapping:
    """The `send` of one request. What goes in front and behind is known at the head: nothing is held back."""

    __slots__ = ("_always_ok", "_behind", "_exchange", "_front", "_has_body", "_make", "_open", "_send")

    def __init__(self, scope: Scope, send: Send, make: Around, *, always_ok: bool) -> None:
        self._exchange: Exchange = scope[EXCHANGE]
        self._has_body = scope["method"] != "HEAD"
        self._send = send
        self._make = make
        self._always_ok = always_ok
        self._open = False
        self._front = self._behind = b""

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.start":
            # Every attempt has a head of its own.
            self._open = False
            status, headers = message["status"], message.get("headers", ())
            # What the gateway tells itself looks as `errors` says.
            if self._exchange.outcome == "answered" and fits(status, headers):
                self._front, self._behind = self._make(self._exchange, status)
                self._open = self._has_body
                message = {**message, "headers": self._head(headers)}
                if self._always_ok and status >= 400:
                    message["status"] = 200
        elif kind == "http.response.body" and self._open:
            return self._send(self._around(message))
        return self._send(message)

    def _around(self, message: Message) -> Message:
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._front and (body or not more):
            body, self._front = self._front + (body or b"null"), b""
        if not more:
            body += self._behind
        return {**message, "body": body}

    def _head(self, headers: Headers) -> list[Header]:
        kept = []
        for name, text in headers:
            if name == b"etag" and not text.startswith(b"W/"):
                # The bytes are others (RFC 9110 8.8.1).
                kept.append((name, b"W/" + text))
            elif name not in GONE:
                kept.append((name, text))
        kept.append(JSON)
        length = header(headers, b"content-length")
        if length is not None:
            size = int(length) or len(b"null")
            kept.append((b"content-length", b"%d" % (len(self._front) + size + len(self._behind))))
        return kept


def fits(status: int, headers: Headers) -> bool:
    """Whether this is the head of an answer whose JSON can be put into an envelope."""
    if status in NO_BODY or status < 200 or 300 <= status < 400:
        return False
    if header(headers, b"content-encoding") is not None:
        return False
    kind, _, parameters = (header(headers, b"content-type") or b"").lower().partition(b";")
    kind = kind.strip()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        return False
    # JSON is UTF-8 (RFC 8259 8.1); what says otherwise does not go together with an envelope that is.
    return b"charset" not in parameters or b"utf-8" in parameters or b"ascii" in parameters
