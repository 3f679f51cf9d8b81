"""How errors look: those of the gateway itself, and those of the upstream."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from asgi_gateway.asgi import ASGIApp, Headers, Message, Receive, Scope, Send, answer, problem, title
from asgi_gateway.component import Build, Component
from asgi_gateway.declaration import Declaration
from asgi_gateway.exchange import EXCHANGE, Exchange, Told
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage

from .enveloping import DEFAULT, Code, Members, envelope

STATUS = re.compile(r"[45][0-9]{2}|[45]xx", re.IGNORECASE)
REASON = re.compile(r"[a-z][a-z0-9_]{0,63}")
SWALLOWED = 64 * 1024
"""Bytes of a body that is replaced which are read, so that its connection can be used again."""
REMEMBERED = 1024
"""Errors whose rule is remembered."""
OF_THE_BODY = frozenset(
    {
        b"accept-ranges",
        b"content-digest",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-location",
        b"content-md5",
        b"content-range",
        b"content-type",
        b"digest",
        b"etag",
        b"last-modified",
        b"repr-digest",
    }
)
"""What says something of the body that is gone."""

Origin = Literal["gateway", "upstream"]
Write = Callable[[Origin, Told], tuple[int, Headers, bytes, bytes]]
"""What makes status, header fields, Content-Type and body of an answer out of what is told."""


class Discarded(Exception):
    """Ends a call whose answer is replaced and does not come to its end."""


def as_text(value: object) -> object:
    """In YAML a status is a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def read_status(text: str) -> str:
    if not STATUS.fullmatch(text):
        raise mistake(f"{text!r} is not the status of an error", "as in 404 or 5xx", text)
    return text.lower()


def read_match(text: str) -> str:
    if not STATUS.fullmatch(text.lower()) and not REASON.fullmatch(text):
        raise mistake(f"{text!r} is neither a status nor a reason", "as in 404, 5xx or rate_limited", text)
    return text.lower()


def read_new_status(status: int) -> int:
    if status in (204, 205, 304):
        raise mistake(f"an answer with status {status} has no body")
    return status


EITHER = WithJsonSchema({"type": ["string", "integer"]})
Status = Annotated[str, BeforeValidator(as_text), AfterValidator(read_status), EITHER]
Match = Annotated[str, BeforeValidator(as_text), AfterValidator(read_match), EITHER]


class Rule(Declaration):
    """What becomes of some errors."""

    match: Annotated[tuple[Match, ...], Field(min_length=1)]
    """Which: statuses, `404` or `5xx`, and reasons, `rate_limited`."""
    source: Literal["any", "gateway", "upstream"] = "any"
    """Whose: those of the gateway, those of the upstream that are replaced, or both."""
    status: Annotated[int, Field(ge=200, le=599), AfterValidator(read_new_status)] | None = None
    """The status that the caller gets instead."""
    code: Code | None = None
    """The code that stands in the body."""
    message: str = ""
    """What the body says to people instead."""

    def fits(self, origin: Origin, status: int, reason: str) -> bool:
        if self.source not in ("any", origin):
            return False
        return bool({str(status), f"{status // 100}xx", reason} & set(self.match))


class Errors(Component, name="errors", stage=Stage.OBSERVE, rank=10, serves=frozenset({"http", "websocket"})):
    """Gives all errors one format and codes of one's own, and replaces those of the upstream."""

    format: Literal["problem", "envelope"] = "problem"
    """`problem` (RFC 9457), or `envelope`, a JSON object with the members below."""
    members: Members = DEFAULT
    """What an envelope holds, by name: `code`, `message`, `data` (null), `reason`, `status`, `title`,
    `errors` or `request_id`."""
    types: Annotated[str, Field(pattern=r"^([a-z][a-z0-9+.-]*:[!-~]*)?$")] = ""
    """What stands in front of the reason in `type` of a problem. Empty: `about:blank`."""
    rules: tuple[Rule, ...] = ()
    """Which errors get which status, code and message; the first rule that fits counts."""
    upstream: tuple[Status, ...] = ()
    """Statuses of the upstream whose answers are replaced, `404` or `5xx`. Their bodies are dropped."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        write = self.writer()
        replaced = frozenset(
            status for status in range(400, 600) if {str(status), f"{status // 100}xx"} & set(self.upstream)
        )

        def render(exchange: Exchange, told: Told) -> tuple[int, Headers, bytes, bytes]:
            return write("gateway", told)

        def errors(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            exchange.render = render
            return app(scope, receive, send)

        if not replaced:
            return errors

        async def replacing(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            exchange.render = render
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            replacing = Replacing(scope, exchange, send, replaced, write)
            try:
                await app(scope, receive, replacing.send)
            except Exception:
                # The caller has a whole answer: how that of the upstream went on is nothing to him.
                if not replacing.done:
                    raise
                exchange.outcome = "answered"

        replacing.__name__ = "errors"
        return replacing

    def writer(self) -> Write:
        """The function that makes the answer out of what is told."""
        rules, types, members = self.rules, self.types, self.members
        known: dict[tuple[Origin, int, str], Rule | None] = {}

        def rule_for(origin: Origin, told: Told) -> Rule | None:
            key = (origin, told.status, told.reason)
            if key in known:
                return known[key]
            found = next((rule for rule in rules if rule.fits(*key)), None)
            if len(known) < REMEMBERED:
                known[key] = found
            return found

        def write_problem(origin: Origin, told: Told) -> tuple[int, Headers, bytes, bytes]:
            status, code, message = decide(rule_for(origin, told), told)
            # A component may have a code and a type of its own; what the file says counts more.
            members: dict[str, Any] = dict(told.members)
            if code is not None:
                members["code"] = code
            if types:
                members["type"] = types + told.reason
            body = problem(status, told.reason, message, **members)
            return status, told.headers, b"application/problem+json", body

        def write_envelope(origin: Origin, told: Told) -> tuple[int, Headers, bytes, bytes]:
            status, code, message = decide(rule_for(origin, told), told)
            values = {
                "code": told.status if code is None else code,
                "message": message or title(told.status),
                "reason": told.reason,
                "status": status,
                "title": title(status),
                "request_id": told.members.get("request_id"),
                "errors": told.members.get("errors"),
            }
            return status, told.headers, b"application/json", envelope(members, values)

        return write_problem if self.format == "problem" else write_envelope


def decide(rule: Rule | None, told: Told) -> tuple[int, Code | None, str]:
    """Status, code and message of an error."""
    if rule is None:
        return told.status, None, told.detail
    return rule.status or told.status, rule.code, rule.message or told.detail


class Replacing:
    """The `send` of one request: instead of some answers of the upstream it sends others."""

    __slots__ = ("_exchange", "_render", "_scope", "_send", "_statuses", "_swallowed", "_write", "done")

    def __init__(
        self,
        scope: Scope,
        exchange: Exchange,
        send: Send,
        statuses: frozenset[int],
        write: Write,
    ) -> None:
        self._scope = scope
        self._exchange = exchange
        self._send = send
        self._statuses = statuses
        self._write = write
        self._render = exchange.render
        self._swallowed = 0
        self.done = False
        """Whether the caller has the other answer."""

    def send(self, message: Message) -> Awaitable[None]:
        if self.done:
            return self._swallow(message)
        # What the gateway tells itself is written already: its outcome is another. What stands further in may
        # have a format of its own, and has written in that.
        if (
            message["type"] == "http.response.start"
            and message["status"] in self._statuses
            and self._exchange.outcome == "answered"
            and self._exchange.render is self._render
        ):
            return self._tell(message)
        return self._send(message)

    async def _tell(self, message: Message) -> None:
        exchange = self._exchange
        kept = [field for field in message.get("headers", ()) if field[0] not in OF_THE_BODY]
        members = {"request_id": exchange.id, "route": exchange.route, "upstream": exchange.upstream}
        told = Told(
            message["status"], "upstream_error", "The upstream answered with an error.", kept, members
        )
        status, headers, content_type, body = self._write("upstream", told)
        await answer(self._scope, self._send, status, body, headers, content_type)
        self.done = True

    async def _swallow(self, message: Message) -> None:
        self._swallowed += len(message.get("body", b""))
        if self._swallowed > SWALLOWED:
            raise Discarded
