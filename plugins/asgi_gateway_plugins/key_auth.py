"""API keys: who has one of a consumer's keys is that consumer."""

from collections.abc import Awaitable, Callable

from pydantic import model_validator

from asgi_gateway.asgi import ASGIApp, Header, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.consumers import Consumer, Principal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage
from asgi_gateway.store import StoreError

from .authentication import CONSUMERS_AWAY, MOST
from .credentials import cookie_pairs, cookies_without, query_pairs, query_without
from .fields import HeaderName, WrittenHeader, spellings, value

Find = Callable[[Scope], list[bytes]]
Clean = Callable[[Scope], None]

CHALLENGE = ((b"www-authenticate", b"ApiKey"),)
NO_KEY = Refusal(401, "no_key", CHALLENGE, "This request needs an API key.", missing=True)
UNKNOWN_KEY = Refusal(401, "unknown_key", CHALLENGE, "Nobody has this API key.")
SEVERAL_KEYS = Refusal(401, "several_keys", CHALLENGE, "The request carries different API keys.")


class KeyAuth(
    Component, name="key_auth", stage=Stage.AUTH, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Identifies the caller by an API key of a consumer, and refuses everybody else with 401."""

    headers: tuple[HeaderName, ...] = ("x-api-key", "apikey", "access_token")
    """Fields in which a key is looked for."""
    query: tuple[str, ...] = ()
    """Query parameters in which a key is looked for. Mind that URLs are logged in many places."""
    cookies: tuple[str, ...] = ()
    """Cookies in which a key is looked for."""
    hide: bool = True
    """Whether the key is removed from the request that goes upstream."""
    consumer_header: WrittenHeader = "x-consumer"
    """The field that tells the upstream who is calling; a caller's own is always removed. Empty: none."""

    @model_validator(mode="after")
    def looks_somewhere(self) -> "KeyAuth":
        if not (self.headers or self.query or self.cookies):
            raise mistake("looks for a key nowhere", "as in `headers: [x-api-key]`")
        return self

    def owns(self) -> tuple[str, ...]:
        return (self.consumer_header,) if self.consumer_header else ()

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, consumers = build.refuse(app), build.consumers
        owner_of = consumers.with_key
        name, asks = self.consumer_header.encode(), consumers.records is not None
        fields, gone = frozenset(each.encode() for each in self.headers), self.gone()
        find, clean = self.finder(), self.cleaner()
        known: dict[str, tuple[Consumer, Principal, list[Header]]] = {}

        def key_auth(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            headers = scope["headers"]
            found = [text for key, text in headers if key in fields]
            if find is not None:
                found += find(scope)
            scope = {**scope}
            scope["headers"] = [field for field in headers if field[0] not in gone]
            if clean is not None:
                clean(scope)
            if len(found) != 1 and len(found := list(set(found))) != 1:
                return refuse(scope, receive, send, SEVERAL_KEYS if found else NO_KEY)
            consumer = owner_of(found[0])
            if consumer is not None:
                return enter(scope, receive, send, consumer)
            if asks:
                return ask(scope, receive, send, found[0])
            return refuse(scope, receive, send, UNKNOWN_KEY)

        def enter(scope: Scope, receive: Receive, send: Send, consumer: Consumer) -> Awaitable[None]:
            entry = known.get(consumer.name)
            # What a store says of a consumer may change.
            if entry is None or entry[0] is not consumer:
                principal = Principal(consumer.name, "key_auth", consumer.groups)
                entry = (consumer, principal, [(name, value(consumer.name))] if name else [])
                if consumer.name in known or len(known) < MOST:
                    known[consumer.name] = entry
            exchange: Exchange = scope[EXCHANGE]
            exchange.principal = entry[1]
            scope["headers"] += entry[2]
            return app(scope, receive, send)

        async def ask(scope: Scope, receive: Receive, send: Send, key: bytes) -> None:
            try:
                consumer = await consumers.ask_key(key)
            except StoreError:
                await refuse(scope, receive, send, CONSUMERS_AWAY)
                return
            if consumer is None:
                await refuse(scope, receive, send, UNKNOWN_KEY)
            else:
                await enter(scope, receive, send, consumer)

        return key_auth

    def gone(self) -> frozenset[bytes]:
        """Fields that do not go on: those with keys, and a forged identity."""
        hidden = self.headers if self.hide else ()
        names = [*hidden, self.consumer_header] if self.consumer_header else hidden
        return frozenset(spelling for name in names for spelling in spellings(name))

    def finder(self) -> Find | None:
        """The function that gathers the keys outside of fields of their own, if there may be any."""
        parameters = frozenset(name.encode() for name in self.query)
        cookies = frozenset(name.encode() for name in self.cookies)

        def find(scope: Scope) -> list[bytes]:
            pairs = [pair for pair, _ in query_pairs(scope["query_string"])] if parameters else []
            found = [text for name, text in pairs if name in parameters]
            lines = [line for name, line in scope["headers"] if name == b"cookie"] if cookies else []
            pairs = [pair for line in lines for pair, _ in cookie_pairs(line)]
            return found + [text for name, text in pairs if name in cookies]

        return find if parameters or cookies else None

    def cleaner(self) -> Clean | None:
        """The function that takes the keys out of query and cookies, if they are looked for there."""
        parameters = frozenset(name.encode() for name in self.query if self.hide)
        cookies = frozenset(name.encode() for name in self.cookies if self.hide)

        def clean(scope: Scope) -> None:
            if cookies:
                scope["headers"] = cookies_without(scope["headers"], cookies)
            if parameters:
                scope["query_string"] = query_without(scope["query_string"], parameters)

        return clean if parameters or cookies else None
