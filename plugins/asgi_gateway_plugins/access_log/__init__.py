"""One line per request, however it ended; writing it never holds a request up."""

from collections.abc import Awaitable
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.units import Size

from .record import Line, Name, json_lines, text_lines
from .writer import Writer, unwritable


class AccessLog(Component, name="access_log", stage=Stage.OBSERVE, serves=frozenset({"http", "websocket"})):
    """Writes one line per request at its true end, with how it ended and why."""

    file: Annotated[str, Field(min_length=1)] = "stdout"
    """`stdout`, `stderr` or a path; a file is appended to, and opened again after it was moved away."""
    format: Literal["json", "text"] = "json"
    """One JSON object per line, or a line like the combined log of web servers."""
    fields: tuple[Name, ...] = ()
    """The members of a JSON line, in this order; none given: all of them."""
    query: bool = False
    """Whether the path is logged with its query, in which there may be secrets."""
    buffer: Size = 1024 * 1024
    """Size of the lines that wait to be written. More are dropped, counted, and the count is logged."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        clock = build.clock
        if trouble := unwritable(self.file):
            raise ConfigError(Problem(f"{self.file!r} cannot be written: {trouble}", "file"))
        writer = build.keep(
            ("access_log", self.file, self.buffer),
            partial(Writer, self.file, self.buffer, clock.monotonic),
            run=Writer.run,
            close=Writer.close,
            shared=True,
        )
        line: Line
        if self.format == "json":
            line = json_lines(clock.time, self.fields, query=self.query)
        else:
            line = text_lines(clock.time, query=self.query)

        def log(exchange: Exchange) -> None:
            writer.append(line(exchange))

        def access_log(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            exchange.on_end(log)
            return app(scope, receive, send)

        return access_log
