"""So many requests of an address, before anybody looks at what it brings."""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_gateway.component import Build
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.store import StoreError

from .caller import tell_by
from .rate_limit.options import STORE_AWAY, Limiting, too_many


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
        refuse, spawn = build.refuse(app), build.spawn
        counter, tell = self.ration(self, "ip", build)
        address = tell_by("ip", ipv6_prefix=self.ipv6_prefix)
        everything, failures = self.count == "requests", frozenset(self.statuses)

        async def count(caller: str) -> None:
            try:
                await counter.decide(caller)
            except StoreError:
                # Who is refused while the store is away is refused at the next request.
                return

        def judge(caller: str, exchange: Exchange, message: Message) -> None:
            # Our own refusal is no failed attempt: it would lock an address for as long as it asks.
            if message["status"] in failures and not mine(exchange):
                spawn(count(caller))

        async def early_rate_limit(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            caller = f"ip {address(scope, exchange)}"
            try:
                verdict = await counter.decide(caller, take=everything)
            except StoreError:
                exchange.tag("store", "away")
                await refuse(scope, receive, send, STORE_AWAY)
                return
            if verdict.away:
                exchange.tag("store", "away")
            if tell is not None and verdict.standing:
                exchange.on_start(partial(tell, verdict.standing))
            if not verdict.admitted:
                await refuse(scope, receive, send, too_many(verdict.wait))
                return
            if not everything:
                exchange.on_start(partial(judge, caller))
            await app(scope, receive, send)

        return early_rate_limit


def mine(exchange: Exchange) -> bool:
    return exchange.refused is not None and exchange.refused.component == EarlyRateLimit.name
