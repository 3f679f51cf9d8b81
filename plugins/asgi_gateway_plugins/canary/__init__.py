"""A part of the callers goes to another upstream: always the same part."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send, header
from asgi_gateway.component import Build, Component, Dial
from asgi_gateway.config.chain import find, make, offered, read_entry
from asgi_gateway.config.model import Model, Name
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import below, mistake
from asgi_gateway.stage import Stage
from asgi_gateway.strategy import Strategy
from asgi_gateway.units import Time

from ..caller import known_caller, one_of, tell_by
from ..fields import NoHeader, WrittenHeader, spellings
from .buckets import BUCKETS, Draw, Percent, bucket, by_cookie, share
from .ramp import Ramp, Ramping
from .rollback import STABLE, Guard, Rollback, Shared
from .rules import Rule

__all__ = ["Canary", "Ramp", "Rollback", "Rule", "Variant"]


class Variant(Model):
    """One of several versions."""

    name: Name
    """What it is called: for rules, testers and labels."""
    upstream: Name | None = None
    """Where it is served. Not given: the upstream of the route, which the label tells what to do."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """Its share among the variants; 0: only rules and testers get it."""


def read_strategy(value: Any, info: ValidationInfo) -> Any:
    """Accept `name`, `{name: options}` or a strategy. The type of a name comes from `info.context`."""
    if value is None or isinstance(value, Strategy):
        return value
    name, options = read_entry(value, "strategy: {name: {option: value}}")
    kind = find(offered(info).strategies, "strategy", name)
    try:
        return make(kind, options, info)
    except ValidationError as error:
        raise ValidationError.from_exception_data("Strategy", below(name, error), hide_input=True) from None


@dataclass(slots=True, eq=False)
class Side:
    """What a request may get."""

    name: str
    label: bytes
    upstream: str | None
    closed: Dial | None = None
    """Whether it was rolled back."""
    up: Callable[[], bool] | None = None


Choose = Callable[[Scope, Exchange], Side | None]


class Canary(Component, name="canary", stage=Stage.SPLIT, serves=frozenset({"http", "websocket"})):
    """Sends a steady part of the callers to another upstream.

    Each caller has a bucket from 0 to 9999; the lowest ones are the canary. So raising `percent` only
    moves callers to the canary, lowering it only moves them back.
    """

    upstream: Name | None = None
    """The upstream that is the canary. Its variant is called `canary`."""
    variants: Annotated[tuple[Variant, ...], Field(max_length=16)] = ()
    """Several instead: each with `name`, `upstream` and `weight`. `percent` is the part of all of them."""
    percent: Percent = 0.0
    """The part of the callers, with up to two decimals. It can be turned while the gateway runs."""
    by: Annotated[str, one_of("consumer", "ip", "header:<name>", "cookie:<name>", "random")] = "consumer"
    """What makes a caller: `consumer`, `ip`, `header:<name>`, `cookie:<name>`; `random`: each request anew.

    Who has none of it stays with the stable upstream; a missing cookie is issued.
    """
    rules: tuple[Rule, ...] = ()
    """Who gets which variant whatever `percent` says, by `headers`, `cookies`, `groups`, `consumers`: the
    first one that holds."""
    strategy: Annotated[
        SerializeAsAny[Strategy] | None,
        BeforeValidator(read_strategy),
        WithJsonSchema({"type": ["object", "string", "null"]}),
    ] = None
    """A way of your own to choose, from a plugin, asked before the rules."""
    force_header: NoHeader = ""
    """A field in which testers choose: the name of a variant, or `stable`. Everybody can send it."""
    label_header: WrittenHeader = "x-variant"
    """The field that tells the upstream which variant was chosen; a caller's own is removed, on all routes.
    Empty: none."""
    salt: str = ""
    """Experiments with the same salt choose the same callers. Empty: the name of the canary upstream, or of
    the variants."""
    cookie_age: Time = 30 * 86400.0
    """How long an issued cookie lives."""
    ramp: Ramp | None = None
    """Steps that raise `percent` from a time on: `start`, and `steps` with `percent` and `hold`."""
    rollback: Rollback | None = None
    """When a variant is taken back because it does worse than the stable side: `errors`, `slower`, `minimum`,
    `window`."""

    @field_validator("variants")
    @classmethod
    def differ(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        names = [variant.name for variant in variants]
        for name in names:
            if name == STABLE or names.count(name) > 1:
                raise mistake(f"{name!r} is taken", "each variant has a name, and `stable` is everybody else")
        if variants and not any(variant.weight for variant in variants):
            raise mistake("no variant has a weight above 0")
        return variants

    @model_validator(mode="after")
    def one_kind(self) -> "Canary":
        if (self.upstream is None) is (not self.variants):
            raise mistake("a canary has either an upstream or variants")
        known = [STABLE, *(variant.name for variant in self.sides())]
        for rule in self.rules:
            if rule.variant not in (None, *known):
                raise mistake(f"rules: no variant is called {rule.variant!r}", f"one of {', '.join(known)}")
        return self

    @field_serializer("strategy", mode="wrap", when_used="unless-none")
    def write_strategy(self, value: Strategy, handler: SerializerFunctionWrapHandler) -> Any:
        """The strategy as a file has it."""
        return {value.name: handler(value)}

    def sides(self) -> tuple[Variant, ...]:
        return self.variants or (Variant(name="canary", upstream=self.upstream),)

    def owns(self) -> Iterable[str]:
        """The label: the upstream could not tell the word of a caller, on a route that is not split, from it.
        Where callers are asked for it, they may send it.
        """
        label = spellings(self.label_header) if self.label_header else frozenset()
        kind, _, told_apart = self.by.partition(":")
        asked = [self.force_header, *(name for rule in self.rules for name, _ in rule.headers)]
        if kind == "header":
            asked.append(told_apart)
        if any(name.lower().encode() in label for name in asked):
            return ()
        return (self.label_header,) if self.label_header else ()

    def leads_to(self) -> Iterable[tuple[str, str]]:
        part = f"{self.percent:g} % by {self.by}"
        if self.ramp is not None:
            part += f", {self.ramp.steps[-1].percent:g} % at the end of the ramp"
        weights = sum(variant.weight for variant in self.sides())
        for variant in self.sides():
            if variant.upstream is not None:
                of = f"weight {variant.weight} of {weights} in " if self.variants else ""
                yield variant.upstream, f"{variant.name}, {of}{part}"

    def needs_caller(self) -> str:
        if any(rule.groups or rule.consumers for rule in self.rules):
            return "rules"
        return known_caller(self.by)

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        dial = build.dial("percent", self.percent, ge=0, le=100)
        stable = Side(STABLE, b"stable", None)
        sides = {variant.name: side(variant, build, self.rollback) for variant in self.sides()}
        force, choose = self.forced({STABLE: stable, **sides}), self.chooser(build, stable, sides, dial)
        ramping = self.ramping(build, dial)
        guard = self.guard(build, sides, ramping)
        label = self.label_header.encode()
        gone = spellings(self.label_header) if label else frozenset()
        time = build.clock.time

        def canary(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            if ramping is not None and time() >= ramping.next:
                ramping.turn(time())
            chosen = force(scope, exchange)
            if chosen is None:
                chosen = choose(scope, exchange) or stable
                if (chosen.closed is not None and chosen.closed.value) or not (
                    chosen.up is None or chosen.up()
                ):
                    chosen = stable
                if guard is not None:
                    guard.watch(exchange, chosen.name)
            if chosen.upstream is not None:
                exchange.upstream = chosen.upstream
            exchange.tag("variant", chosen.name)
            if label:
                headers = [field for field in scope["headers"] if field[0] not in gone]
                headers.append((label, chosen.label))
                scope = {**scope, "headers": headers}
            return app(scope, receive, send)

        return canary

    def forced(self, sides: Mapping[str, Side]) -> Choose:
        """What a tester wants. He gets it also where it was rolled back, or is down."""
        if not self.force_header:
            return undecided
        name, known = self.force_header.encode(), {side.label: side for side in sides.values()}

        def force(scope: Scope, exchange: Exchange) -> Side | None:
            wish = header(scope["headers"], name)
            return None if wish is None else known.get(wish)

        return force

    def chooser(self, build: Build, stable: Side, sides: Mapping[str, Side], dial: Dial) -> Choose:
        """The function that chooses: the strategy, else the first rule that holds, else the percentage."""
        bucketed = self.bucketed(build, tuple(sides.values()), dial)
        if not self.rules and self.strategy is None:
            return bucketed
        first, known = next(iter(sides.values())), {STABLE: stable, **sides}
        say = self.strategy.open(build) if self.strategy is not None else None
        rules = [(rule.test(), known[rule.variant] if rule.variant else first) for rule in self.rules]

        def choose(scope: Scope, exchange: Exchange) -> Side | None:
            if say is not None and (said := known.get(say(scope, exchange))) is not None:
                return said
            for test, side in rules:
                if test(scope, exchange):
                    return side
            return bucketed(scope, exchange)

        return choose

    def bucketed(self, build: Build, sides: tuple[Side, ...], dial: Dial) -> Choose:
        """The function that chooses by the percentage."""
        weights = [variant.weight for variant in self.sides()]
        if self.by == "random":
            dice = build.dice

            def roll(scope: Scope, exchange: Exchange) -> Side | None:
                return dice.choices(sides, weights)[0] if dice.randrange(BUCKETS) < share(dial) else None

            return roll
        salt = self.salt or self.upstream or ",".join(side.name for side in sides)
        key = blake2b(salt.encode()).digest()
        kind, _, name = self.by.partition(":")
        tell = by_cookie(name, self.cookie_age) if kind == "cookie" else tell_by(self.by)
        draw = Draw(key, [(side.name, weight) for side, weight in zip(sides, weights, strict=True)])
        only = sides[0] if len(sides) == 1 else None

        def choose(scope: Scope, exchange: Exchange) -> Side | None:
            caller = tell(scope, exchange).encode()
            if not caller or bucket(key, caller) >= share(dial):
                return None
            return only or sides[draw(caller)]

        return choose

    def ramping(self, build: Build, dial: Dial) -> Ramping | None:
        ramp, percent = self.ramp, self.percent
        if ramp is None:
            return None
        return build.keep(("ramp", self), lambda: Ramping(ramp, percent, dial))

    def guard(self, build: Build, sides: Mapping[str, Side], ramping: Ramping | None) -> Guard | None:
        options = self.rollback
        if options is None:
            return None
        dials = {name: side.closed for name, side in sides.items() if side.closed is not None}
        stop = ramping.stop if ramping is not None else nothing
        monotonic = build.clock.monotonic
        guard = build.keep(("guard", self), lambda: Guard(build.owner, options, dials, monotonic, stop))
        build.on_live(guard.begin)
        if build.shares:
            # Other options are another experiment, and nothing of it was rolled back.
            key = f"{build.place}/{blake2b(repr(self).encode(), digest_size=8).hexdigest()}"
            store = build.store
            build.keep(("shared", self), lambda: Shared(store, key, dials, stop), run=Shared.run)
        return guard


def side(variant: Variant, build: Build, rollback: Rollback | None) -> Side:
    made = Side(variant.name, variant.name.encode(), variant.upstream)
    if variant.upstream is not None:
        build.upstream(variant.upstream)
        made.up = build.up(variant.upstream)
    if rollback is not None:
        made.closed = build.dial(f"rolled_back/{variant.name}", False)
    return made


def undecided(scope: Scope, exchange: Exchange) -> None:
    return None


def nothing() -> None:
    """There is no ramp to stop."""
