"""The only place that defines what can go wrong, and which HTTP status a failing upstream gets.

GatewayError
  ConfigError      a declaration that cannot be built: every problem, each with its place
  UpstreamError    a call to an upstream failed; boundary.py turns it into a response
    Discarded      an answer came, and somebody wants another one in its place
  Rejected         a component of an upstream refused; boundary.py turns that into a response, too
  ControlError     a call of the gateway itself, to a key server for example, failed
  CallerLeft       the caller went away: there is nobody to answer
  Aborted          it failed after the first byte: the connection has to be cut
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .component import Refusal

Reason = Literal[
    "connect_failed",  # refused, unreachable, name not found
    "connect_timeout",
    "tls_failed",
    "tls_timeout",
    "write_timeout",  # it takes no more of the request
    "head_timeout",  # its answer does not begin
    "reset",  # the connection ended in the middle
    "protocol_error",  # what came back is not HTTP
    "idle_timeout",  # its answer does not go on
    "total_timeout",  # the deadline of the call passed
    "no_target",  # no target is there to be asked
    "pool_full",  # too many callers wait for a connection already
    "pool_timeout",  # waited too long for a connection
    "exhausted",  # no more files can be opened here
    "raised",  # an ASGI application in this process raised
    "incomplete",  # an ASGI application returned before it had answered
    "bad_status",  # the status of its answer means failure here
]

Phase = Literal["pool", "connect", "tls", "write", "head", "body"]

STATUS_OF_REASON: dict[Reason, int] = {
    "connect_failed": 502,
    "connect_timeout": 504,
    "tls_failed": 502,
    "tls_timeout": 504,
    "write_timeout": 504,
    "head_timeout": 504,
    "reset": 502,
    "protocol_error": 502,
    "idle_timeout": 504,
    "total_timeout": 504,
    "no_target": 503,
    "pool_full": 503,
    "pool_timeout": 503,
    "exhausted": 503,
    "raised": 500,
    "incomplete": 500,
    "bad_status": 502,
}


class GatewayError(Exception):
    """Anything that this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a declaration: what, where, and what to do about it."""

    what: str
    where: str = ""
    hint: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        parts = [part for part in (place, self.where, self.what) if part]
        return ": ".join(parts) + (f" ({self.hint})" if self.hint else "")


class ConfigError(GatewayError):
    """A declaration that cannot be built. `problems` holds all that was found, not only the first."""

    def __init__(self, problems: str | Problem | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class UpstreamError(GatewayError):
    """A call to an upstream failed. `sent`: the request may have reached it, so that repeating it may do it
    twice.
    """

    def __init__(self, reason: Reason, phase: Phase, detail: str = "", *, sent: bool = False) -> None:
        super().__init__(reason, phase, detail)
        self.reason = reason
        self.phase = phase
        self.detail = detail
        self.sent = sent

    @property
    def status(self) -> int:
        return STATUS_OF_REASON[self.reason]

    def __str__(self) -> str:
        return f"{self.reason} in phase {self.phase}" + (f": {self.detail}" if self.detail else "")


class Discarded(UpstreamError):
    """An attempt ended at the head of its answer: a judge wants another answer. Raised out of `send`."""

    def __init__(self, answered: int) -> None:
        super().__init__("bad_status", "head", f"it answered {answered}", sent=True)
        self.answered = answered


class Rejected(GatewayError):
    """A component in the chain of an upstream refused the request: what stands outside may still help."""

    def __init__(self, refusal: "Refusal") -> None:
        super().__init__(refusal.component, refusal.reason)
        self.refusal = refusal

    @property
    def reason(self) -> str:
        return self.refusal.reason


class ControlError(GatewayError):
    """A call of the gateway itself failed: timeout, unreachable, unavailable, too_large, too_many_calls."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class Aborted(GatewayError):
    """The response had begun and cannot be finished: a server cuts the connection, never ends it cleanly."""


class CallerLeft(GatewayError):
    """The caller went away in the middle: there is nobody to answer any more."""
