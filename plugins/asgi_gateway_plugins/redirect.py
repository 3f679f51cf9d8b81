"""Sends callers to another URL (RFC 9110 15.4)."""

import re
from collections.abc import Awaitable, Callable, Iterable
from string import Formatter
from typing import Annotated, ClassVar, Literal, cast
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send, answer
from asgi_gateway.component import Build, Component
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.paths import decode
from asgi_gateway.stage import Stage

from .middleware import OfInstance
from .template import look_up, path_variables, variables

START = re.compile(r"(https?://[^/?#]+?)(?=/|\{path\}|[?#]|$)|/|\{path\}", re.IGNORECASE)
SAFE = re.compile(r"[!-~]*")
LOOPS = ("{path}", "https://{host}{path}", "http://{host}{path}")

Locate = Callable[[Scope, Exchange], bytes]


def read_target(text: str) -> str:
    if not text:
        return text
    if not SAFE.fullmatch(text) or not (found := START.match(text)):
        raise mistake(f"{text!r} is not a URL", "as in /v2/{id} or https://example.com/{*}", text)
    names = variables(text)
    if {*variables(found[1] or "")} - {"host"}:
        raise mistake(f"{text!r} lets callers choose the host", "only {host} stands there", text)
    if text in LOOPS:
        raise mistake(f"{text!r} is where the request came from", "say `https: true`, or another URL", text)
    if "consumer" in names:
        raise mistake(f"{text!r} tells who is calling", "that is nobody's business but the upstream's", text)
    return text


class Redirect(Component, name="redirect", rank=-20, serves=frozenset({"http", "websocket"})):
    """Answers with a redirect: to another URL, or to the same one over HTTPS."""

    stage: ClassVar[Stage] = cast(
        "Stage", OfInstance(Stage.TRANSFORM, lambda self: Stage.GUARD if self.https else Stage.TRANSFORM)
    )

    to: Annotated[str, AfterValidator(read_target)] = ""
    """A path or a URL. It may hold variables of the path, `{path}`, `{host}`, `{client}`, `{request_id}`."""
    https: bool = False
    """Requests over plain HTTP go to the same URL over HTTPS, all others pass. It stands at GUARD then."""
    port: Annotated[int, Field(ge=1, le=65535)] = 443
    """The port of `https`."""
    status: Literal[301, 302, 303, 307, 308] = 307
    """307 and 308 keep the method and the body, 301 and 308 are for good: browsers remember them."""
    keep_query: bool = True
    """Whether the query of the request goes along with `to`."""

    @model_validator(mode="after")
    def goes_somewhere(self) -> "Redirect":
        if bool(self.to) == self.https:
            raise mistake("goes to one place", "say either `to` or `https: true`")
        return self

    def variables(self) -> Iterable[str]:
        return [name for name in path_variables(self.to) if name != "path"]

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        locate = secure(self.port) if self.https else locator(self.to, keep_query=self.keep_query)
        status, only_plain = self.status, self.https

        def redirect(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            if only_plain and exchange.scheme == "https":
                return app(scope, receive, send)
            return answer(scope, send, status, b"", ((b"location", locate(scope, exchange)),))

        return redirect


def path_of(scope: Scope) -> str:
    """The path as it came, the place where the gateway is mounted included."""
    raw: bytes = scope["raw_path"]
    return raw.partition(b"?")[0].decode("ascii")


def secure(port: int) -> Locate:
    """The URL of a request over HTTPS."""
    suffix = "" if port == 443 else f":{port}"

    def locate(scope: Scope, exchange: Exchange) -> bytes:
        server = scope.get("server")
        # HTTP/1.0 may leave the Host out.
        host = exchange.host or (server[0] if server and server[1] else "localhost")
        scheme = "https" if scope["type"] == "http" else "wss"
        query: bytes = scope["query_string"]
        url = f"{scheme}://{host}{suffix}{path_of(scope)}".encode("ascii")
        return b"%b?%b" % (url, query) if query else url

    return locate


def locator(text: str, *, keep_query: bool) -> Locate:
    """The function that fills a URL. No value of a caller gets out of its place in it."""
    text, hash_, fragment = text.partition("#")
    base, _, query = text.partition("?")
    begin, rest = filler(base, in_path), filler(query, in_query)
    end = filler(hash_ + fragment, in_query)
    found = START.match(base)
    absolute = bool(found and found[1])

    def locate(scope: Scope, exchange: Exchange) -> bytes:
        url = begin(scope, exchange)
        if not absolute and url.startswith("//"):
            # It would be a URL of another host.
            url = "/" + url.lstrip("/")
        queries = [rest(scope, exchange)]
        if keep_query:
            queries.append(scope["query_string"].decode("ascii"))
        if query := "&".join(filter(None, queries)):
            url = f"{url}?{query}"
        return (url + end(scope, exchange)).encode("ascii")

    return locate


Fill = Callable[[Scope, Exchange], str]


def filler(text: str, fill: Callable[[str, Scope, Exchange], str]) -> Fill:
    parts = [(literal, name) for literal, name, _, _ in Formatter().parse(text)]
    if not any(name for _, name in parts):
        fixed = text.format()
        return lambda scope, exchange: fixed

    def filled(scope: Scope, exchange: Exchange) -> str:
        return "".join([piece + (fill(name, scope, exchange) if name else "") for piece, name in parts])

    return filled


def in_path(name: str, scope: Scope, exchange: Exchange) -> str:
    """A value as it may stand in a path: those of the path are encoded already."""
    if name == "path":
        return path_of(scope)
    if name == "host":
        return exchange.host
    if name in exchange.raw_params:
        return exchange.raw_params[name]
    return quote(look_up(name, exchange), "")


def in_query(name: str, scope: Scope, exchange: Exchange) -> str:
    """The same for a query or a fragment."""
    if name == "path":
        return quote(decode(path_of(scope)), "/")
    if name in exchange.raw_params:
        return quote(decode(exchange.raw_params[name]), "/" if name == "*" else "")
    return quote(look_up(name, exchange), "")
