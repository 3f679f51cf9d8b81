"""An upstream that fails is left alone for a while, and then tried with care."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_gateway.call import CALL, Call
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.errors import UpstreamError
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.stage import Stage
from asgi_gateway.units import Span, Time

from ..failing import BLAMELESS, Status

if TYPE_CHECKING:
    from .circuit import Circuit

Share = Annotated[float, Field(gt=0, le=1)]

RESTING = "The upstream is given time to recover."


class Breaker(
    Component, name="breaker", stage=Stage.PROTECT, serves=frozenset({"http", "websocket"}), refuses=True
):
    """Refuses calls with 503 while too many of them fail or are slow, then admits a few to try.

    It judges calls when their answers begin: no connection, a reset, a timeout or a status out of a set is
    a failure, and so is an answer that breaks; what a caller does wrong is none.
    """

    failure_rate: Share | None = 0.5
    """The part of the calls in the window whose failure opens the circuit, 0 to 1; `null`: none does."""
    slow_rate: Share | None = None
    """The part of the calls in the window whose slowness opens it, 0 to 1; `null`: none does."""
    slow_call: Span = 1.0
    """After so long a call whose answer has not begun is slow. Waiting for a connection or in a `bulkhead`
    counts."""
    minimum_calls: Annotated[int, Field(ge=1)] = 20
    """Calls in the window below which the rates are not looked at."""
    window: Span = 10.0
    """How far back calls count."""
    failures: Annotated[int, Field(ge=1)] | None = None
    """Failures in a row that open it, however few calls there are; `null`: none do."""
    statuses: tuple[Status, ...] = (500, 502, 503, 504)
    """Answers that are failures."""
    open_for: Span = 10.0
    """How long no call is made when it is open."""
    trials: Annotated[int, Field(ge=1)] = 3
    """Calls that are made then: when all of them are well it closes, when one is not it is open again."""
    ramp: Time = 0.0
    """How long it takes until all calls are admitted after it has closed: a share that grows evenly."""
    by: Literal["upstream", "route"] = "upstream"
    """One circuit for the upstream, or one for each route that leads to it."""

    @model_validator(mode="after")
    def opens(self) -> "Breaker":
        if self.failure_rate is None and self.slow_rate is None and self.failures is None:
            raise ValueError("it never opens: give failure_rate, slow_rate or failures")
        return self

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        from .circuit import Circuit, Circuits, Rule

        rule = Rule(
            failures=self.failures,
            failure_rate=self.failure_rate,
            slow_rate=self.slow_rate,
            minimum_calls=self.minimum_calls,
            window=self.window,
            open_for=self.open_for,
            trials=self.trials,
            ramp=self.ramp,
        )
        owner = build.owner
        if self.by == "upstream":
            only = build.keep(("circuit", rule), lambda: Circuit(owner, rule))
            circuits = None
        else:
            circuits = build.keep(
                ("circuits", rule),
                lambda: Circuits(lambda route: Circuit(f"{owner}, route {route}", rule)),
            )
        refuse, monotonic = build.refuse(app), build.clock.monotonic
        statuses, slow_call = frozenset(self.statuses), self.slow_call

        async def breaker(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            call: Call = scope[CALL]
            circuit = only if circuits is None else circuits.of(exchange.route)
            now = monotonic()
            ticket = circuit.enter(now)
            if not ticket:
                wait = ((b"retry-after", b"%d" % circuit.retry_after(now)),)
                await refuse(scope, receive, send, Refusal(503, "circuit_open", wait, RESTING))
                return
            trial = Trial(circuit, ticket, now + slow_call)

            def judge(call: Call, message: Message) -> None:
                trial.begin(
                    monotonic(),
                    failed=message.get("status", 101) in statuses,
                    lasts=call.streaming or message["type"] != "http.response.start",
                )

            call.judge(judge)
            try:
                await app(scope, receive, send)
                trial.end()
            except UpstreamError as error:
                if blames(error, call, exchange):
                    trial.fail(monotonic())
                raise
            except asyncio.CancelledError:
                # Its time is over, or the caller has left. Who takes the answer slowly is no fault of it.
                late = call.expired
                if late is not None and (call.owing or not call.started) and blames(late, call, exchange):
                    trial.fail(monotonic())
                raise
            finally:
                trial.leave()

        return breaker


def blames(error: UpstreamError, call: Call, exchange: Exchange) -> bool:
    """Whether a failure says something about the upstream: not if its caller was late with the body, or if
    the time was over before it was asked.
    """
    if error.reason == "total_timeout":
        return error.phase != "pool" and (call.body_read or call.owing or not exchange.has_body)
    return error.reason not in BLAMELESS


class Trial:
    """One call through a circuit."""

    __slots__ = ("_circuit", "_owed", "_slice", "_slow_at", "_ticket")

    def __init__(self, circuit: "Circuit", ticket: int, slow_at: float) -> None:
        self._circuit = circuit
        self._ticket = ticket
        self._slow_at = slow_at
        self._owed = self._slice = 0

    def begin(self, now: float, *, failed: bool, lasts: bool) -> None:
        """Its answer begins. With `lasts` that is all that counts: nobody knows how a stream should end."""
        ticket, self._ticket = self._ticket, 0
        if not ticket:
            return
        place = self._circuit.settle(ticket, now, failed=failed, slow=now >= self._slow_at, whole=lasts)
        if not failed and not lasts:
            self._owed, self._slice = ticket, place

    def fail(self, now: float) -> None:
        """It ended without an answer, or in the middle of a good one."""
        if self._ticket:
            self.begin(now, failed=True, lasts=False)
        elif self._owed:
            self._circuit.spoil(self._owed, self._slice, now)

    def end(self) -> None:
        """Its answer is complete."""
        if self._owed:
            self._circuit.finish(self._owed)

    def leave(self) -> None:
        """Give the place back, if nothing is known."""
        if self._ticket:
            self._circuit.leave(self._ticket)
            self._ticket = 0
