"""What is answered when an upstream fails: another upstream, something stored, or a fixed value."""

import re
from functools import partial
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from asgi_gateway.asgi import ASGIApp, Header, Message, Receive, Scope, Send, answer
from asgi_gateway.call import CALL, Call, Failure
from asgi_gateway.component import Build, Component
from asgi_gateway.config import Methods, Model, Name, Pairs
from asgi_gateway.errors import Discarded, UpstreamError
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.replay import Replay
from asgi_gateway.stage import Stage
from asgi_gateway.units import Size

from .failing import IDEMPOTENT, Kind, Status, reasons
from .fields import TOKEN, WrittenHeader, is_framing, value

STORED = frozenset({"GET", "HEAD"})
NO_STORE = (b"cache-control", b"no-store")


class FixedAnswer(Model):
    """An answer that is always the same."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    """Its status."""
    body: Annotated[str, Field(max_length=1024 * 1024)] = ""
    """Its body, as it is."""
    content_type: Annotated[str, Field(pattern=r"^[\x21-\x7e][\x20-\x7e]*$")] = "application/json"
    """What the body is."""
    headers: Pairs = ()
    """Further fields. Without a `cache-control` among them nobody may store it."""

    @field_validator("headers")
    @classmethod
    def are_fields(cls, headers: Pairs) -> Pairs:
        for name, _ in headers:
            if not re.fullmatch(TOKEN, name) or is_framing(name) or name.lower() == "content-type":
                raise ValueError(f"{name!r} cannot be set here")
        return tuple((name.lower(), text) for name, text in headers)

    def fields(self) -> list[Header]:
        """Its fields as they are sent."""
        fields = [(name.encode(), value(text)) for name, text in self.headers]
        return fields if any(name == b"cache-control" for name, _ in fields) else [*fields, NO_STORE]


class Fallback(Component, name="fallback", stage=Stage.RESCUE):
    """Answers instead of an upstream that fails: with a stored answer, from another upstream, or a fixed one.

    They are tried in this order. What the caller gets says that it is not the usual answer.
    """

    answer: FixedAnswer | None = None
    """A fixed answer: `status` (200), `body`, `content_type` (application/json), `headers`."""
    upstream: Name | None = None
    """Another upstream that is asked. Bodies are held for it, see `max_body`."""
    stale: bool = False
    """Whether a stored answer may be given that is no longer fresh, where a cache has one."""
    on: tuple[Kind, ...] = ("connect", "reset", "timeout", "busy", "open", "error")
    """Failures that it mends: `connect` (no connection), `reset` (it ended before the answer, or what came is
    not HTTP), `timeout`, `busy` (no place became free), `open` (a `breaker` is open), `error` (an app in this
    process raised)."""
    statuses: tuple[Status, ...] = (502, 503, 504)
    """Answers that it replaces."""
    methods: Methods = IDEMPOTENT
    """Methods of requests that another upstream may get although the first one may have executed them."""
    max_body: Size = 64 * 1024
    """Bytes of a body that are held for another upstream; a request with more goes to none."""
    mark: WrittenHeader = "x-fallback"
    """The field that says where an answer comes from: `stale`, `upstream` or `answer`. Empty: none."""

    @model_validator(mode="after")
    def has_something(self) -> "Fallback":
        if self.answer is None and self.upstream is None and not self.stale:
            raise ValueError("it has nothing to answer: give answer, upstream or stale")
        return self

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        rescue = Rescue(self, build.upstream(self.upstream) if self.upstream else None)
        most = self.max_body if self.upstream else 0

        def fallback(scope: Scope, receive: Receive, send: Send) -> Any:
            call: Call = scope[CALL]
            exchange: Exchange = scope[EXCHANGE]
            replay = None
            if most and exchange.has_body:
                replay = Replay(receive)
                receive = replay.reader(most)
            call.judge(partial(rescue.judge, scope, replay))
            call.rescue(partial(rescue.answer, replay))
            return app(scope, receive, send)

        return fallback


class Rescue:
    """What is the same for all calls."""

    def __init__(self, options: Fallback, upstream: ASGIApp | None) -> None:
        self._reasons = reasons(options.on) | {"bad_status"}
        self._statuses = frozenset(options.statuses)
        self._methods = frozenset(options.methods)
        self._stale = options.stale
        self._upstream = upstream
        self._fixed = options.answer
        self._mark = options.mark.encode()

    def judge(self, scope: Scope, replay: Replay | None, call: Call, message: Message) -> None:
        """Discard a bad answer if there is something better."""
        if message["status"] not in self._statuses:
            return
        exchange: Exchange = scope[EXCHANGE]
        if (
            self._fixed is not None
            or self._stored(scope, exchange)
            or self._repeats(scope, replay, sent=True)
        ):
            raise Discarded(message["status"])

    def _stored(self, scope: Scope, exchange: Exchange) -> bool:
        return self._stale and exchange.stale is not None and scope["method"] in STORED

    def _repeats(self, scope: Scope, replay: Replay | None, *, sent: bool) -> bool:
        """Whether another upstream may get the request."""
        if self._upstream is None or (replay is not None and replay.lost):
            return False
        return not sent or scope["method"] in self._methods

    async def answer(
        self, replay: Replay | None, scope: Scope, receive: Receive, send: Send, call: Call, failure: Failure
    ) -> bool:
        """Answer in place of a call that failed; False: this is not for us."""
        if failure.reason not in self._reasons:
            return False
        exchange: Exchange = scope[EXCHANGE]
        if self._stored(scope, exchange):
            assert exchange.stale is not None
            told(exchange, "stale", failure)
            await exchange.stale(scope, Marked(send, self._mark, b"stale").send)
            return True
        sent = isinstance(failure, UpstreamError) and failure.sent
        if self._repeats(scope, replay, sent=sent):
            told(exchange, "upstream", failure)
            again = replay.reader() if replay is not None else Replay(receive, empty=True).reader()
            if await self._ask(scope, again, send):
                return True
        if self._fixed is None:
            return False
        told(exchange, "answer", failure)
        fixed = self._fixed
        marked = Marked(send, self._mark, b"answer").send
        await answer(
            scope, marked, fixed.status, fixed.body.encode(), fixed.fields(), fixed.content_type.encode()
        )
        return True

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Ask the other upstream. False: it failed, too, and there is still a fixed answer."""
        assert self._upstream is not None
        unwanted = self._statuses if self._fixed is not None else frozenset[int]()
        marked = Marked(send, self._mark, b"upstream", unwanted)
        try:
            await self._upstream(scope, receive, marked.send)
        except Discarded:
            if not marked.discarded:
                raise
        return not marked.discarded


def told(exchange: Exchange, source: str, failure: Failure) -> None:
    """What the access log says: that the call failed, and what was answered all the same."""
    exchange.tag("fallback", source)
    exchange.outcome, exchange.cause = "answered", failure.reason


class Marked:
    """Marks the answer that goes through it, or discards it for its status."""

    __slots__ = ("_mark", "_send", "_source", "_unwanted", "discarded")

    def __init__(
        self, send: Send, mark: bytes, source: bytes, unwanted: frozenset[int] = frozenset()
    ) -> None:
        self._send = send
        self._mark = mark
        self._source = source
        self._unwanted = unwanted
        self.discarded = False

    def send(self, message: Message) -> Any:
        if self.discarded or message.get("status") in self._unwanted:
            self.discarded = True
            raise Discarded(message.get("status", 502))
        if message["type"] == "http.response.start" and self._mark:
            fields = [field for field in message.get("headers", ()) if field[0] != self._mark]
            message = {**message, "headers": [*fields, (self._mark, self._source)]}
        return self._send(message)
