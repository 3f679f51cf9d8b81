"""The only place that knows what happened to one call to an upstream."""

from asyncio import Future, Task
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .asgi import Message, Receive, Scope, Send
from .config import TimeoutConfig
from .errors import Phase, Rejected, UpstreamError

if TYPE_CHECKING:
    from .ticker import PerTry
    from .upstream import Target

CALL = "asgi_gateway.call"

Judge = Callable[["Call", Message], None]
Failure = UpstreamError | Rejected
Rescue = Callable[[Scope, Receive, Send, "Call", Failure], Awaitable[bool]]

HANDSHAKEN = ("websocket.accept", "websocket.http.response.start")


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
