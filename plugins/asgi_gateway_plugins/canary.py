"""A part of the callers goes to another upstream: always the same part."""

from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import blake2b
from os import urandom
from re import compile as pattern
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send, header
from asgi_gateway.component import Build, Component, Dial
from asgi_gateway.config import Name
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.units import Time

from .caller import cookie, known_caller, one_of, tell_by
from .fields import NoHeader, spellings

BUCKETS = 10_000
COOKIE = pattern(rb"[A-Za-z0-9._-]{1,128}")

Variant = Literal["canary", "stable"]
Choose = Callable[[Scope, Exchange], bool]


def read_percent(percent: float) -> float:
    if round(percent, 2) != percent:
        raise ValueError(f"{percent} has more than two decimals")
    return percent


class Canary(Component, name="canary", stage=Stage.SPLIT, serves=frozenset({"http", "websocket"})):
    """Sends a steady part of the callers to another upstream.

    Each caller has a bucket from 0 to 9999; the lowest ones are the canary. So raising `percent` only
    moves callers to the canary, lowering it only moves them back.
    """

    upstream: Name
    """The upstream that is the canary."""
    percent: Annotated[float, Field(ge=0, le=100), AfterValidator(read_percent)] = 0.0
    """The part of the callers, with up to two decimals. It can be turned while the gateway runs."""
    by: Annotated[str, one_of("consumer", "ip", "header:<name>", "cookie:<name>", "random")] = "consumer"
    """What makes a caller: `consumer`, `ip`, `header:<name>`, `cookie:<name>`; `random`: each request anew.

    Who has none of it stays with the stable upstream; a missing cookie is issued.
    """
    force_header: NoHeader = ""
    """A field in which testers choose: `canary` or `stable`. Everybody can send it."""
    label_header: NoHeader = "x-variant"
    """The field that tells the upstream which of both was chosen; a caller's own is removed. Empty: none."""
    salt: str = ""
    """Experiments with the same salt choose the same callers. Empty: the name of the canary upstream."""
    cookie_age: Time = 30 * 86400.0
    """How long an issued cookie lives."""

    def needs_caller(self) -> str:
        return known_caller(self.by)

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        build.upstream(self.upstream)
        choose = self.forced(self.chooser(build))
        upstream, label = self.upstream, self.label_header.encode()
        gone = spellings(self.label_header) if label else frozenset()

        def canary(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            variant: Variant = "stable"
            if choose(scope, exchange):
                variant = "canary"
                exchange.upstream = upstream
            exchange.tag("variant", variant)
            if label:
                headers = [field for field in scope["headers"] if field[0] not in gone]
                headers.append((label, variant.encode()))
                scope = {**scope, "headers": headers}
            return app(scope, receive, send)

        return canary

    def chooser(self, build: Build) -> Choose:
        """The function that says who is a canary."""
        dial = build.dial("percent", self.percent, ge=0, le=100)
        if self.by == "random":
            dice = build.dice
            return lambda scope, exchange: dice.randrange(BUCKETS) < share(dial)
        salt = blake2b((self.salt or self.upstream).encode()).digest()
        if self.by.startswith("cookie:"):
            return by_cookie(self.by.removeprefix("cookie:"), self.cookie_age, salt, dial)
        tell = tell_by(self.by)

        def choose(scope: Scope, exchange: Exchange) -> bool:
            caller = tell(scope, exchange)
            return bool(caller) and bucket(salt, caller.encode()) < share(dial)

        return choose

    def forced(self, choose: Choose) -> Choose:
        """The same, but a tester may choose for himself."""
        if not self.force_header:
            return choose
        name = self.force_header.encode()

        def force(scope: Scope, exchange: Exchange) -> bool:
            wish = header(scope["headers"], name)
            return wish == b"canary" if wish in (b"canary", b"stable") else choose(scope, exchange)

        return force


def bucket(salt: bytes, caller: bytes) -> int:
    """0 to 9999, the same in every process and after every restart."""
    return int.from_bytes(blake2b(caller, key=salt, digest_size=8).digest()) % BUCKETS


def share(dial: Dial) -> int:
    """How many of the buckets are the canary's; rounded, since 0.07 * 100 is more than 7."""
    percent: float = dial.value
    return round(percent * (BUCKETS // 100))


def by_cookie(name: str, age: float, salt: bytes, dial: Dial) -> Choose:
    """Tell callers apart by a cookie, and issue it to those who have none."""
    key = name.encode()
    attributes = b"; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax" % age

    def choose(scope: Scope, exchange: Exchange) -> bool:
        caller = cookie(scope, key)
        if not COOKIE.fullmatch(caller):
            if scope["type"] != "http":
                return False
            caller = urandom(16).hex().encode()
            secure = b"; Secure" if exchange.scheme == "https" else b""
            exchange.on_start(partial(issue, key + b"=" + caller + attributes + secure))
        return bucket(salt, caller) < share(dial)

    return choose


def issue(line: bytes, exchange: Exchange, message: Message) -> None:
    message["headers"].append((b"set-cookie", line))
