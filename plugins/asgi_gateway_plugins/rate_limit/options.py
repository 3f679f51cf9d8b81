"""What all limiters of rates have in common: their rates, the window, and where they count."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from asgi_gateway.asgi import Scope
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.exchange import Exchange
from asgi_gateway.strictness import Strict
from asgi_gateway.units import Rate

from ..caller import one_of, tell_by
from .fields import Policies, Tell, teller

if TYPE_CHECKING:
    from .limiter import Counter, Limiter

Identify = Callable[[Scope, Exchange], str]
OnError = Literal["open", "closed", "local"]
Prefix = Annotated[int, Field(ge=1, le=128)]

AGAIN = ((b"retry-after", b"1"),)
UNIDENTIFIED = Refusal(403, "unidentified", (), "The request does not say by whom it is to be counted.")
STORE_AWAY = Refusal(503, "store_away", AGAIN, "It cannot be said at the moment what this caller may do.")
TOO_MANY = "This caller has sent too many requests."
KINDS = (
    "ip",
    "consumer",
    "group",
    "route",
    "cluster",
    "header:<name>",
    "path:<name>",
    "query:<name>",
    "claim:<name>",
)
By = Annotated[str, one_of(*KINDS)]


class Ration(NamedTuple):
    """What some callers get: who counts them, and how they are told."""

    counter: "Counter"
    tell: Tell | None
    local: "Limiter"
    """The memory of this process: the counter itself, unless the store is shared."""


class Rated(Strict):
    """Something with one rate or several."""

    limit: Rate | None = None
    """The rate that is admitted: `100/minute`."""
    limits: tuple[Rate, ...] = ()
    """Several rates at once: `[10/second, 100/minute]`. What one of them refuses counts for none."""
    burst: Annotated[int, Field(ge=1)] | None = None
    """With `window: bucket`: how many may come at once. Not given: as many as the rate says."""

    @model_validator(mode="after")
    def has_rates(self) -> "Rated":
        if (self.limit is None) == (not self.limits):
            raise ValueError("write either limit: 100/minute, or limits: [10/second, 100/minute]")
        periods = [rate.period for rate in self.rates]
        if len(set(periods)) < len(periods):
            raise ValueError("two limits have the same period: only the lower one would count")
        if self.burst is not None and self.limits:
            raise ValueError("burst belongs to one limit")
        return self

    @property
    def rates(self) -> tuple[Rate, ...]:
        return self.limits if self.limit is None else (self.limit,)

    @property
    def most_at_once(self) -> int:
        """What a request can cost at most."""
        return self.burst or min(rate.amount for rate in self.rates)


class Limiting(Component, Rated):
    """A component that limits rates."""

    window: Literal["fixed", "sliding", "moving", "bucket"] = "sliding"
    """How time is looked at: `fixed`, `sliding`, `moving` or `bucket`, see below."""
    headers: Literal["draft", "legacy", "both", "none"] = "draft"
    """Fields that tell callers where they stand: `draft` is RateLimit, `legacy` RateLimit-Limit and so on."""
    group: str = ""
    """Limits of one group and the same rates count together, on all routes. Empty: each for itself."""
    ipv6_prefix: Prefix = 64
    """IPv6 addresses that agree in so many bits are one caller."""
    on_error: OnError = "local"
    """While a shared store is away: `local` counts in this process, `open` admits, `closed` answers 503."""
    max_keys: Annotated[int, Field(ge=1)] = 200_000
    """Callers (with `moving`: requests) that memory holds; past it, the ones unseen for longest are not."""

    def all_rated(self) -> Sequence[Rated]:
        """This one, and what else has rates in it."""
        return (self,)

    @model_validator(mode="after")
    def fits_its_window(self) -> "Limiting":
        for rated in self.all_rated():
            if self.window == "moving" and max(rate.amount for rate in rated.rates) > self.max_keys:
                raise ValueError(
                    "a moving window remembers each request: max_keys must not be below the limit"
                )
            if rated.burst is not None and self.window != "bucket":
                raise ValueError("burst needs window: bucket")
        return self

    def ration(self, rated: Rated, by: str, build: Build) -> Ration:
        """Who counts some rates. Counters survive a reload that does not change the rule."""
        from .limiter import Limiter, Rule
        from .shared import SharedLimiter, script

        rules = tuple(Rule(rate, rated.burst) for rate in rated.rates)
        rule = (rated.rates, rated.burst, self.window, by)
        # Whoever is in one group, or counts the whole cluster, has one counter.
        common = bool(self.group) or by == "cluster"
        local = build.keep(
            ("rate_limit", self.group, rule, self.ipv6_prefix, self.max_keys),
            lambda: Limiter(rules, self.window, build.clock.monotonic, self.max_keys),
            shared=common,
        )
        counter: Counter = local
        if (store := build.store).shared:
            place = f"{self.name}/group {self.group}" if common else build.place
            base = f"{place}/{by}/{self.window}"
            counter = SharedLimiter(store, script(self.window), rules, base, local, self.on_error)
        return Ration(counter, teller(Policies.of(rated.rates), self.headers), local)


def identifying(by: str, unidentified: Literal["ip", "refuse"], ipv6_prefix: int) -> Identify:
    """The function that says under which key a request is counted; empty: it is to be refused."""
    tell, address = tell_by(by), tell_by("ip", ipv6_prefix=ipv6_prefix)
    kind, strict = by.partition(":")[0], unidentified == "refuse"

    def identify(scope: Scope, exchange: Exchange) -> str:
        caller = tell(scope, exchange)
        if caller:
            return f"{kind} {caller}"
        return "" if strict else f"ip {address(scope, exchange)}"

    if by == "ip":
        return lambda scope, exchange: f"ip {address(scope, exchange)}"
    return identify


def too_many(wait: float) -> Refusal:
    return Refusal(429, "rate_limited", ((b"retry-after", b"%d" % max(1, ceil(wait))),), TOO_MANY)
