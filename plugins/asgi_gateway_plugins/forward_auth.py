"""Asks another service whether a request may pass."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from asgi_gateway.asgi import RETRY_SOON, ASGIApp, Header, Headers, Receive, Scope, Send
from asgi_gateway.component import Build, Refusal, Reply
from asgi_gateway.consumers import Consumers, Principal
from asgi_gateway.errors import ControlError
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage
from asgi_gateway.units import Span

from .authentication import Authentication, ServiceUrl
from .fields import HeaderName, NoHeader, WrittenName, is_framing, spellings, value

LARGEST = 64 * 1024
"""Bytes of an answer; only its head counts."""


class ForwardAuth(
    Authentication,
    name="forward_auth",
    stage=Stage.AUTH,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Asks another service about every request, and refuses what it does not answer with 2xx."""

    url: ServiceUrl
    """What is asked."""
    method: Literal["GET", "HEAD", "POST"] = "GET"
    """With which method."""
    request_headers: tuple[HeaderName, ...] = ("authorization", "cookie")
    """Fields of the request that the service gets, with X-Forwarded-Method, -Proto, -Host, -Uri and -For."""
    upstream_headers: tuple[WrittenName, ...] = ()
    """Fields of its answer that the upstream gets. A caller's own are always removed."""
    client_headers: tuple[HeaderName, ...] = ("www-authenticate", "location", "set-cookie")
    """Fields of its answer that the caller gets when the request is refused."""
    consumer_from: NoHeader = ""
    """The field of its answer that says who is calling. Empty: nobody is known."""
    timeout: Span = 3.0
    """How long the service may take."""
    on_error: Literal["deny", "allow"] = "deny"
    """What happens while the service cannot be asked, or answers 5xx."""
    status_on_error: Annotated[int, Field(ge=400, le=599)] = 503
    """The status of a request that is denied for that."""

    @field_validator("request_headers")
    @classmethod
    def leave_framing(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        # A length without its body would fail the question, and with `on_error: allow` that opens the door.
        if framing := sorted(filter(is_framing, names)):
            raise mistake(f"{framing[0]} says how a message is framed", "the question has no body")
        return names

    def owns(self) -> tuple[str, ...]:
        return (*super().owns(), *self.upstream_headers)

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, control, consumers = build.refuse(app), build.control, build.consumers
        method, url, seconds = self.method, self.url, self.timeout
        allows = self.on_error == "allow"
        passed = frozenset(name.encode() for name in self.request_headers)
        told = frozenset(name.encode() for name in self.client_headers)
        gone = frozenset(spelling for name in self.owns() for spelling in spellings(name))
        again = RETRY_SOON if self.status_on_error == 503 else ()
        unavailable = Refusal(
            self.status_on_error, "auth_unavailable", again, "It cannot be asked who may pass."
        )

        async def forward_auth(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            fields = [pair for pair in scope["headers"] if pair[0] in passed]
            error = ""
            try:
                reply = await control.call(
                    method, url, [*fields, *about(scope, exchange)], timeout=seconds, max_size=LARGEST
                )
                # 304 would tell the caller to go on with what it has.
                if not 200 <= reply.status < 500 or reply.status == 304:
                    error = f"status_{reply.status}"
            except ControlError as failure:
                error = failure.reason
            headers = [pair for pair in scope["headers"] if pair[0] not in gone]
            if error:
                exchange.tag("forward_auth", error)
                if not allows:
                    await refuse(scope, receive, send, unavailable)
                    return
            elif reply.status >= 300:
                await refuse(scope, receive, send, denied(reply, told))
                return
            else:
                headers += self.identity(reply, exchange, consumers)
            await app({**scope, "headers": headers}, receive, send)

        return forward_auth

    def identity(self, reply: Reply, exchange: Exchange, consumers: Consumers) -> Headers:
        """Note who is calling; the fields that tell the upstream."""
        wanted = frozenset(name.encode() for name in self.upstream_headers)
        fields: list[Header] = [pair for pair in reply.headers if pair[0] in wanted]
        names = [text for name, text in reply.headers if name == self.consumer_from.encode()]
        if len(names) == 1 and names[0]:
            name = names[0].decode(errors="replace")
            known = consumers.get(name)
            exchange.principal = Principal(name, self.name, known.groups if known is not None else ())
            if self.consumer_header:
                fields.append((self.consumer_header.encode(), value(name)))
        return fields


def about(scope: Scope, exchange: Exchange) -> Headers:
    """What the service has to know about a request."""
    path, query = scope["raw_path"].partition(b"?")[0], scope["query_string"]
    return [
        (b"x-forwarded-method", scope.get("method", "GET").encode()),
        (b"x-forwarded-proto", exchange.scheme.encode()),
        (b"x-forwarded-host", exchange.authority),
        (b"x-forwarded-uri", path + b"?" + query if query else path),
        (b"x-forwarded-for", exchange.client.encode()),
    ]


def denied(reply: Reply, told: frozenset[bytes]) -> Refusal:
    """The answer of the service as the caller gets it: its status, some of its fields, and no body."""
    fields = [pair for pair in reply.headers if pair[0] in told]
    return Refusal(reply.status, "denied", fields, "This request may not pass.")
