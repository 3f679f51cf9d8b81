"""API keys: who has one of a consumer's keys is that consumer."""

from collections.abc import Awaitable, Callable

from pydantic import model_validator

from asgi_gateway.asgi import ASGIApp, Header, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.consumers import Consumer
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage
from asgi_gateway.store import StoreError

from .authentication import CONSUMERS_AWAY, MOST, principals
from .credentials import cookie_pairs, cookies_without, query_pairs, query_without
from .fields import HeaderName, NoHeader, spellings, value

Find = Callable[[Scope], set[bytes]]
Clean = Callable[[Scope], Scope]

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
    consumer_header: NoHeader = "x-consumer"
    """The field that tells the upstream who is calling; a caller's own is always removed. Empty: none."""

    @model_validator(mode="after")
    def looks_somewhere(self) -> "KeyAuth":
        if not (self.headers or self.query or self.cookies):
            raise mistake("looks for a key nowhere", "as in `headers: [x-api-key]`")
        return self

    def owns(self) -> tuple[str, ...]:
        return (self.consumer_header,) if self.consumer_header else ()

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        find, clean = self.finder(), self.cleaner()
        refuse, consumers = build.refuse(app), build.consumers
        name, asks = self.consumer_header.encode(), consumers.records is not None
        principal = principals("key_auth")
        told: dict[str, list[Header]] = {}

        def key_auth(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            found = find(scope)
            scope = clean(scope)
            if len(found) != 1:
                return refuse(scope, receive, send, SEVERAL_KEYS if found else NO_KEY)
            key = found.pop()
            consumer = consumers.with_key(key)
            if consumer is not None:
                return enter(scope, receive, send, consumer)
            return ask(scope, receive, send, key) if asks else refuse(scope, receive, send, UNKNOWN_KEY)

        def enter(scope: Scope, receive: Receive, send: Send, consumer: Consumer) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            exchange.principal = principal(consumer)
            fields = told.get(consumer.name)
            if fields is None:
                fields = [(name, value(consumer.name))] if name else []
                if len(told) < MOST:
                    told[consumer.name] = fields
            scope["headers"] += fields
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

    def finder(self) -> Find:
        """The function that gathers every different key of a request."""
        headers = frozenset(name.encode() for name in self.headers)
        parameters = frozenset(name.encode() for name in self.query)
        cookies = frozenset(name.encode() for name in self.cookies)

        def find(scope: Scope) -> set[bytes]:
            found = {text for name, text in scope["headers"] if name in headers}
            if parameters:
                pairs = [pair for pair, _ in query_pairs(scope["query_string"])]
                found |= {text for name, text in pairs if name in parameters}
            if cookies:
                lines = [line for name, line in scope["headers"] if name == b"cookie"]
                pairs = [pair for line in lines for pair, _ in cookie_pairs(line)]
                found |= {text for name, text in pairs if name in cookies}
            return found

        return find

    def cleaner(self) -> Clean:
        """The function that copies a scope without the keys, and without a forged identity."""
        hidden = self.headers if self.hide else ()
        names = [*hidden, self.consumer_header] if self.consumer_header else hidden
        gone = frozenset(spelling for name in names for spelling in spellings(name))
        parameters = frozenset(name.encode() for name in self.query if self.hide)
        cookies = frozenset(name.encode() for name in self.cookies if self.hide)

        def clean(scope: Scope) -> Scope:
            headers = [field for field in scope["headers"] if field[0] not in gone]
            if cookies:
                headers = cookies_without(headers, cookies)
            cleaned = {**scope, "headers": headers}
            if parameters:
                cleaned["query_string"] = query_without(scope["query_string"], parameters)
            return cleaned

        return clean
