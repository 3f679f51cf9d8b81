"""Fields that tell browsers to be careful with an answer."""

from collections.abc import Awaitable
from typing import Annotated

from pydantic import Field, model_validator

from asgi_gateway.asgi import ASGIApp, Header, Message, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.exchange import EXCHANGE, Exchange, OnStart
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage

from .fields import HeaderName, is_framing

Value = Annotated[str, Field(pattern=r"^([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?$", max_length=4096)]
"""The value of a field, or empty for none."""


# At OBSERVE, outside of everything that may refuse: whatever leaves goes past it, refusals included.
class SecurityHeaders(
    Component, name="security_headers", stage=Stage.OBSERVE, serves=frozenset({"http", "websocket"})
):
    """Adds the fields that tell browsers to be careful, and removes those that tell too much."""

    content_type_options: Value = "nosniff"
    """X-Content-Type-Options: a browser does not guess what an answer is. Each of these is off when empty."""
    strict_transport_security: Value = "max-age=31536000"
    """Strict-Transport-Security: only https from now on. Sent only over https."""
    referrer_policy: Value = "strict-origin-when-cross-origin"
    """Referrer-Policy: what other sites learn of the URL."""
    frame_options: Value = "SAMEORIGIN"
    """X-Frame-Options: who may show it in a frame, for old browsers."""
    content_security_policy: Value = "frame-ancestors 'self'"
    """Content-Security-Policy: the same for newer ones, and what else a page may do."""
    permissions_policy: Value = ""
    """Permissions-Policy: which abilities of the browser a page may use."""
    cross_origin_opener_policy: Value = ""
    """Cross-Origin-Opener-Policy: which pages share a window with it."""
    cross_origin_resource_policy: Value = ""
    """Cross-Origin-Resource-Policy: which pages may embed it."""
    remove: tuple[HeaderName, ...] = ("server", "x-powered-by")
    """Fields of the answer that nobody needs to see."""
    override: bool = False
    """Whether a field that the upstream or another component set is replaced."""

    @model_validator(mode="after")
    def leave_framing(self) -> "SecurityHeaders":
        if framing := sorted(filter(is_framing, self.remove)):
            raise mistake(f"{framing[0]} says how a message is framed", "only the gateway itself removes it")
        return self

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        fields = {
            b"x-content-type-options": self.content_type_options,
            b"referrer-policy": self.referrer_policy,
            b"x-frame-options": self.frame_options,
            b"content-security-policy": self.content_security_policy,
            b"permissions-policy": self.permissions_policy,
            b"cross-origin-opener-policy": self.cross_origin_opener_policy,
            b"cross-origin-resource-policy": self.cross_origin_resource_policy,
        }
        plain = [(name, text.encode()) for name, text in fields.items() if text]
        secure = list(plain)
        if self.strict_transport_security:
            secure.append((b"strict-transport-security", self.strict_transport_security.encode()))
        over_http, over_https = self.writer(plain), self.writer(secure)

        def security_headers(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            exchange.on_start(over_https if exchange.scheme == "https" else over_http)
            return app(scope, receive, send)

        return security_headers

    def writer(self, fields: list[Header]) -> OnStart:
        """The function that writes these fields into a head."""
        gone, new = frozenset(name.encode() for name in self.remove), frozenset(name for name, _ in fields)

        def override(exchange: Exchange, message: Message) -> None:
            kept = [field for field in message["headers"] if field[0] not in gone and field[0] not in new]
            message["headers"] = kept + fields

        def add(exchange: Exchange, message: Message) -> None:
            kept = [field for field in message["headers"] if field[0] not in gone]
            there = new.intersection([name for name, _ in kept])
            kept += [field for field in fields if field[0] not in there] if there else fields
            message["headers"] = kept

        return override if self.override else add
