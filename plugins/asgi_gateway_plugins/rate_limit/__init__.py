"""So many requests in so much time, for each caller."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.store import StoreError
from asgi_gateway.units import Time

from ..caller import known_caller, path_variable
from .options import STORE_AWAY, UNIDENTIFIED, By, Limiting, Rated, Ration, identifying, too_many

if TYPE_CHECKING:
    from .limiter import Verdict


class Tier(Rated):
    """Other rates for some groups of consumers."""

    groups: Annotated[tuple[str, ...], Field(min_length=1)]
    """Consumers in one of these groups have these rates."""


class RateLimit(
    Limiting, name="rate_limit", stage=Stage.LIMIT, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Admits so many requests of a caller in a time, and refuses the rest with 429.

    Counts are held in the store of the gateway, which all workers share if it is not memory.
    """

    by: By = "ip"
    """Whose requests are counted together: `ip`, `consumer`, `group`, `route`, `cluster` and others."""
    unidentified: Literal["ip", "refuse"] = "ip"
    """Callers without what `by` asks for are counted by their address, or refused with 403."""
    cost: Annotated[int, Field(ge=1)] = 1
    """How many requests one of this route counts for."""
    tiers: tuple[Tier, ...] = ()
    """Other rates for some groups: `[{groups: [gold], limit: 1000/minute}]`. The first that fits holds."""
    delay: Time = 0.0
    """A request that would be admitted within this time waits for it instead of being refused."""
    max_delayed: Annotated[int, Field(ge=1)] = 100
    """Requests that may wait at one time, in one worker; more are refused."""

    def all_rated(self) -> Sequence[Rated]:
        return (self, *self.tiers)

    @model_validator(mode="after")
    def can_be_afforded(self) -> "RateLimit":
        if any(self.cost > rated.most_at_once for rated in self.all_rated()):
            raise ValueError("cost is more than is ever admitted at once")
        return self

    def variables(self) -> Iterable[str]:
        return path_variable(self.by)

    def needs_caller(self) -> str:
        return known_caller(self.by) or ("tiers" if self.tiers else "")

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        from .limiter import Verdict
        from .waiting import Waiting

        refuse, cost = build.refuse(app), self.cost
        identify = identifying(self.by, self.unidentified, self.ipv6_prefix)
        ration_of = self.rationing(build)
        waiting = Waiting(self.delay, self.max_delayed, build.clock.monotonic)
        waits = self.delay > 0 and not refuse.reporting

        def rate_limit(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            caller = identify(scope, exchange)
            if not caller:
                return refuse(scope, receive, send, UNIDENTIFIED)
            ration = ration_of(exchange)
            if (at_once := ration.counter.at_once) is None:
                return ask(scope, receive, send, caller, ration)
            left, seconds, wait = at_once(caller, cost)
            if wait and waits:
                verdict = Verdict(False, wait, [(left, seconds)])
                return ask(scope, receive, send, caller, ration, verdict)
            if ration.tell is not None:
                exchange.on_start(partial(ration.tell, [(left, seconds)]))
            return refuse(scope, receive, send, too_many(wait)) if wait else app(scope, receive, send)

        async def ask(
            scope: Scope,
            receive: Receive,
            send: Send,
            caller: str,
            ration: Ration,
            verdict: "Verdict | None" = None,
        ) -> None:
            exchange: Exchange = scope[EXCHANGE]
            counter = ration.counter
            try:
                if verdict is None:
                    verdict = await counter.decide(caller, cost)
                if waits and not verdict.admitted:
                    verdict = await waiting.until_admitted(counter, caller, cost, verdict)
            except StoreError:
                exchange.tag("store", "away")
                await refuse(scope, receive, send, STORE_AWAY)
                return
            if verdict.away:
                exchange.tag("store", "away")
            if ration.tell is not None and verdict.standing:
                exchange.on_start(partial(ration.tell, verdict.standing))
            if verdict.admitted:
                await app(scope, receive, send)
            else:
                await refuse(scope, receive, send, too_many(verdict.wait))

        return rate_limit

    def rationing(self, build: Build) -> Callable[[Exchange], Ration]:
        """The function that says which rates a caller has."""
        usual = self.ration(self, self.by, build)
        if not self.tiers:
            return lambda exchange: usual
        tiers = [(frozenset(tier.groups), self.ration(tier, self.by, build)) for tier in self.tiers]

        def ration_of(exchange: Exchange) -> Ration:
            if exchange.principal is not None:
                for groups, ration in tiers:
                    if not groups.isdisjoint(exchange.principal.groups):
                        return ration
            return usual

        return ration_of
