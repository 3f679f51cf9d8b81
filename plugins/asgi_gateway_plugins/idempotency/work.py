"""Carries one request out to its end, and writes down what came of it, whether or not its caller waits."""

import asyncio
from collections.abc import Callable

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_gateway.errors import Aborted
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.hops import end_to_end
from asgi_gateway.store import StoreError

from .ledger import Answered, Held


class Work:
    """A request that is carried out."""

    __slots__ = (
        "_app",
        "_body",
        "_complete",
        "_exchange",
        "_given",
        "_gone",
        "_held",
        "_mark",
        "_monotonic",
        "_most",
        "_news",
        "_outcome",
        "_over",
        "_receive",
        "_scope",
        "_send",
        "_size",
        "_start",
        "_taken",
        "_ttl",
        "_twin",
        "_written",
    )

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        held: Held,
        mark: bytes,
        most: int,
        ttl: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._held = held
        self._mark = mark
        self._most = most
        self._ttl = ttl
        self._monotonic = monotonic
        self._exchange: Exchange = scope[EXCHANGE]
        self._start: Message = {}
        self._body: list[bytes] = []
        self._size = 0
        self._complete = False
        self._gone = False
        """Whether the caller has left."""
        self._outcome: Exception | None = None
        self._over = False
        self._twin: Exchange | None = None
        """What it is carried out with, while it is."""
        self._written = False
        """Whether it is written down what came of it."""
        self._given: Message | None = None
        """What the caller is to be sent next."""
        self._news = asyncio.Event()
        self._taken = asyncio.Event()

    async def run(self) -> None:
        """Carry it out, and write down what came of it."""
        exchange = self._exchange
        twin = self._twin = exchange.fork(self._take)
        twin.upstream, twin.foreign, twin.task = exchange.upstream, False, asyncio.current_task()
        twin.has_body, twin.replay, twin.trailers = exchange.has_body, exchange.replay, exchange.trailers
        scope = {**self._scope, EXCHANGE: twin, "extensions": {}}
        try:
            await self._app(scope, self._receive, twin.send)
        except Exception as error:
            self._outcome = error
        finally:
            if not self._gone:
                tell(exchange, twin)
            twin.end(self._monotonic())
            try:
                if not self._written:
                    await self._write_down()
            finally:
                self._over, self._twin = True, None
                self._news.set()

    async def _write_down(self) -> None:
        twin, answered = self._twin, None
        assert twin is not None
        status = self._start.get("status", 0)
        # What failed may be tried again with the same key.
        if self._complete and 200 <= status < 500 and twin.outcome == "answered" and twin.refused is None:
            body = b"".join(self._body) if self._size <= self._most else None
            answered = Answered(self._mark, status, end_to_end(self._start["headers"]), body)
        try:
            await self._held.finish(answered, self._ttl)
        except StoreError:
            self._exchange.tag("store", "away")
        self._written = True

    async def _take(self, message: Message) -> None:
        """The `send` of the work. It goes on as fast as the caller takes it, or has left."""
        kind = message["type"]
        if kind == "http.response.start":
            self._start = {**message, "headers": list(message["headers"])}
        elif kind == "http.response.body":
            body = message.get("body", b"")
            self._size += len(body)
            if self._size <= self._most:
                self._body.append(body)
            else:
                self._body.clear()
            self._complete = not message.get("more_body", False)
            if self._complete:
                # Who has all of the answer, and asks again, is to get the same.
                await self._write_down()
        if not self._gone:
            self._given = message
            self._news.set()
            self._taken.clear()
            await self._taken.wait()

    async def follow(self) -> None:
        """Give the caller what comes of it, and wait until it is written down."""
        try:
            while not self._over:
                await self._news.wait()
                self._news.clear()
                message, self._given = self._given, None
                if message is not None:
                    await self._send(message)
                    self._taken.set()
        except BaseException:
            # It goes on without its caller, who may ask again what came of it.
            self._gone = True
            self._taken.set()
            raise
        if self._complete:
            return
        error, self._outcome = self._outcome, None
        if self._start:
            raise Aborted(str(error) if error is not None else "the request was ended")
        if error is not None:
            raise error


def tell(exchange: Exchange, twin: Exchange) -> None:
    """Tell the exchange of the caller what came of it."""
    exchange.calls.extend(twin.calls)
    if twin.outcome != "answered":
        exchange.outcome, exchange.cause, exchange.refused = twin.outcome, twin.cause, twin.refused
