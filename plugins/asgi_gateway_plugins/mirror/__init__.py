"""A copy of the requests goes to another upstream, whose answers nobody waits for."""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated

from pydantic import Field

from asgi_gateway.asgi import ASGIApp, Header, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.config.model import Methods, Name
from asgi_gateway.stage import Stage
from asgi_gateway.units import Size, Span

from ..fields import WrittenHeader
from .comparing import Compare, Comparison
from .copying import Copier, Shadow

__all__ = ["Compare", "Mirror"]


class Mirror(Component, name="mirror", stage=Stage.SPLIT, rank=-10):
    """Sends a copy of requests to another upstream, and throws its answers away.

    Nobody waits for it: a copy that is slow, fails or is dropped changes nothing for the caller.
    """

    upstream: Name
    """Where copies go."""
    percent: Annotated[float, Field(ge=0, le=100)] = 100.0
    """The part of the requests that is copied, at random. It can be turned while the gateway runs."""
    methods: Annotated[Methods, Field(min_length=1)] = ("GET", "HEAD")
    """Requests that are copied. A copy of any other method does twice what it does."""
    max_body: Size = 64 * 1024
    """A request with a larger body is not copied."""
    max_copies: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Copies on their way at one time, in one worker; more are dropped and counted."""
    timeout: Span = 10.0
    """How long a copy may take. The upstream's own time-outs hold, too."""
    host_suffix: Annotated[str, Field(pattern="^[A-Za-z0-9.-]{0,63}$")] = "-shadow"
    """What the name in the Host field of a copy gets at its end, before the port. Empty: it stays."""
    header: WrittenHeader = "x-mirrored"
    """The field that tells the upstream that this is a copy; a caller's own is removed. Empty: none."""
    compare: Compare | None = None
    """Compare both answers, and report differences: `status`, `headers`, `body`, `ignore`, `max_body`,
    `reports`."""

    def owns(self) -> Iterable[str]:
        return (self.header,) if self.header else ()

    def leads_to(self) -> Iterable[tuple[str, str]]:
        yield self.upstream, f"a copy of {self.percent:g} % of {', '.join(self.methods)}"

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        build.upstream(self.upstream)
        shadow = build.keep(
            ("shadow", self.upstream), lambda: Shadow(build.owner, self.upstream), run=Shadow.run
        )
        compare = self.compare
        copier = Copier(
            shadow=shadow,
            upstream=self.upstream,
            end=build.end,
            spawn=build.spawn,
            monotonic=build.clock.monotonic,
            timeout=self.timeout,
            max_body=self.max_body,
            max_copies=self.max_copies,
            rewrite=self.rewriter(),
            comparison=Comparison(compare) if compare else None,
            max_answer=compare.max_body if compare else 0,
            reports=compare.reports if compare else 0,
        )
        methods, dial, dice = (
            frozenset(self.methods),
            build.dial("percent", self.percent, ge=0, le=100),
            build.dice,
        )

        def mirror(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            if scope["method"] in methods and dice.random() * 100 < dial.value:
                receive, send = copier.copy(scope, receive, send)
            return app(scope, receive, send)

        return mirror

    def rewriter(self) -> Callable[[Scope], Scope]:
        """What makes the fields of a copy."""
        suffix = self.host_suffix.encode()
        mark: tuple[Header, ...] = ((self.header.encode(), b"1"),) if self.header else ()

        def rewrite(scope: Scope) -> Scope:
            headers = [
                (name, suffixed(value, suffix)) if name == b"host" else (name, value)
                for name, value in scope["headers"]
            ]
            return {**scope, "headers": [*headers, *mark]}

        return rewrite


def suffixed(host: bytes, suffix: bytes) -> bytes:
    """A host with something at the end of its name. An address has no name."""
    name, colon, port = host.partition(b":")
    if host.startswith(b"[") or re.fullmatch(rb"[0-9.]*", name):
        return host
    return name + suffix + colon + port
