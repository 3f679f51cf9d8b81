"""So many requests in so much time, for each caller."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.units import Rate

from ..caller import one_of, tell_by
from .fields import Policies, Standing, announce

if TYPE_CHECKING:
    from .limiter import Limiter

Identify = Callable[[Scope, Exchange], str]

TOO_MANY = "This caller has sent too many requests."
UNIDENTIFIED = Refusal(403, "unidentified", (), "The request does not say by whom it is to be counted.")


class RateLimit(
    Component, name="rate_limit", stage=Stage.LIMIT, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Admits so many requests of a caller in a time, and refuses the rest with 429.

    Counts are held in the memory of each worker: with several workers, each admits the whole limit.
    """

    limit: Rate | None = None
    """The rate that is admitted: `100/minute`."""
    limits: tuple[Rate, ...] = ()
    """Several rates at once: `[10/second, 100/minute]`. What one of them refuses counts for none."""
    by: Annotated[str, one_of("ip", "consumer", "header:<name>", "route")] = "ip"
    """Whose requests are counted together: `ip`, `consumer`, `header:<name>`, or `route`: everybody's."""
    unidentified: Literal["ip", "refuse"] = "ip"
    """Callers without what `by` asks for are counted by their address, or refused with 403."""
    window: Literal["fixed", "sliding", "moving"] = "sliding"
    """`fixed` begins with the first request, `sliding` weighs the one before, `moving` is exact."""
    headers: Literal["draft", "legacy", "both", "none"] = "draft"
    """Fields that tell callers where they stand: `draft` is RateLimit, `legacy` RateLimit-Limit and so on."""
    group: str = ""
    """Limits of one group and the same rates count together, on all routes. Empty: each for itself."""
    ipv6_prefix: Annotated[int, Field(ge=1, le=128)] = 64
    """IPv6 addresses that agree in so many bits are one caller."""
    max_keys: Annotated[int, Field(ge=1)] = 200_000
    """Callers (with `moving`: requests) that are remembered; past it, the ones unseen for longest are not."""

    @model_validator(mode="after")
    def has_rates(self) -> "RateLimit":
        if (self.limit is None) == (not self.limits):
            raise ValueError("write either limit: 100/minute, or limits: [10/second, 100/minute]")
        periods = [rate.period for rate in self.rates]
        if len(set(periods)) < len(periods):
            raise ValueError("two limits have the same period: only the lower one would count")
        if self.window == "moving" and max(rate.amount for rate in self.rates) > self.max_keys:
            raise ValueError("a moving window remembers each request: max_keys must not be below the limit")
        return self

    @property
    def rates(self) -> tuple[Rate, ...]:
        return self.limits if self.limit is None else (self.limit,)

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        limiter = self.limiter(build)
        refuse, identify = build.refuse(app), self.identify()
        tells = self.headers != "none"
        add_fields = partial(announce, Policies(self.rates), self.headers)

        async def rate_limit(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            caller = identify(scope, exchange)
            if not caller:
                await refuse(scope, receive, send, UNIDENTIFIED)
                return
            admitted = await limiter.hit(caller)
            if tells or not admitted:
                standing = limiter.standing(caller)
                if tells:
                    exchange.on_start(partial(add_fields, standing))
                if not admitted:
                    await refuse(scope, receive, send, too_many(standing))
                    return
            await app(scope, receive, send)

        return rate_limit

    def limiter(self, build: Build) -> "Limiter":
        """What counts; it survives a reload that does not change the rule."""
        from .limiter import Limiter

        key = ("rate_limit", self.group, self.rates, self.window, self.by, self.ipv6_prefix, self.max_keys)
        make = partial(Limiter, self.rates, self.window, build.clock.monotonic, self.max_keys)
        return build.keep(key, make, shared=bool(self.group))

    def identify(self) -> Identify:
        """The function that says under which key a request is counted; empty: it is to be refused."""
        tell, address = tell_by(self.by), tell_by("ip", ipv6_prefix=self.ipv6_prefix)
        kind, strict = self.by.partition(":")[0], self.unidentified == "refuse"

        def identify(scope: Scope, exchange: Exchange) -> str:
            caller = tell(scope, exchange)
            if caller:
                return f"{kind} {caller}"
            return "" if strict else f"ip {address(scope, exchange)}"

        if self.by == "ip":
            return lambda scope, exchange: f"ip {address(scope, exchange)}"
        return identify


def too_many(standing: Standing) -> Refusal:
    wait = max((seconds for remaining, seconds in standing if not remaining), default=1)
    return Refusal(429, "rate_limited", ((b"retry-after", b"%d" % max(1, wait)),), TOO_MANY)
