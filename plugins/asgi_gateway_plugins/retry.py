"""A failed attempt is made once more, at another target, where that can do no harm."""

import asyncio
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from random import Random
from typing import Annotated, Literal

from pydantic import Field, field_validator

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send, header
from asgi_gateway.call import CALL, Call
from asgi_gateway.component import Build, Component
from asgi_gateway.config import Methods, Model
from asgi_gateway.errors import Discarded, UpstreamError
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.replay import Replay
from asgi_gateway.stage import Stage
from asgi_gateway.ticker import PerTry
from asgi_gateway.units import Size, Span, Time

from .failing import IDEMPOTENT, Status, reasons

WINDOW = 10
"""Seconds over which a budget counts."""


class Allowance(Model):
    """How many retries an upstream gets in all, so that they do not finish it off when it is in trouble."""

    percent: Annotated[float, Field(ge=0, le=100)] = 20.0
    """Retries, as a part of the calls in ten seconds."""
    minimum: Annotated[int, Field(ge=0)] = 3
    """Retries in ten seconds that are allowed however few calls there are."""


class Budget:
    """Counts calls and retries in a window of ten seconds that moves by the second."""

    __slots__ = ("_calls", "_now", "_retries", "_share", "calls", "least", "retries")

    def __init__(self, share: float, least: int) -> None:
        """`share`: retries to a call; `least`: retries that are always allowed."""
        self._share = share
        self.least = least
        self._now = 0
        self._calls = [0] * WINDOW
        self._retries = [0] * WINDOW
        self.calls = 0
        self.retries = 0

    def call(self, now: float) -> None:
        """A call begins."""
        if (second := int(now)) > self._now:
            self._advance(second)
        self._calls[self._now % WINDOW] += 1
        self.calls += 1

    def take(self, now: float) -> bool:
        """Whether there may be one more retry; it is counted then."""
        if (second := int(now)) > self._now:
            self._advance(second)
        if self.retries + 1 > max(self.least, self.calls * self._share):
            return False
        self._retries[self._now % WINDOW] += 1
        self.retries += 1
        return True

    def _advance(self, second: int) -> None:
        for passed in range(max(self._now, second - WINDOW) + 1, second + 1):
            place = passed % WINDOW
            self.calls -= self._calls[place]
            self.retries -= self._retries[place]
            self._calls[place] = self._retries[place] = 0
        self._now = second


class Retry(Component, name="retry", stage=Stage.RETRY, serves=frozenset({"http", "websocket"})):
    """Tries a call again that failed before its answer began, at another target where there is one.

    What may have reached a target is only repeated if its method is idempotent, and never without its
    whole body.
    """

    attempts: Annotated[int, Field(ge=2, le=10)] = 2
    """How often a call is tried in all, the first time included."""
    on: tuple[Literal["connect", "reset", "timeout", "busy", "error"], ...] = ("connect", "reset", "timeout")
    """Failures after which it is tried again: `connect` (no connection), `reset` (it ended before the answer,
    or what came is not HTTP), `timeout` (the target does not read, or its answer does not begin), `busy` (no
    connection became free), `error` (an app in this process raised)."""
    statuses: tuple[Status, ...] = (502, 503, 504)
    """Answers that count as failures: after the last attempt the caller gets them."""
    methods: Methods = IDEMPOTENT
    """Methods of requests that may be executed twice. All others are tried again only if nothing was sent."""
    max_body: Size = 64 * 1024
    """Bytes of a body that are held for another attempt; a request with more is tried once."""
    back_off: Time = 0.025
    """The longest pause before the second attempt; it doubles with each. The pause is random, from 0 on."""
    max_back_off: Time = 0.25
    """Where it stops to double."""
    max_retry_after: Time = 1.0
    """How long a target may ask to be left alone by Retry-After. If it asks for more, the caller is told."""
    per_try: Span | None = None
    """How long an attempt may take until its answer begins, pauses not included; `null`: only `timeout` of
    the upstream bounds it."""
    budget: Allowance = Allowance()
    """How many retries the upstream gets in all."""

    @field_validator("methods")
    @classmethod
    def no_tunnels(cls, methods: Methods) -> Methods:
        if "CONNECT" in methods:
            raise ValueError("CONNECT is not served here")
        return methods

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        share, least = self.budget.percent / 100, self.budget.minimum
        budget = build.keep(("budget", share, least), partial(Budget, share, least))
        rule, methods, most = Rule(self, budget, build), frozenset(self.methods), self.max_body
        within, monotonic = self.per_try, build.clock.monotonic

        async def retry(scope: Scope, receive: Receive, send: Send) -> None:
            call: Call = scope[CALL]
            exchange: Exchange = scope[EXCHANGE]
            budget.call(call.began)
            replay: Replay | Knock | None = None
            if scope["type"] != "http":
                replay, safe = Knock(receive), True
                receive = replay.receive
            else:
                safe = scope["method"] in methods
                if exchange.has_body:
                    replay = Replay(receive)
                    receive = replay.reader(most)
            attempts = Attempts(rule, replay, safe)
            judge = attempts.judge
            call.judge(judge)
            while True:
                if within is not None:
                    body = replay if isinstance(replay, Replay) else None
                    call.per_try = PerTry(within, monotonic(), body)
                # Where it discarded an answer, that is decided, whatever comes out of the app.
                try:
                    await app(scope, receive, send)
                    if not attempts.more:
                        return
                except UpstreamError as error:
                    if not attempts.more and not attempts.go_on(call, error):
                        raise
                except Exception:
                    if not attempts.more:
                        raise
                except asyncio.CancelledError:
                    if (late := overdue(call)) is None:
                        raise
                    if not attempts.more and not attempts.go_on(call, late):
                        raise late from None
                call.per_try = None
                await asyncio.sleep(attempts.pause)
                call.again(judge)
                attempts.more = False
                receive = Replay(receive, empty=True).reader() if replay is None else replay.reader(most)

        return retry


def overdue(call: Call) -> UpstreamError | None:
    """Why the attempt was cancelled, if its own time was over and nobody else wants the request to end."""
    limit, error, task = call.per_try, call.expired, call.task
    if limit is None or error is None or error is not limit.error or task is None:
        return None
    call.expired = None
    return None if task.uncancel() else error


class Knock:
    """The one message with which a WebSocket begins, for each attempt anew."""

    __slots__ = ("_known", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._known: Message | None = None

    lost = False

    async def receive(self) -> Message:
        message = await self._receive()
        if self._known is None:
            self._known = message
        return message

    def reader(self, keep: int = 0) -> Receive:
        """A `receive` that begins with it again."""
        told = self._known is None

        async def receive() -> Message:
            nonlocal told
            if not told and self._known is not None:
                told = True
                return self._known
            return await self.receive()

        return receive


class Rule:
    """What is the same for all calls."""

    __slots__ = (
        "_back_off",
        "_dice",
        "_max_back_off",
        "_max_retry_after",
        "_monotonic",
        "_time",
        "attempts",
        "budget",
        "reasons",
        "statuses",
    )

    def __init__(self, options: Retry, budget: Budget, build: Build) -> None:
        self.attempts = options.attempts
        self.reasons = reasons(options.on) - {"total_timeout"}
        self.statuses = frozenset(options.statuses)
        self.budget = budget
        self._back_off = options.back_off
        self._max_back_off = options.max_back_off
        self._max_retry_after = options.max_retry_after
        self._monotonic = build.clock.monotonic
        self._time = build.clock.time
        self._dice = build.dice

    def pause(self, call: Call, tried: int, wanted: bytes | None) -> float:
        """Seconds until another attempt, which takes one from the budget; below 0: there is none.

        `wanted`: the field Retry-After of the answer.
        """
        least = 0.0 if wanted is None else seconds(wanted, self._time())
        if least > self._max_retry_after:
            return -1.0
        pause = max(least, pause_before(tried, self._back_off, self._max_back_off, self._dice))
        now = self._monotonic()
        return pause if now + pause < call.deadline and self.budget.take(now) else -1.0


class Attempts:
    """The attempts of one call."""

    __slots__ = ("_replay", "_rule", "_safe", "_tried", "more", "pause")

    def __init__(self, rule: Rule, replay: Replay | Knock | None, safe: bool) -> None:
        self._rule = rule
        self._replay = replay
        self._safe = safe
        self._tried = 1
        self.more = False
        """Whether there will be another attempt."""
        self.pause = 0.0
        """Seconds until then."""

    def judge(self, call: Call, message: Message) -> None:
        """Discard a bad answer while there can be another one."""
        status = message.get("status", 101)
        if (
            status in self._rule.statuses
            and self._safe
            and self._can(call, header(message.get("headers", ()), b"retry-after"))
        ):
            raise Discarded(status)

    def go_on(self, call: Call, error: UpstreamError) -> bool:
        """Whether a failure before the answer leads to another attempt."""
        if call.started or error.reason not in self._rule.reasons:
            return False
        return (self._safe or not error.sent) and self._can(call, None)

    def _can(self, call: Call, wanted: bytes | None) -> bool:
        if self._tried >= self._rule.attempts or (self._replay is not None and self._replay.lost):
            return False
        pause = self._rule.pause(call, self._tried, wanted)
        if pause < 0:
            return False
        self._tried += 1
        self.pause, self.more = pause, True
        return True


def pause_before(tried: int, first: float, most: float, dice: Random) -> float:
    """Seconds before the next attempt after so many: at random up to a bound that doubles (full jitter).

    Callers that failed together come back apart.
    """
    return dice.uniform(0, min(most, first * 2 ** (tried - 1)))


def seconds(value: bytes, now: float) -> float:
    """What Retry-After asks for (RFC 9110 10.2.3); 0 if it is neither a number nor a date."""
    if value.isdigit():
        return float(value[:12])
    try:
        when = parsedate_to_datetime(value.decode("latin-1"))
        # One without a zone is in GMT, too (5.6.7).
        return max(0.0, (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
