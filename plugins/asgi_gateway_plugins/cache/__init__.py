"""Answers that are kept for the next caller (RFC 9111)."""

from typing import Annotated

from pydantic import Field

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.units import Size, Span, Time

from ..fields import NoHeader
from .desk import Desk
from .policy import ASKING, NOTHING, Rules
from .second import Second
from .shelf import Entry, Shelf

MiB = 1024 * 1024


class Cache(Component, name="cache", stage=Stage.CACHE):
    """Keeps answers, and gives them to the next callers for as long as the origin allows (RFC 9111).

    A shared cache: callers who were identified each have their own answers, unless `shared`.
    """

    ttl: Time = 0.0
    """How long answers are fresh of which the origin says nothing. 0: they are not kept."""
    heuristic: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The part of the time since Last-Modified that such answers are fresh, 0 to 1, where `ttl` is 0."""
    shared: bool = False
    """Whether one answer is for all callers. Otherwise each who was identified has answers of his own."""
    errors: bool = False
    """Whether answers with a status of 500 and above are kept, if they say for how long."""
    stale_while_revalidate: Time = 0.0
    """How long a stale answer may be used while it is fetched anew, if the origin does not say."""
    stale_if_error: Time = 0.0
    """How long a stale answer may be used when fetching it fails, if the origin does not say."""
    max_size: Annotated[Size, Field(ge=MiB)] = 64 * MiB
    """Memory of one process for all answers, of all routes that say the same size; at least 1MiB."""
    max_entry: Annotated[Size, Field(ge=1024)] = MiB
    """The largest body that is kept, at least 1KiB; larger ones stream past."""
    wait: Span = 5.0
    """How long callers wait for one who fetches the same; then they ask the origin, too."""
    obey_callers: bool = True
    """Whether the Cache-Control of requests counts: no-cache, max-age, min-fresh, max-stale and so on."""
    tags: NoHeader = "cache-tag"
    """The field in which origins name the tags of an answer, for purges, not for callers. Empty: none."""
    status: Annotated[str, Field(pattern=r"^([A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]*)?$")] = "asgi-gateway"
    """The name of this cache in Cache-Status (RFC 9211). Empty: the field is not sent."""
    use_store: bool = False
    """Whether answers are also kept in the store of the gateway, for all its processes."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        desk = self.desk(app, build)
        build.operation("purge", desk.purge)
        find, monotonic, key_of = desk.shelf.get, build.clock.monotonic, desk.key
        asked_by, serve, change = desk.asked, desk.serve, desk.change
        hit = self.status.replace("%", "%%").encode() + b"; hit; ttl=%d" if self.status else b""

        async def cache(scope: Scope, receive: Receive, send: Send) -> None:
            method = scope["method"]
            if method != "GET" and method != "HEAD":
                await change(scope, receive, send)
                return
            exchange: Exchange = scope[EXCHANGE]
            key = key_of(scope, exchange)
            asked = NOTHING
            for field in scope["headers"]:
                if field[0] in ASKING:
                    asked = asked_by(scope["headers"])
                    break
            else:
                # The common case, without all the questions that the others have.
                kept = find(key)
                now = monotonic()
                if type(kept) is Entry and kept.fresh_until > now and not exchange.has_body:
                    exchange.tag("cache", "hit")
                    headers = [*kept.headers, (b"age", b"%d" % (now - kept.made))]
                    if hit:
                        headers.append((b"cache-status", hit % (kept.fresh_until - now)))
                    await send({"type": "http.response.start", "status": kept.status, "headers": headers})
                    body = kept.body if method == "GET" else b""
                    await send({"type": "http.response.body", "body": body})
                    return
            await serve(scope, receive, send, key, asked)

        return cache

    def desk(self, app: ASGIApp, build: Build) -> Desk:
        """The cache at its place. What is kept survives a reload, and is shared by all routes."""
        shelf = build.keep(
            ("shelf", self.max_size), lambda: Shelf(self.max_size), close=Shelf.close, shared=True
        )
        second = None
        if self.use_store:
            store, clock = build.store, build.clock
            if not store.shared:
                what, hint = "use_store needs a store that is shared", "as in store: redis://127.0.0.1:6379/0"
                raise ConfigError(Problem(what, f"{build.owner}: cache", hint))
            second = build.keep(
                ("second", self.max_size, store),
                lambda: Second(store, shelf, clock),
                run=Second.watch,
                shared=True,
            )
        return Desk(
            app,
            place=build.place,
            shelf=shelf,
            rules=Rules(
                self.ttl,
                self.heuristic,
                self.stale_while_revalidate,
                self.stale_if_error,
                self.errors,
                self.shared,
                self.obey_callers,
            ),
            clock=build.clock,
            spawn=build.spawn,
            label=self.status,
            max_entry=self.max_entry,
            wait=self.wait,
            tags=self.tags.encode(),
            second=second,
        )
