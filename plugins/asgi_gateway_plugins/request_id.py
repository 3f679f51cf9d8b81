"""Every request has an id: in the log, in problems, upstream, and in the answer."""

import re
from collections.abc import Awaitable

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage

from .fields import WrittenName, spellings

ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestId(
    Component, name="request_id", stage=Stage.OBSERVE, rank=-10, serves=frozenset({"http", "websocket"})
):
    """Gives every request an id, sends it upstream, and tells it to the caller."""

    header: WrittenName = "x-request-id"
    """The field that carries the id. What a caller sends in it counts only if its peer is a trusted proxy."""
    echo: bool = True
    """Whether the answer carries the id too."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        name = self.header.encode()
        copies = spellings(self.header)
        echoes = self.echo

        def echo(exchange: Exchange, message: Message) -> None:
            headers = message["headers"]
            if name in [field for field, _ in headers]:
                headers = message["headers"] = [field for field in headers if field[0] != name]
            headers.append((name, exchange.id.encode()))

        def request_id(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            if exchange.trusted:
                accept(exchange, [text for field, text in scope["headers"] if field == name])
            headers = [field for field in scope["headers"] if field[0] not in copies]
            headers.append((name, exchange.id.encode()))
            if echoes:
                exchange.on_start(echo)
            return app({**scope, "headers": headers}, receive, send)

        return request_id


def accept(exchange: Exchange, given: list[bytes]) -> None:
    """Take over an id that came with the request, if it is one and can stand in a log."""
    if len(given) == 1 and ID.fullmatch(given[0]):
        exchange.id = given[0].decode()
