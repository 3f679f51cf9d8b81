"""The only place that leads from a route to an upstream: rewrites the path, and follows what the exchange
names.
"""

from collections.abc import Mapping

from .asgi import ASGIApp, Receive, Scope, Send
from .config import Route
from .errors import ConfigError, Problem
from .exchange import EXCHANGE, Exchange
from .paths import Template, decode
from .routing import Pattern


def dispatch(route: Route, pattern: Pattern, upstreams: Mapping[str, ASGIApp]) -> ASGIApp:
    """The end of a route's chain. `upstreams` is filled while the configuration is compiled."""
    if route.rewrite and route.strip_prefix:
        raise ConfigError(Problem("a route has strip_prefix or rewrite, not both", f"route {route.name}"))
    if route.rewrite:
        return rewriting(route, pattern, upstreams)
    if route.strip_prefix:
        return stripping(route, upstreams)

    def dispatch(scope: Scope, receive: Receive, send: Send) -> object:
        return upstreams[scope[EXCHANGE].upstream](scope, receive, send)

    return dispatch  # type: ignore[return-value]


def stripping(route: Route, upstreams: Mapping[str, ASGIApp]) -> ASGIApp:
    """In ASGI a prefix is taken away by adding it to the root path: an app behind it still knows its own
    links.
    """
    prefix = route.strip_prefix.rstrip("/")
    if not prefix.startswith("/") or not (route.path == prefix or route.path.startswith(prefix + "/")):
        what = f"strip_prefix {route.strip_prefix!r} is not the beginning of the path {route.path!r}"
        raise ConfigError(Problem(what, f"route {route.name}: strip_prefix"))
    prefix = decode(prefix)

    def dispatch(scope: Scope, receive: Receive, send: Send) -> object:
        inner = {**scope, "root_path": scope.get("root_path", "") + prefix}
        return upstreams[scope[EXCHANGE].upstream](inner, receive, send)

    return dispatch  # type: ignore[return-value]


def rewriting(route: Route, pattern: Pattern, upstreams: Mapping[str, ASGIApp]) -> ASGIApp:
    try:
        template = Template(route.rewrite)
    except ValueError as error:
        raise ConfigError(Problem(str(error), f"route {route.name}: rewrite")) from None
    known = set(pattern.variables)
    if unknown := sorted(set(template.variables) - known):
        raise ConfigError(
            Problem(
                f"{{{unknown[0]}}} is no variable of {route.path!r}",
                f"route {route.name}: rewrite",
                f"it has {', '.join(sorted(known)) or 'none'}",
            )
        )

    def dispatch(scope: Scope, receive: Receive, send: Send) -> object:
        exchange: Exchange = scope[EXCHANGE]
        path = template.fill(exchange.raw_params)
        inner = {**scope, "root_path": "", "path": decode(path), "raw_path": path.encode("ascii")}
        return upstreams[exchange.upstream](inner, receive, send)

    return dispatch  # type: ignore[return-value]
