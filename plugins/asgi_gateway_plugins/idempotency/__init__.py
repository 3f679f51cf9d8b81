"""A request with a key is carried out once, however often it is sent (draft-ietf-httpapi-idempotency-key)."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Annotated

from pydantic import Field

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.config import Methods
from asgi_gateway.errors import Aborted
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.hops import end_to_end
from asgi_gateway.replay import Replay
from asgi_gateway.stage import Stage
from asgi_gateway.store import StoreError
from asgi_gateway.units import Size, Span

from ..caller import tell_by
from ..fields import HeaderName
from ..rate_limit.options import AGAIN, By, OnError
from .ledger import MARK, Answered, Held, Ledger, LocalLedger, Running, SharedLedger

KEY = re.compile(rb'"([\x20-\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x2b\x2d-\x7e]{1,255})')
"""A string of RFC 9651, as the draft has it, or the same without quotation marks, as many send it."""
REPLAYED = (b"idempotent-replayed", b"true")
CREDENTIALS = frozenset({b"authorization", b"cookie"})

MISSING = Refusal(400, "idempotency_key_missing", (), "This operation needs an Idempotency-Key.", "", True)
MALFORMED = Refusal(400, "bad_idempotency_key", (), "The Idempotency-Key is not one short string.")
UNDER_WAY = Refusal(409, "idempotency_key_in_use", AGAIN, "A request with this key is being carried out.")
OTHER = Refusal(422, "idempotency_key_reused", (), "This key was sent with another request before.")
NOT_KEPT = Refusal(
    409, "idempotency_answer_lost", (), "It was carried out already, and its answer is too large to be kept."
)
STORE_AWAY = Refusal(503, "store_away", AGAIN, "It cannot be said whether this was carried out already.")
TOO_MANY = Refusal(503, "too_many_at_once", AGAIN, "Too many such requests are being carried out.")


class Idempotency(Component, name="idempotency", stage=Stage.CACHE, rank=-10, refuses=True):
    """Carries a request with an Idempotency-Key out once, and answers the same to everyone who repeats it.

    While the first one is under way, others get 409; the same key with another request gets 422.
    """

    methods: Methods = ("POST", "PATCH")
    """Methods whose requests may have a key. With others it means nothing here."""
    required: bool = False
    """Whether such requests without a key are refused with 400."""
    header: HeaderName = "idempotency-key"
    """The field with the key."""
    by: By = "consumer"
    """Whose keys they are, as in `rate_limit`. Callers without what it asks for are told apart by address."""
    ttl: Span = 86400.0
    """How long an answer is kept."""
    lease: Span = 30.0
    """In a shared store: how long the keys of a process that was killed stay in use."""
    max_body: Annotated[Size, Field(ge=0)] = 1024 * 1024
    """The longest body of a request with a key; it is read before it goes upstream. 413 past it."""
    max_answer: Annotated[Size, Field(ge=0)] = 1024 * 1024
    """The longest body of an answer that is kept. A longer one passes; who repeats the request gets 409."""
    max_size: Annotated[Size, Field(ge=1024 * 1024)] = 64 * 1024 * 1024
    """Without a shared store: memory of one process for all answers of this place, at least 1MiB."""
    on_error: OnError = "closed"
    """While a shared store is away: `closed` answers 503, `open` carries out, `local` knows this process."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, spawn, monotonic = build.refuse(app), build.spawn, build.clock.monotonic
        methods, name = frozenset(self.methods), self.header.encode()
        tell, address = tell_by(self.by), tell_by("ip")
        local, shared = self.ledgers(build)
        ledger = shared or local
        on_error, required, max_body, ttl = self.on_error, self.required, self.max_body, self.ttl
        max_answer = self.max_answer
        too_large = Refusal(413, "body_too_large", (), f"The body is larger than {max_body} bytes.")

        def idempotency(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            if scope["method"] not in methods and "*" not in methods:
                return app(scope, receive, send)
            keys = [value for field, value in scope["headers"] if field == name]
            if not keys:
                return refuse(scope, receive, send, MISSING) if required else app(scope, receive, send)
            found = KEY.fullmatch(keys[0].strip()) if len(keys) == 1 else None
            if found is None:
                return refuse(scope, receive, send, MALFORMED)
            return once(scope, receive, send, found[1] or found[2])

        async def once(scope: Scope, receive: Receive, send: Send, key: bytes) -> None:
            exchange: Exchange = scope[EXCHANGE]
            mark = blake2b(digest_size=MARK)
            replay = Replay.of(exchange, receive)
            describe(mark.update, scope, exchange)
            whole = await replay.read(max_body, mark.update)
            receive = replay.reader()
            if not whole:
                await refuse(scope, receive, send, too_large)
                return
            caller = tell(scope, exchange) or f"ip {address(scope, exchange)}"
            own = blake2b(repr((caller, key)).encode(), digest_size=16).hexdigest()
            try:
                taken = await ledger.take(own, mark.digest())
            except StoreError:
                exchange.tag("store", "away")
                if on_error == "closed":
                    await refuse(scope, receive, send, STORE_AWAY)
                    return
                if on_error == "open":
                    await app(scope, receive, send)
                    return
                taken = await local.take(own, mark.digest())
            if isinstance(taken, Running | Answered):
                await again(scope, receive, send, taken, mark.digest())
                return
            work = Work(app, scope, receive, send, taken, mark.digest(), max_answer, ttl, monotonic)
            if not spawn(work.run()):
                await taken.finish(None, 0.0)
                await refuse(scope, receive, send, TOO_MANY)
                return
            await work.follow()

        async def again(
            scope: Scope, receive: Receive, send: Send, before: Running | Answered, mark: bytes
        ) -> None:
            """The key is in use, or was."""
            exchange: Exchange = scope[EXCHANGE]
            if before.mark != mark:
                await refuse(scope, receive, send, OTHER)
            elif isinstance(before, Running):
                await refuse(scope, receive, send, UNDER_WAY)
            elif before.body is None:
                await refuse(scope, receive, send, NOT_KEPT)
            elif refuse.reporting:
                exchange.tag("idempotency", "would_replay")
                await app(scope, receive, send)
            else:
                exchange.tag("idempotency", "replayed")
                headers = [*before.headers, REPLAYED]
                await send({"type": "http.response.start", "status": before.status, "headers": headers})
                await send({"type": "http.response.body", "body": before.body})

        return idempotency

    def ledgers(self, build: Build) -> tuple[LocalLedger, Ledger | None]:
        """Where keys are written down; it survives a reload."""
        most, monotonic = self.max_size, build.clock.monotonic
        local = build.keep(("local", most), lambda: LocalLedger(most, monotonic), close=LocalLedger.close)
        if not (store := build.store).shared:
            return local, None
        place, lease, spawn = f"{build.place}/{self.by}", self.lease, build.spawn
        shared = build.keep(
            ("shared", self.by, lease, store),
            lambda: SharedLedger(store, place, lease, spawn),
            run=SharedLedger.renew,
        )
        return local, shared


def describe(update: Callable[[bytes], object], scope: Scope, exchange: Exchange) -> None:
    """What makes a request another one, beside its body."""
    said = [scope["method"].encode(), exchange.authority.lower(), scope["raw_path"], scope["query_string"]]
    who = exchange.principal
    for name, value in scope["headers"]:
        # Whom nobody identified is who his credentials say: nobody else gets his answer.
        if name == b"content-type" or (name in CREDENTIALS and who is None):
            said += (name, value)
    # Those whose keys are the same, as `by` has it, need not be one caller; a new token makes no other one.
    caller = (who.consumer, who.claims.get("iss"), who.claims.get("sub")) if who is not None else ()
    update(repr((said, caller)).encode())


class Work:
    """A request that is carried out to its end, whether or not its caller waits for it."""

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
