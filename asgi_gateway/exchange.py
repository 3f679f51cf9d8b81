"""The only place that knows what happened to one request."""

import logging
from asyncio import Task
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .asgi import Header, Headers, Message, Scope, Send
from .component import Refusal
from .consumers import Principal
from .ids import new_id
from .paths import decode

if TYPE_CHECKING:
    from .call import Call
    from .replay import Replay

EXCHANGE = "asgi_gateway.exchange"
HOST = "asgi_gateway.host"
"""The Host that an upstream gets where a component chose one (bytes); it stands among the headers, too."""

Outcome = Literal["answered", "refused", "upstream_failed", "aborted", "caller_left", "failed"]
Cut = Literal["configuration_expired", "shutdown", "total_timeout"]
OnStart = Callable[["Exchange", Message], None]
OnEnd = Callable[["Exchange"], None]
Stale = Callable[[Scope, Send], Awaitable[None]]

logger = logging.getLogger("asgi_gateway")


@dataclass(slots=True)
class Told:
    """What the gateway itself tells a caller whose request came to nothing."""

    status: int
    reason: str
    detail: str
    headers: Headers
    members: dict[str, Any]
    """More members of the problem: request_id, route, component or upstream."""


Render = Callable[["Exchange", Told], tuple[int, Headers, bytes, bytes]]
"""Status, header fields, Content-Type and body of the answer that tells it."""


class Exchange:
    """What the gateway knows about one request, from its first byte to its true end."""

    __slots__ = (
        "_ends",
        "_id",
        "_send",
        "_starts",
        "authority",
        "calls",
        "cause",
        "client",
        "complete",
        "cut_for",
        "deadline",
        "ended",
        "foreign",
        "forwarded",
        "has_body",
        "host",
        "left",
        "outcome",
        "path",
        "principal",
        "raw_params",
        "refused",
        "render",
        "replay",
        "reported",
        "route",
        "scheme",
        "scope",
        "sent",
        "stale",
        "started",
        "status",
        "tags",
        "task",
        "trailers",
        "trusted",
        "upstream",
    )

    def __init__(self, scope: Scope, send: Send, started: float, task: "Task[Any] | None" = None) -> None:
        self.scope = scope
        """The scope as the server gave it: nobody writes into it."""
        self._send = send
        self.task = task
        """The task that serves it."""
        self._id = ""
        self._starts: list[OnStart] | None = None
        self._ends: list[OnEnd] | None = None
        self.started = started
        """Monotonic seconds."""
        self.ended = 0.0
        self.route = ""
        self.raw_params: Mapping[str, str] = {}
        """The variables of the path as they stand in it, percent-encoded."""
        self.path = ""
        """The canonical path that was matched, still percent-encoded, without the place where the gateway is
        mounted."""
        self.authority = b""
        """The Host that the caller asked for, port included."""
        self.host = ""
        """Host without port, in lower case."""
        self.client = ""
        """The caller's address: the socket's, or what a trusted proxy says."""
        self.scheme = "http"
        self.trusted = False
        """Whether the peer is a trusted proxy, so that its forwarding headers count."""
        self.forwarded: list[Header] = []
        """The forwarding headers of a trusted peer; they are not among the scope's headers any more."""
        self.trailers = False
        """Whether the caller takes trailers, and the server can send them."""
        self.has_body = False
        """Whether the request may have a body."""
        self.foreign = True
        """Whether the server does not cancel the request's task when the caller leaves."""
        self.replay: Replay | None = None
        """The body, where a component needed it before it goes upstream."""
        self.left = False
        """Whether the caller left, on such a server."""
        self.stale: Stale | None = None
        """Sends an answer that is stored and no longer fresh: a cache sets it where it has one."""
        self.principal: Principal | None = None
        self.upstream = ""
        """The upstream that dispatch will call; a SPLIT component may change it."""
        self.deadline = float("inf")
        """Monotonic seconds; only ever shrinks."""
        self.cut_for: Cut | None = None
        """Why the gateway itself cancelled the task, if it did."""
        self.calls: list[Call] = []
        self.refused: Refusal | None = None
        self.render: Render | None = None
        """What makes an answer out of what is told; None: a problem (RFC 9457)."""
        self.reported: list[Refusal] | None = None
        """What components would have refused under `mode: report`."""
        self.status = 0
        """The status that was sent, 0 before."""
        self.sent = 0
        """Body bytes handed to the server."""
        self.complete = False
        """Whether the last byte was handed to the server."""
        self.outcome: Outcome = "answered"
        self.cause = ""
        """Why it ended as it did, for machines: a refusal's reason, an upstream's failure, an exception's
        name."""
        self.tags: dict[str, Any] | None = None

    @staticmethod
    def of(scope: Scope) -> "Exchange":
        """The exchange that a scope belongs to."""
        exchange: Exchange = scope[EXCHANGE]
        return exchange

    @property
    def id(self) -> str:
        """The request id; made when first asked for."""
        if not self._id:
            self._id = new_id()
        return self._id

    @id.setter
    def id(self, value: str) -> None:
        self._id = value

    @property
    def params(self) -> dict[str, str]:
        """The variables of the path, decoded."""
        return {name: decode(value) for name, value in self.raw_params.items()}

    def tag(self, name: str, value: Any) -> None:
        """Leave a remark for the access log and whoever observes."""
        if self.tags is None:
            self.tags = {}
        self.tags[name] = value

    def on_start(self, function: OnStart) -> None:
        """Call `function(exchange, message)` when the head leaves; it may edit the message. Last registered
        runs first.
        """
        if self._starts is None:
            self._starts = [function]
        else:
            self._starts.append(function)

    def on_end(self, function: OnEnd) -> None:
        """Call `function(exchange)` once at the true end of the request, however it ends. Last registered
        runs first.
        """
        if self._ends is None:
            self._ends = [function]
        else:
            self._ends.append(function)

    # It only passes on what the server's send gives to await: a coroutine of its own would cost a
    # microsecond per message.
    def send(self, message: Message) -> Any:
        """The outermost `send` of the request."""
        kind = message["type"]
        if kind == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        elif kind == "http.response.start" or kind == "websocket.http.response.start":
            self.status = message["status"]
            if self._starts is not None:
                message["headers"] = list(message.get("headers", ()))
                for function in reversed(self._starts):
                    function(self, message)
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close":
            self.complete = True
            self.status = self.status or 403
        elif kind == "websocket.http.response.body":
            self.complete = not message.get("more_body", False)
        return self._send(message)

    def cut(self, why: "Cut") -> None:
        """End the request from outside: with a problem if nothing was sent yet, else by cutting it."""
        if self.task is not None and self.cut_for is None:
            self.cut_for = why
            self.task.cancel()

    def end(self, now: float) -> None:
        """The request is over. Called once, by the gateway."""
        self.ended = now
        if self._ends is not None:
            for function in reversed(self._ends):
                try:
                    function(self)
                except Exception:
                    logger.exception("request %s: %r failed at its end", self.id, function)

    def fork(self, send: Send) -> "Exchange":
        """An exchange for a call beside the main one (mirror, composition): same caller, own calls, own
        answer.
        """
        twin = Exchange(self.scope, send, self.started)
        for name in (
            "route",
            "raw_params",
            "path",
            "host",
            "authority",
            "client",
            "scheme",
            "trusted",
            "forwarded",
            "principal",
            "deadline",
        ):
            setattr(twin, name, getattr(self, name))
        twin.id = self.id
        return twin

    def __repr__(self) -> str:
        return (
            f"<Exchange {self._id or '-'} route={self.route!r} status={self.status} outcome={self.outcome}>"
        )
