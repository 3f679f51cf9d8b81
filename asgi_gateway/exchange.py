"""The only place that knows what happened to one request (Exchange) and to one call to an upstream (Call)."""

import logging
from asyncio import Future, Task
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .asgi import Header, Headers, Message, Receive, Scope, Send
from .component import Refusal
from .config import TimeoutConfig
from .consumers import Principal
from .errors import Phase, Rejected, UpstreamError
from .ids import new_id
from .paths import decode

if TYPE_CHECKING:
    from .replay import Replay
    from .ticker import PerTry
    from .upstream import Target

EXCHANGE = "asgi_gateway.exchange"
CALL = "asgi_gateway.call"
HOST = "asgi_gateway.host"
"""The Host that an upstream gets where a component chose one (bytes); it stands among the headers, too."""

Outcome = Literal["answered", "refused", "upstream_failed", "aborted", "caller_left", "failed"]
Cut = Literal["configuration_expired", "shutdown", "total_timeout"]
OnStart = Callable[["Exchange", Message], None]
OnEnd = Callable[["Exchange"], None]
Judge = Callable[["Call", Message], None]
Failure = UpstreamError | Rejected
Rescue = Callable[[Scope, Receive, Send, "Call", Failure], Awaitable[bool]]
Stale = Callable[[Scope, Send], Awaitable[None]]

HANDSHAKEN = ("websocket.accept", "websocket.http.response.start")

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


class Call:
    """One call to one upstream: its deadline, what was tried, and who judges the answer."""

    __slots__ = (
        "_judges",
        "_send",
        "attempts",
        "began",
        "body_read",
        "deadline",
        "discarded",
        "expired",
        "left",
        "limit",
        "owing",
        "per_try",
        "phase",
        "receive",
        "rescues",
        "silence",
        "started",
        "status",
        "streaming",
        "task",
        "timeouts",
        "upstream",
        "waiter",
        "watcher",
    )

    def __init__(
        self,
        upstream: str,
        send: Send,
        began: float,
        deadline: float,
        task: "Task[Any] | None",
        timeouts: TimeoutConfig = TimeoutConfig(),  # noqa: B008  # it is frozen
    ) -> None:
        self.upstream = upstream
        self.timeouts = timeouts
        """How long each phase may take."""
        self._send = send
        self._judges: list[Judge] | None = None
        self.rescues: list[Rescue] | None = None
        self.discarded: Exception | None = None
        """Why a judge ended the attempt: whatever else its app wants to send is not sent."""
        self.deadline = deadline
        """Monotonic seconds by which the whole call is over; only ever shrinks."""
        self.attempts: list[Target] = []
        self.started = False
        """Whether the head of an answer went out: from now on failing means cutting."""
        self.status = 0
        self.streaming = False
        """Whether the deadline no longer counts: an event stream or a WebSocket that began keeps flowing."""
        self.silence = float("inf")
        """Monotonic seconds by which an app of this process has to go on with its event stream."""
        # What the ticker looks at: the future that the task waits for, until when, and in which phase.
        self.waiter: Future[Any] | None = None
        self.limit = float("inf")
        self.phase: Phase = "pool"
        self.per_try: PerTry | None = None
        """How long the attempt may take that is made, where a component bounds it."""
        self.owing = False
        """Whether it is an app of this process that is waited for, and not its caller."""
        self.task = task
        self.expired: UpstreamError | None = None
        """Why the ticker cancelled the task: its time is over."""
        self.body_read = False
        """Whether the whole body of the request was read: only then somebody else may call `receive`."""
        self.began = began
        # On servers that do not cancel: what tells that the caller left, who listens to it, and whether it
        # happened.
        self.receive: Receive | None = None
        self.watcher: Task[None] | None = None
        self.left = False

    @staticmethod
    def of(scope: Scope) -> "Call":
        """The call that a scope belongs to."""
        call: Call = scope[CALL]
        return call

    def judge(self, function: Judge) -> None:
        """Show the head of each attempt to `function(call, message)`; raising discards the attempt. Innermost
        first. The heads are those of `http.response.start`, `websocket.accept` and denied handshakes.
        """
        if self._judges is None:
            self._judges = [function]
        else:
            self._judges.append(function)

    def rescue(self, function: Rescue) -> None:
        """When the call has failed and nothing was sent, ask `function(scope, receive, send, call, failure)`
        to answer instead; it says whether it did. Innermost first, when the call is over.
        """
        if self.rescues is None:
            self.rescues = [function]
        else:
            self.rescues.append(function)

    def again(self, judge: Judge) -> None:
        """Make ready for another attempt: forget the last one, and the judges further in than `judge`."""
        self.discarded = None
        self.streaming = self.owing = False
        self.silence = self.limit = float("inf")
        self.status = 0
        self.phase = "pool"
        assert self._judges is not None
        del self._judges[self._judges.index(judge) + 1 :]

    def shorten(self, deadline: float) -> None:
        """Bring the deadline forward; it never moves back."""
        if deadline < self.deadline:
            self.deadline = deadline

    def send(self, message: Message) -> Any:
        """The one `send` wrapper of an upstream's chain."""
        if not self.started:
            if self.discarded is not None:
                raise self.discarded
            kind = message["type"]
            if kind == "http.response.start" or kind in HANDSHAKEN:
                if self._judges is not None:
                    self._show(message)
                self.status = message.get("status", 101)
            # Not before it goes out: who stands outside may still want another answer.
            sending = self._send(message)
            self.started = True
            return sending
        return self._send(message)

    def _show(self, message: Message) -> None:
        assert self._judges is not None
        try:
            for function in reversed(self._judges):
                function(self, message)
        except Exception as error:
            self.discarded = error
            raise

    def close(self) -> None:
        """The call is over. Lets go of what would tie a knot: exchange -> call -> send -> exchange."""
        self._send = closed
        if self.watcher is not None:
            self.watcher.cancel()
        self._judges = self.rescues = self.discarded = None
        self.waiter = self.task = self.receive = self.watcher = None

    def __repr__(self) -> str:
        return (
            f"<Call {self.upstream!r} attempts={len(self.attempts)} status={self.status} phase={self.phase}>"
        )


async def closed(message: Message) -> None:
    raise RuntimeError(f"{message['type']!r} was sent after the call to the upstream was over")
