"""So many requests in a day or a month of the calendar, for each caller."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from math import ceil
from typing import Annotated, Literal, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.store import Arg, MemoryStore, Script, StoreError
from asgi_gateway.strictness import Strict

from .caller import known_caller, path_variable
from .rate_limit.fields import Policies, Tell, teller
from .rate_limit.options import STORE_AWAY, UNIDENTIFIED, By, OnError, Prefix, identifying

Unit = Literal["day", "week", "month"]

SPENT = "This caller has used up what it may ask for in this time."
SLACK = 3600
"""Seconds that a count is kept past its period: clocks of several gateways differ."""

COUNT = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
if used + ARGV[2] > tonumber(ARGV[1]) then return {0, used} end
used = redis.call('INCRBY', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {1, used}
"""


async def count(memory: MemoryStore, keys: Sequence[str], args: Sequence[Arg]) -> list[int]:
    limit, cost, milliseconds = (int(arg) for arg in args)
    used: int = memory.read(keys[0]) or 0
    if used + cost > limit:
        return [0, used]
    memory.write(keys[0], used + cost, milliseconds / 1000)
    return [1, used + cost]


COUNTING = Script("quota", COUNT, count)


class Period(NamedTuple):
    """One day, week or month; times are those of the wall clock."""

    name: str
    begin: float
    end: float


def period_at(time: float, unit: Unit, zone: tzinfo) -> Period:
    """The period of the calendar in which a moment lies."""
    day = datetime.fromtimestamp(time, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "day":
        begin, then = day, day + timedelta(days=1)
    elif unit == "week":
        begin = day - timedelta(days=day.weekday())
        then = begin + timedelta(days=7)
    else:
        begin = day.replace(day=1)
        then = (begin + timedelta(days=31)).replace(day=1)
    return Period(f"{begin:%Y-%m-%d}", begin.timestamp(), then.timestamp())


def zone_of(name: str) -> tzinfo:
    # A machine may have no table of zones.
    return UTC if name == "UTC" else ZoneInfo(name)


def read_zone(name: str) -> str:
    try:
        zone_of(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone, as in UTC or Europe/Berlin") from None
    return name


Decide = Callable[[Exchange, str, Period, int, int], Awaitable[Sequence[int] | None]]


class QuotaTier(Strict):
    """Another quota for some groups of consumers."""

    groups: Annotated[tuple[str, ...], Field(min_length=1)]
    """Consumers in one of these groups have this quota."""
    limit: Annotated[int, Field(ge=1)]
    """Requests in a period."""


class Quota(
    Component, name="quota", stage=Stage.LIMIT, rank=20, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Admits so many requests of a caller in a day, week or month of the calendar; then 429 until it is over.

    With a shared store, what was used survives restarts, and all workers count together.
    """

    limit: Annotated[int, Field(ge=1)]
    """Requests in a period."""
    per: Unit = "month"
    """The period: `day`, `week` (from Monday) or `month`."""
    zone: Annotated[str, AfterValidator(read_zone)] = "UTC"
    """Where it is midnight when a period begins: `Europe/Berlin`."""
    by: By = "consumer"
    """Whose requests are counted together, as in `rate_limit`."""
    unidentified: Literal["ip", "refuse"] = "ip"
    """Callers without what `by` asks for are counted by their address, or refused with 403."""
    cost: Annotated[int, Field(ge=1)] = 1
    """How many requests one of this route counts for."""
    tiers: tuple[QuotaTier, ...] = ()
    """Other quotas for some groups: `[{groups: [gold], limit: 100000}]`. The first that fits holds."""
    headers: Literal["draft", "legacy", "both", "none"] = "draft"
    """Fields that tell callers where they stand, as in `rate_limit`."""
    group: str = ""
    """Quotas of one group count together, on all routes. Empty: each for itself."""
    ipv6_prefix: Prefix = 64
    """IPv6 addresses that agree in so many bits are one caller."""
    on_error: OnError = "local"
    """While a shared store is away: `local` counts in this process, `open` admits, `closed` answers 503."""

    @model_validator(mode="after")
    def can_be_afforded(self) -> "Quota":
        if self.cost > min([self.limit, *(tier.limit for tier in self.tiers)]):
            raise ValueError("cost is more than the whole quota")
        return self

    def variables(self) -> Iterable[str]:
        return path_variable(self.by)

    def needs_caller(self) -> str:
        return known_caller(self.by) or ("tiers" if self.tiers else "")

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse = build.refuse(app)
        identify = identifying(self.by, self.unidentified, self.ipv6_prefix)
        decide, quota_of, period_now = self.decider(build), self.chooser(), self.calendar(build)
        wall = build.clock.time

        async def quota(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            caller = identify(scope, exchange)
            if not caller:
                await refuse(scope, receive, send, UNIDENTIFIED)
                return
            limit, tell = quota_of(exchange)
            period = period_now()
            left = max(1, ceil(period.end - wall()))
            try:
                answer = await decide(exchange, caller, period, limit, left)
            except StoreError:
                await refuse(scope, receive, send, STORE_AWAY)
                return
            if answer is not None:
                admitted, used = answer
                if tell is not None:
                    exchange.on_start(partial(tell, [(max(0, limit - used), left)]))
                if not admitted:
                    again = ((b"retry-after", b"%d" % left),)
                    await refuse(scope, receive, send, Refusal(429, "quota_exceeded", again, SPENT))
                    return
            await app(scope, receive, send)

        return quota

    def decider(self, build: Build) -> Decide:
        """The function that counts; what it says is None if nobody counted."""
        store, cost, on_error = build.store, self.cost, self.on_error
        common = bool(self.group) or self.by == "cluster"
        base = f"{f'{self.name}/group {self.group}' if common else build.place}/{self.by}"
        here = build.keep(("local", base), lambda: MemoryStore(build.clock.monotonic), shared=True)

        async def decide(
            exchange: Exchange, caller: str, period: Period, limit: int, left: int
        ) -> Sequence[int] | None:
            # Without the limit: who raises it in the middle of a month forgets nothing.
            keys, args = [f"{base}/{period.name}{{{caller}}}"], [limit, cost, (left + SLACK) * 1000]
            try:
                return await store.run(COUNTING, keys, args)
            except StoreError:
                exchange.tag("store", "away")
                if on_error == "closed":
                    raise
                return await here.run(COUNTING, keys, args) if on_error == "local" else None

        return decide

    def calendar(self, build: Build) -> Callable[[], Period]:
        """The function that says which period it is."""
        zone, unit, wall = zone_of(self.zone), self.per, build.clock.time
        current = period_at(wall(), unit, zone)

        def period_now() -> Period:
            nonlocal current
            if not current.begin <= (now := wall()) < current.end:
                current = period_at(now, unit, zone)
            return current

        return period_now

    def chooser(self) -> Callable[[Exchange], tuple[int, Tell | None]]:
        """The function that says which quota a caller has."""
        days = {"day": 1, "week": 7, "month": 30}[self.per]

        def told(limit: int) -> tuple[int, Tell | None]:
            return limit, teller(Policies([(self.per, limit, days * 86400)]), self.headers)

        usual = told(self.limit)
        tiers = [(frozenset(tier.groups), told(tier.limit)) for tier in self.tiers]

        def quota_of(exchange: Exchange) -> tuple[int, Tell | None]:
            if exchange.principal is not None:
                for groups, quota in tiers:
                    if not groups.isdisjoint(exchange.principal.groups):
                        return quota
            return usual

        return quota_of
