"""Copies of requests: bounded, counted, and nobody waits for them."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send, is_stream
from asgi_gateway.exchange import EXCHANGE, Exchange

from .comparing import Answer, Comparison

logger = logging.getLogger("asgi_gateway")

MINUTE = 60.0


class Enough(Exception):
    """Raised out of `send`: nobody reads the rest of this answer."""


class Shadow:
    """What one mirror has on its way, and what became of the rest. It outlives reloads."""

    def __init__(self, place: str, upstream: str) -> None:
        self._place = place
        self._upstream = upstream
        self.active = 0
        """Copies that are recorded or on their way."""
        self.counts: Counter[str] = Counter()
        """Since the last report."""
        self.reported = 0
        """Differences in the log since the last report."""

    def drop(self, exchange: Exchange, why: str) -> None:
        self.counts[f"dropped: {why}"] += 1
        exchange.tag("mirror", f"dropped: {why}")

    def differs(self, exchange: Exchange, method: str, where: str, most: int) -> None:
        self.counts["different"] += 1
        if self.reported < most:
            self.reported += 1
            logger.warning(
                "mirror of %s to %s: %s %s, request %s: differs in %s",
                *(self._place, self._upstream, method, exchange.path, exchange.id, where),
            )

    async def run(self) -> None:
        """Say once in a minute what happened."""
        while True:
            await asyncio.sleep(MINUTE)
            self.report()

    def report(self) -> None:
        if self.counts:
            told = ", ".join(f"{many} {what}" for what, many in sorted(self.counts.items()))
            logger.info("mirror of %s to %s, in a minute: %s", self._place, self._upstream, told)
            self.counts.clear()
        self.reported = 0


@dataclass(frozen=True, slots=True)
class Copier:
    """What all copies of one mirror have in common."""

    shadow: Shadow
    upstream: str
    end: ASGIApp
    spawn: Callable[[Any], bool]
    monotonic: Callable[[], float]
    timeout: float
    max_body: int
    max_copies: int
    rewrite: Callable[[Scope], Scope]
    comparison: Comparison | None
    max_answer: int
    reports: int

    def copy(self, scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """Copy a request, and give what its own chain goes on with."""
        exchange: Exchange = scope[EXCHANGE]
        if self.shadow.active >= self.max_copies:
            self.shadow.drop(exchange, "too many")
            return receive, send
        self.shadow.active += 1
        answers = Answers(send, self.max_answer) if self.comparison is not None else None
        if answers is not None:
            exchange.on_end(answers.ended)
            send = answers.send
        if not exchange.has_body:
            self.launch(scope, [], answers)
            return receive, send
        if (replay := exchange.replay) is not None and replay.whole:
            # Others have read it before, and nobody may ask `receive` for it any more.
            if replay.size > self.max_body:
                self.leave(exchange, "too large")
            else:
                self.launch(scope, list(replay.chunks), answers)
            return receive, send
        tee = Tee(self, scope, receive, answers)
        exchange.on_end(tee.ended)
        return tee.receive, send

    def launch(self, scope: Scope, chunks: list[bytes], answers: "Answers | None") -> None:
        """Send a copy on its way."""
        exchange: Exchange = scope[EXCHANGE]
        if self.spawn(self.run(scope, chunks, answers)):
            exchange.tag("mirror", self.upstream)
        else:
            self.leave(exchange, "too many")

    def leave(self, exchange: Exchange, why: str) -> None:
        """A copy that was begun is not sent."""
        self.shadow.active -= 1
        self.shadow.drop(exchange, why)

    async def run(self, scope: Scope, chunks: list[bytes], answers: "Answers | None") -> None:
        shadow, exchange = self.shadow, scope[EXCHANGE]
        sink = Sink(self.max_answer if answers is not None else 0)
        twin: Exchange = exchange.fork(sink.send)
        twin.upstream, twin.has_body, twin.foreign = self.upstream, exchange.has_body, False
        twin.deadline = self.monotonic() + self.timeout
        inner = {**self.rewrite(scope), EXCHANGE: twin, "extensions": {}}
        try:
            outcome = await self.call(inner, chunks, twin, sink)
            shadow.counts["copied"] += 1
            shadow.counts[outcome] += 1
            if outcome == "answered" and answers is not None:
                await self.compare(exchange, scope["method"], answers, sink.answer)
        finally:
            shadow.active -= 1
            twin.end(self.monotonic())

    async def call(self, scope: Scope, chunks: list[bytes], twin: Exchange, sink: "Sink") -> str:
        """Send the copy, and read its answer to the end."""
        try:
            await self.end(scope, replayed(chunks), twin.send)
        except Enough:
            return "answered"
        except Exception:
            logger.debug("a copy of request %s failed", twin.id, exc_info=True)
            return "failed"
        return "failed" if twin.outcome == "upstream_failed" else "answered"

    async def compare(self, exchange: Exchange, method: str, answers: "Answers", its: Answer) -> None:
        assert self.comparison is not None
        await answers.done
        mine = answers.answer
        if mine.incomparable or its.incomparable or not (mine.complete and its.complete):
            self.shadow.counts["not compared"] += 1
        elif where := self.comparison.difference(mine, its):
            self.shadow.differs(exchange, method, where, self.reports)
        else:
            self.shadow.counts["equal"] += 1


class Tee:
    """Records the body of a request while its own upstream reads it."""

    __slots__ = ("_answers", "_chunks", "_copier", "_receive", "_scope", "_size")

    def __init__(self, copier: Copier, scope: Scope, receive: Receive, answers: "Answers | None") -> None:
        self._copier = copier
        self._scope: Scope | None = scope
        """Until the copy is on its way, or will never be: the exchange knows this object, too."""
        self._receive = receive
        self._answers = answers
        self._chunks: list[bytes] = []
        self._size = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if self._scope is not None and message["type"] == "http.request":
            self._record(self._scope, message)
        return message

    def _record(self, scope: Scope, message: Message) -> None:
        if chunk := message.get("body", b""):
            self._size += len(chunk)
            self._chunks.append(chunk)
        if self._size > self._copier.max_body:
            self._scope, self._chunks = None, []
            self._copier.leave(scope[EXCHANGE], "too large")
        elif not message.get("more_body", False):
            self._scope, chunks = None, self._chunks
            self._copier.launch(scope, chunks, self._answers)
            self._chunks = []

    def ended(self, exchange: Exchange) -> None:
        if self._scope is not None:
            self._scope, self._chunks = None, []
            self._copier.leave(exchange, "incomplete")


class Answers:
    """Records the answer that the caller gets."""

    __slots__ = ("_send", "answer", "done")

    def __init__(self, send: Send, cap: int) -> None:
        self._send: Send | None = send
        self.answer = Answer(cap)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(self, message: Message) -> Any:
        self.answer.add(message)
        if self.answer.incomparable and not self.done.done():
            self.done.set_result(None)
        assert self._send is not None
        return self._send(message)

    def ended(self, exchange: Exchange) -> None:
        # The exchange knows this object, and `send` the exchange.
        self._send = None
        if not self.done.done():
            self.done.set_result(None)


class Sink:
    """Reads an answer and throws it away."""

    __slots__ = ("answer",)

    def __init__(self, cap: int) -> None:
        self.answer = Answer(cap)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and is_stream(message.get("headers", ())):
            self.answer.incomparable = True
            raise Enough
        self.answer.add(message)


def replayed(chunks: list[bytes]) -> Receive:
    """A `receive` that gives what was recorded; nobody leaves."""
    position = 0

    async def receive() -> Message:
        nonlocal position
        if position and position >= len(chunks):
            await asyncio.Event().wait()
        body = chunks[position] if chunks else b""
        position += 1
        return {"type": "http.request", "body": body, "more_body": position < len(chunks)}

    return receive
