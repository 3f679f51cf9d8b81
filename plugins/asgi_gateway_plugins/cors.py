"""Which pages of other origins may read answers (the CORS protocol of the Fetch standard)."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar

from pydantic import AfterValidator, model_validator

from asgi_gateway.asgi import ASGIApp, Header, Headers, Message, Receive, Scope, Send, answer
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.config import Methods
from asgi_gateway.exchange import EXCHANGE, Exchange, OnStart
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage
from asgi_gateway.units import Time

from .expressions import Expression, any_of
from .fields import TOKEN, read_name, values
from .origins import ORIGIN, is_own, origin_of, read_origin

REMEMBERED = 1024
"""Origins whose verdict is remembered."""
MOST_ASKED = 4096
"""Bytes of field names that a preflight may ask for."""

ALLOW_ORIGIN, ALLOW_METHODS = b"access-control-allow-origin", b"access-control-allow-methods"
ALLOW_HEADERS, EXPOSE_HEADERS = b"access-control-allow-headers", b"access-control-expose-headers"
CREDENTIALS: Header = (b"access-control-allow-credentials", b"true")
PRIVATE_NETWORK: Header = (b"access-control-allow-private-network", b"true")
MAX_AGE = b"access-control-max-age"
ANSWERED = frozenset(
    {ALLOW_ORIGIN, ALLOW_METHODS, ALLOW_HEADERS, EXPOSE_HEADERS, CREDENTIALS[0], PRIVATE_NETWORK[0], MAX_AGE}
)
"""What only the gateway says: an upstream's own is dropped."""
VARY: Header = (b"vary", b"origin")
VARY_PREFLIGHT: Header = (
    b"vary",
    b"origin, access-control-request-method, access-control-request-headers",
)

METHOD, HEADERS = b"access-control-request-method", b"access-control-request-headers"
PRIVATE = b"access-control-request-private-network"
SAFELISTED = ("accept", "accept-language", "content-language", "content-type")
NAME = re.compile(TOKEN)
ASKED = re.compile(TOKEN.encode())

ORIGIN_REFUSED = Refusal(403, "origin_not_allowed", (VARY,), "Pages of this origin may not do this.")
METHOD_REFUSED = Refusal(
    403, "method_not_allowed", (VARY,), "Pages of other origins may not use this method."
)
HEADER_REFUSED = Refusal(403, "header_not_allowed", (VARY,), "Pages may not send one of these fields.")


def read_any_origin(text: str) -> str:
    return text if text == "*" else read_origin(text)


def read_any_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise mistake(f"{text!r} is not the name of a field", "as in [x-request-id], or [*]", text)
    return read_name(text)


Origins = tuple[Annotated[str, AfterValidator(read_any_origin)], ...]
Names = tuple[Annotated[str, AfterValidator(read_any_name)], ...]
Decide = Callable[[Scope, "Grant"], Headers | Refusal]


@dataclass(frozen=True, slots=True)
class Grant:
    """What pages of an origin get."""

    fields: Headers
    """What every answer to them says."""
    mark: OnStart
    """Writes that into an answer, in place of what the upstream said."""


class Cors(
    Component, name="cors", stage=Stage.GUARD, rank=-30, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Lets pages of other origins read answers, and answers their preflights."""

    answers_preflight: ClassVar[bool] = True

    origins: Origins = ()
    """Origins as browsers write them: `https://app.example.com`. `*`: all of them."""
    origin_patterns: tuple[Expression, ...] = ()
    """Regular expressions for whole origins."""
    methods: Methods = ("GET", "HEAD", "POST")
    """Methods that pages may use. `*`: all of them."""
    headers: Names = ()
    """Fields that pages may send beside Accept, Content-Type and the like. `*`: all of them."""
    expose_headers: Names = ()
    """Fields of answers that pages may read beside the harmless ones. `*`: all, but not with credentials."""
    credentials: bool = False
    """Whether pages may send cookies and other credentials, and read the answer."""
    max_age: Time = 600.0
    """How long a browser may remember the answer to a preflight."""
    private_network: bool = False
    """Whether pages of the public network may call an address in a private one."""
    websocket: bool = False
    """Whether WebSocket handshakes of pages of other origins are refused with 403."""

    @model_validator(mode="after")
    def is_possible(self) -> "Cors":
        everybody = "*" in self.origins
        if not self.origins and not self.origin_patterns:
            raise mistake("allows no origin", "as in `origins: [https://app.example.com]`")
        if everybody and (len(self.origins) > 1 or self.origin_patterns):
            raise mistake("'*' allows all origins", "leave the others out")
        if self.credentials and "*" in self.expose_headers:
            raise mistake(
                "with credentials browsers take '*' for a field of that name", "list expose_headers"
            )
        if self.websocket and everybody:
            raise mistake("'*' refuses no handshake", "list the origins, or leave `websocket` out")
        return self

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        grant_to = build.keep(self, self.granter, shared=True)
        decide, mark_foreign = self.decider(), marking((VARY,))
        refuse, guards = build.refuse(app), self.websocket

        def cors(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            origin = origin_of(scope)
            grant = grant_to(origin)
            if scope["type"] != "http":
                if guards and grant is None and origin and not is_own(origin, exchange.authority):
                    return refuse(scope, receive, send, ORIGIN_REFUSED)
                return app(scope, receive, send)
            decided: Headers | Refusal = ()
            if scope["method"] == "OPTIONS" and is_preflight(scope, exchange):
                decided = decide(scope, grant) if grant is not None and origin else ORIGIN_REFUSED
                if not isinstance(decided, Refusal):
                    return answer(scope, send, 204, b"", decided)
            exchange.on_start(grant.mark if grant is not None else mark_foreign)
            if isinstance(decided, Refusal):
                return refuse(scope, receive, send, decided)
            return app(scope, receive, send)

        return cors

    def granter(self) -> Callable[[bytes], Grant | None]:
        """The function that says what pages of an origin get, if anything. The empty one is none at all."""
        credentials = [CREDENTIALS] if self.credentials else []
        exposed = [(EXPOSE_HEADERS, ", ".join(self.expose_headers).encode())] if self.expose_headers else []
        everybody = "*" in self.origins
        if everybody and not self.credentials:
            # The one answer that does not depend on who asks: caches may give it to all.
            to_all = Grant([(ALLOW_ORIGIN, b"*")], marking([(ALLOW_ORIGIN, b"*"), *exposed]))
            return lambda origin: to_all
        exact, matches = frozenset(self.origins), any_of(self.origin_patterns, whole=True)

        @lru_cache(REMEMBERED)
        def grant(origin: bytes) -> Grant | None:
            text = origin.decode("latin-1")
            if not ORIGIN.fullmatch(text) or not (everybody or text in exact or matches(text)):
                return None
            fields = [(ALLOW_ORIGIN, origin), *credentials]
            return Grant(fields, marking([*fields, *exposed, VARY]))

        return grant

    def decider(self) -> Decide:
        """The function that decides what a preflight is told, whose origin has a grant."""
        methods, any_method = frozenset(method.encode() for method in self.methods), "*" in self.methods
        allowed, any_name = (*SAFELISTED, *self.headers), "*" in self.headers
        names = frozenset(name.encode() for name in allowed)
        listed_methods, listed_names = ", ".join(self.methods).encode(), ", ".join(allowed).encode()
        age, private = (MAX_AGE, b"%d" % self.max_age), self.private_network

        def decide(scope: Scope, grant: Grant) -> Headers | Refusal:
            method, asked = values(scope, METHOD), asked_names(scope)
            if method not in methods and not (any_method and ASKED.fullmatch(method)):
                return METHOD_REFUSED
            if asked is None or not (any_name or names.issuperset(asked)):
                return HEADER_REFUSED
            # `*` is spelt out: browsers do not take it for Authorization, and with credentials for nothing.
            fields = [*grant.fields, (ALLOW_METHODS, method if any_method else listed_methods)]
            fields.append((ALLOW_HEADERS, b", ".join(asked) if any_name else listed_names))
            if private and values(scope, PRIVATE) == b"true":
                fields.append(PRIVATE_NETWORK)
            return [*fields, age, VARY_PREFLIGHT]

        return decide


def is_preflight(scope: Scope, exchange: Exchange) -> bool:
    """Whether an OPTIONS asks for another method. Where no route is, that has to be said, not this."""
    return bool(values(scope, METHOD)) and exchange.refused is None


def asked_names(scope: Scope) -> list[bytes] | None:
    """The fields that a preflight asks for, in lower case; None if that is nothing a browser says."""
    asked = values(scope, HEADERS).lower()
    if len(asked) > MOST_ASKED:
        return None
    names = [name for part in asked.split(b",") if (name := part.strip())]
    return names if all(map(ASKED.fullmatch, names)) else None


def marking(fields: Headers) -> OnStart:
    """The function that writes these fields into an answer, in place of what the upstream said."""
    new = [field for field in fields if field != VARY]
    varies = new != list(fields)

    def mark(exchange: Exchange, message: Message) -> None:
        names = [name for name, _ in message["headers"]]
        if ANSWERED.isdisjoint(names) and b"vary" not in names:
            message["headers"] += fields
            return
        headers = [field for field in message["headers"] if field[0] not in ANSWERED]
        said = [text for name, text in headers if name == b"vary"] if varies else []
        headers += new if said and any(map(names_origin, said)) else fields
        message["headers"] = headers

    return mark


def names_origin(value: bytes) -> bool:
    names = [name.strip() for name in value.lower().split(b",")]
    return b"origin" in names or b"*" in names
