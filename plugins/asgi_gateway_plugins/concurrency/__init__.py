"""So many requests at one time, for each caller."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.store import StoreError
from asgi_gateway.units import Span

from ..caller import known_caller, path_variable
from ..rate_limit.options import AGAIN, STORE_AWAY, UNIDENTIFIED, By, OnError, Prefix, identifying
from .slots import LocalSlots, SharedSlots, Slots

AT_ONCE = "This caller has too many requests in flight."


class Concurrency(
    Component,
    name="concurrency",
    stage=Stage.LIMIT,
    rank=10,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Admits so many requests of a caller at one time, and refuses the rest with 429.

    A slot is held until the last byte of the answer, or the end of the WebSocket.
    """

    limit: Annotated[int, Field(ge=1)]
    """Requests in flight at one time."""
    by: By = "ip"
    """Whose requests are counted together, as in `rate_limit`."""
    unidentified: Literal["ip", "refuse"] = "ip"
    """Callers without what `by` asks for are counted by their address, or refused with 403."""
    group: str = ""
    """Limits of one group count together, on all routes. Empty: each for itself."""
    ipv6_prefix: Prefix = 64
    """IPv6 addresses that agree in so many bits are one caller."""
    lease: Span = 30.0
    """In a shared store: how long the slots of a process that was killed stay taken."""
    on_error: OnError = "local"
    """While a shared store is away: `local` counts in this process, `open` admits, `closed` answers 503."""

    def variables(self) -> Iterable[str]:
        return path_variable(self.by)

    def needs_caller(self) -> str:
        return known_caller(self.by)

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, slots, spawn = build.refuse(app), self.slots(build), build.spawn
        identify = identifying(self.by, self.unidentified, self.ipv6_prefix)

        async def concurrency(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            caller = identify(scope, exchange)
            if not caller:
                await refuse(scope, receive, send, UNIDENTIFIED)
                return
            try:
                give = await slots.take(caller, spawn)
            except StoreError:
                exchange.tag("store", "away")
                await refuse(scope, receive, send, STORE_AWAY)
                return
            if give is None:
                await refuse(scope, receive, send, Refusal(429, "too_many_at_once", AGAIN, AT_ONCE))
                return
            try:
                await app(scope, receive, send)
            finally:
                give()

        return concurrency

    def slots(self, build: Build) -> Slots:
        """Who has which slot; it survives a reload that does not change the rule."""
        common = bool(self.group) or self.by == "cluster"
        rule = (self.group, self.limit, self.by, self.ipv6_prefix)
        local = build.keep(("local", *rule), lambda: LocalSlots(self.limit), shared=common)
        if not (store := build.store).shared:
            return local
        place = f"{self.name}/group {self.group}" if common else build.place
        base = f"{place}/{self.by}/{self.limit}"
        return build.keep(
            ("shared", *rule, self.lease, store, self.on_error),
            lambda: SharedSlots(store, self.limit, self.lease, base, local, self.on_error),
            run=SharedSlots.renew,
            shared=common,
        )
