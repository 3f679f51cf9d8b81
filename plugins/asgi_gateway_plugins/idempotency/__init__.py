"""A request with a key is carried out once, however often it is sent (draft-ietf-httpapi-idempotency-key)."""

import re
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Annotated

from pydantic import Field

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.config import Methods
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.replay import Replay
from asgi_gateway.stage import Stage
from asgi_gateway.store import StoreError
from asgi_gateway.units import Size, Span

from ..caller import tell_by
from ..fields import HeaderName
from ..rate_limit.options import AGAIN, By, OnError
from .ledger import MARK, Answered, Ledger, LocalLedger, Running, SharedLedger
from .work import Work

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
