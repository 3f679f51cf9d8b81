"""What components have in common that find out who is calling."""

from collections.abc import Callable, Iterable
from re import fullmatch
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from asgi_gateway.asgi import RETRY_SOON, Header, Scope
from asgi_gateway.component import Component, Refusal
from asgi_gateway.consumers import Consumer, Principal
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import mistake

from .fields import WrittenHeader, spellings, value

Identify = Callable[[Scope, Principal], Scope]

CONSUMERS_AWAY = Refusal(503, "store_away", RETRY_SOON, "It cannot be said at the moment who is calling.")
MOST = 10_000
"""Consumers of whom it is remembered what is said of them: a store may know more."""

SERVICE = r"https?://[^\s@#]+"
REALM = r'[^"\\\x00-\x1f\x7f]*'


def read_service(url: str) -> str:
    if not fullmatch(SERVICE, url):
        # It may hold a password, which no message shows.
        raise mistake(
            "is not the URL of a service", "http://host/path or https://, without user and password"
        )
    return url


def read_realm(text: str) -> str:
    if not fullmatch(REALM, text):
        raise mistake(
            f"{text!r} cannot stand in a challenge", "no quotes, backslashes, control characters", text
        )
    return text


ServiceUrl = Annotated[
    str, AfterValidator(read_service), WithJsonSchema({"type": "string", "pattern": f"^{SERVICE}$"})
]
"""What the gateway itself asks; it holds no user and password."""
WebUrl = Annotated[
    str,
    AfterValidator(lambda url: read_service(url) if url else url),
    WithJsonSchema({"type": "string", "pattern": f"^({SERVICE})?$"}),
]
"""The same, or empty."""
Realm = Annotated[
    str, AfterValidator(read_realm), WithJsonSchema({"type": "string", "pattern": f"^{REALM}$"})
]
"""What a challenge calls the place that asks for credentials; it stands between quotes."""


class Authentication(Component):
    """The options of every component that tells the upstream who is calling."""

    consumer_header: WrittenHeader = "x-consumer"
    """The field that tells the upstream who is calling; a caller's own is always removed. Empty: none."""

    def owns(self) -> tuple[str, ...]:
        return (self.consumer_header,) if self.consumer_header else ()

    def identifier(self, *hidden: str) -> Identify:
        """The function that notes who is calling, and copies the scope: with the name, without `hidden`."""
        name = self.consumer_header.encode()
        names = [*hidden, self.consumer_header] if name else list(hidden)
        gone = frozenset(spelling for each in names for spelling in spellings(each))
        told: dict[str, list[Header]] = {}

        def identify(scope: Scope, principal: Principal) -> Scope:
            exchange: Exchange = scope[EXCHANGE]
            exchange.principal = principal
            consumer = principal.consumer
            field = told.get(consumer)
            if field is None:
                field = [(name, value(consumer))] if name else []
                if len(told) < MOST:
                    told[consumer] = field
            headers = [pair for pair in scope["headers"] if pair[0] not in gone]
            headers += field
            inner = {**scope}
            inner["headers"] = headers
            return inner

        return identify


def principals(method: str) -> Callable[[Consumer], Principal]:
    """What makes the principal of a consumer, once for each."""
    made: dict[str, tuple[Consumer, Principal]] = {}

    def principal(consumer: Consumer) -> Principal:
        entry = made.get(consumer.name)
        # What a store says of a consumer may change.
        if entry is not None and entry[0] is consumer:
            return entry[1]
        made_now = Principal(consumer.name, method, consumer.groups)
        if entry is not None or len(made) < MOST:
            made[consumer.name] = (consumer, made_now)
        return made_now

    return principal


def fields_of(scope: Scope, name: bytes) -> list[bytes]:
    """All values of a field."""
    return [text for key, text in scope["headers"] if key == name]


def missing_extra(what: str, library: str) -> ConfigError:
    """What to say where a library is not installed."""
    return ConfigError(Problem(f"{what} needs {library}", hint="pip install 'asgi-gateway[auth]'"))


def dig(claims: Any, path: Iterable[str]) -> Any:
    """What stands at a path in nested mappings, or None."""
    for part in path:
        if not isinstance(claims, dict):
            return None
        claims = claims.get(part)
    return claims
