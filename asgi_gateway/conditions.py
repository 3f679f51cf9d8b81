"""The only place that decides whether a component is there for a request (`when`)."""

from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from .asgi import ASGIApp, Receive, Scope, Send
from .config import Paths, When
from .exchange import EXCHANGE, Exchange
from .paths import canonical

LENIENT = Paths(double_slash="keep", encoded_slash="keep", backslash="keep", semicolon="keep")
"""How a path in a condition is read: whatever reaches it was let in by the policy of the file."""

Question = Callable[[Scope, Exchange], bool]


def conditional(inner: ASGIApp, app: ASGIApp, when: When) -> ASGIApp:
    """`inner` for the requests that `when` describes, `app` for all others."""
    questions = tuple(ask(when))

    def conditional(scope: Scope, receive: Receive, send: Send) -> object:
        exchange: Exchange = scope[EXCHANGE]
        for question in questions:
            if not question(scope, exchange):
                return app(scope, receive, send)
        return inner(scope, receive, send)

    return conditional  # type: ignore[return-value]


def ask(when: When) -> list[Question]:
    """The questions behind the fields that are given, the cheap ones first."""
    questions: list[Question] = []
    if when.method:
        methods = frozenset(when.method)
        questions.append(lambda scope, exchange: scope.get("method", "GET") in methods)
    if when.path:
        questions.append(at(when.path))
    if when.consumer:
        consumers = frozenset(when.consumer)
        questions.append(
            lambda scope, exchange: (
                exchange.principal is not None and exchange.principal.consumer in consumers
            )
        )
    if when.headers:
        headers = tuple((name.lower().encode(), value.encode()) for name, value in when.headers)
        questions.append(lambda scope, exchange: all(has_header(scope, *pair) for pair in headers))
    if when.query:
        wanted = dict(when.query)
        questions.append(lambda scope, exchange: has_query(scope, wanted))
    return questions


def at(path: str) -> Question:
    """Whether a canonical path is this one, or below it where it ends in `/*`; spelt as routes are."""
    trunk = path.removesuffix("/*")
    place = canonical(LENIENT)((trunk or "/").encode())
    if trunk == path:
        return lambda scope, exchange: exchange.path == place
    below = place.rstrip("/") + "/"
    return lambda scope, exchange: exchange.path == place or exchange.path.startswith(below)


def has_header(scope: Scope, name: bytes, value: bytes) -> bool:
    return any(key == name and value in (b"*", found) for key, found in scope["headers"])


def has_query(scope: Scope, wanted: Mapping[str, str]) -> bool:
    given = parse_qsl(scope["query_string"].decode("utf-8", "replace"), keep_blank_values=True)
    return all(
        any(name == key and value in ("*", found) for key, found in given) for name, value in wanted.items()
    )
