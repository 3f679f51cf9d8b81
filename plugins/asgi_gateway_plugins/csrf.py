"""Requests that a page of another site made a browser send."""

from collections.abc import Awaitable

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage

from .fields import values
from .origins import OriginName, is_own, origin_of

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

CROSS_SITE = Refusal(403, "cross_site", (), "A page of another site made the browser send this request.")
UNKNOWN = Refusal(403, "no_origin", (), "This request does not say from which page it comes.")


class Csrf(
    Component, name="csrf", stage=Stage.GUARD, rank=10, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Refuses what pages of other sites make a browser send in its user's name, with 403.

    It believes Sec-Fetch-Site and Origin, which no page can forge; tokens and cookies are not needed.
    """

    trusted_origins: tuple[OriginName, ...] = ()
    """Other origins whose pages may send requests: `https://admin.example.com`."""
    allow_missing: bool = True
    """Whether requests with neither field may pass: those of programs, and of browsers before 2020."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        trusted = frozenset(origin.encode() for origin in self.trusted_origins)
        allows_missing, refuse = self.allow_missing, build.refuse(app)

        def csrf(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            # A handshake is a GET that opens everything: it counts as unsafe.
            if scope.get("method") in SAFE and scope["type"] == "http":
                return app(scope, receive, send)
            site, origin = values(scope, b"sec-fetch-site"), origin_of(scope)
            if site in (b"same-origin", b"none") or origin in trusted:
                return app(scope, receive, send)
            if not site:
                exchange: Exchange = scope[EXCHANGE]
                if is_own(origin, exchange.authority) if origin else allows_missing:
                    return app(scope, receive, send)
            return refuse(scope, receive, send, CROSS_SITE if site or origin else UNKNOWN)

        return csrf
