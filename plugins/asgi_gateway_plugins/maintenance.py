"""A switch that closes a route for a while."""

from collections.abc import Awaitable
from functools import partial
from typing import Annotated

from pydantic import Field

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.units import Time

from .networks import Network, Networks

REPLACED = frozenset({b"content-type", b"content-length"})


class Maintenance(
    Component,
    name="maintenance",
    stage=Stage.GUARD,
    rank=-10,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Answers 503 with Retry-After while it is switched on. It is turned while the gateway runs."""

    active: bool = False
    """Whether it is on from the start. The dial `on` turns it."""
    retry_after: Time = 300.0
    """When callers are told to come back. 0: they are not told."""
    allow: tuple[Network, ...] = ()
    """Networks and addresses that are served all the same. `unix`: peers without an address."""
    body: Annotated[str, Field(max_length=1024 * 1024)] = ""
    """What is answered, as it is: a page, or JSON. Empty: a problem, as for every refusal."""
    content_type: Annotated[str, Field(pattern=r"^[\x21-\x7e][\x20-\x7e]*$")] = "text/html; charset=utf-8"
    """What the body is."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        dial, networks, refuse = build.dial("on", self.active), Networks(self.allow), build.refuse(app)
        wait = ((b"retry-after", b"%d" % self.retry_after),) if self.retry_after >= 1 else ()
        closed = Refusal(503, "maintenance", wait, "This service is being worked on.")
        content_type, body = self.content_type.encode(), self.body.encode()
        shows = bool(body) and not refuse.reporting

        def maintenance(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            if not dial.value or exchange.client in networks:
                return app(scope, receive, send)
            if shows:
                send = partial(show, content_type, body, send)
            return refuse(scope, receive, send, closed)

        return maintenance


def show(content_type: bytes, body: bytes, send: Send, message: Message) -> Awaitable[None]:
    """Send a page in place of the problem."""
    if message["type"].endswith(".start"):
        headers = [field for field in message["headers"] if field[0] not in REPLACED]
        headers += [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
        message = {**message, "headers": headers}
    elif message["type"].endswith(".body"):
        message = {**message, "body": body}
    return send(message)
