"""So many requests of an address, before anybody looks at what it brings."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_gateway.component import Build
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.store import StoreError

from .caller import tell_by
from .rate_limit.options import STORE_AWAY, Limiting, Ration, too_many

if TYPE_CHECKING:
    from .rate_limit.limiter import Verdict
    from .rate_limit.shared import SharedLimiter

Spawn = Callable[[Coroutine[Any, Any, None]], bool]


class EarlyRateLimit(
    Limiting,
    name="early_rate_limit",
    stage=Stage.GUARD,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Admits so many requests of an address in a time, before any credential is looked at.

    With `count: failures` only answers that say so count, as with 401: against those who try passwords.
    """

    count: Literal["requests", "failures"] = "requests"
    """What counts: every `requests`, or `failures`, which are answers with one of `statuses`."""
    statuses: tuple[Annotated[int, Field(ge=400, le=599)], ...] = (401, 403)
    """With `count: failures`: the statuses that count, whoever answers so."""
    headers: Literal["draft", "legacy", "both", "none"] = "none"
    """Fields that tell callers where they stand, as in `rate_limit`."""
    group: str = "early"
    """Limits of one group and the same rates count together, on all routes. Empty: each for itself."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse = build.refuse(app)
        ration = self.ration(self, "ip", build)
        counter, tell = ration.counter, ration.tell
        address = tell_by("ip", ipv6_prefix=self.ipv6_prefix)
        failures = (
            Failures(ration, frozenset(self.statuses), build.spawn) if self.count == "failures" else None
        )

        async def early_rate_limit(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            caller = f"ip {address(scope, exchange)}"
            try:
                verdict = await counter.decide(caller, take=failures is None)
            except StoreError:
                exchange.tag("store", "away")
                await refuse(scope, receive, send, STORE_AWAY)
                return
            if verdict.away:
                exchange.tag("store", "away")
            if failures is not None:
                verdict = failures.now(caller, verdict)
            if tell is not None and verdict.standing:
                exchange.on_start(partial(tell, verdict.standing))
            if not verdict.admitted:
                await refuse(scope, receive, send, too_many(verdict.wait))
                return
            if failures is not None:
                exchange.on_start(partial(failures.judge, caller))
            await app(scope, receive, send)

        return early_rate_limit


class Failures:
    """Counts failed requests at once in this process, and beside the requests in a store that is shared.

    Who tries many at one time would be through with all of them before the store has counted the first.
    """

    def __init__(self, ration: Ration, statuses: frozenset[int], spawn: Spawn) -> None:
        self._local = ration.local
        self._shared = cast("SharedLimiter", ration.counter) if ration.counter is not ration.local else None
        self._statuses = statuses
        self._spawn = spawn

    def now(self, caller: str, verdict: "Verdict") -> "Verdict":
        """The verdict of the store, unless this process has counted more by now."""
        if self._shared is None or not verdict.admitted or verdict.away:
            return verdict
        here = self._local.decide_now(caller, take=False)
        return verdict if here.admitted else here

    def judge(self, caller: str, exchange: Exchange, message: Message) -> None:
        # Our own refusal is no failed attempt: it would lock an address for as long as it asks.
        if message["status"] in self._statuses and not mine(exchange):
            self._local.decide_now(caller, take=True)
            if self._shared is not None:
                self._spawn(self._share(self._shared, caller))

    async def _share(self, shared: "SharedLimiter", caller: str) -> None:
        # What cannot be counted there while the store is away is counted here.
        with suppress(StoreError):
            await shared.ask(caller)


def mine(exchange: Exchange) -> bool:
    return exchange.refused is not None and exchange.refused.component == EarlyRateLimit.name
