"""One fetch that several callers wait for: it goes on as long as one of them is there."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, Protocol

from asgi_gateway.asgi import Header, Message, Scope, Send, header, is_stream
from asgi_gateway.component import Refusal
from asgi_gateway.errors import Aborted
from asgi_gateway.exchange import EXCHANGE, Exchange, Outcome

from .policy import Asked

if TYPE_CHECKING:
    from .offering import Offer
    from .shelf import Entry, Key

State = Literal["waits", "keeps", "passes", "answers", "released", "failed"]
"""What is known of the answer: nothing; it is kept; it is for the first caller alone; it is one that is kept;
nobody waits for it any more; there will be none.
"""

logger = logging.getLogger("asgi_gateway")


class Unwanted(Exception):
    """Raised out of `send`: nobody wants this answer."""


class Decide(Protocol):
    """Says what becomes of an answer whose head is there."""

    def __call__(self, flight: "Flight", message: Message) -> State: ...


class Flight:
    """What one fetch came to so far, and who waits for it."""

    __slots__ = (
        "_decide",
        "_readers",
        "_room",
        "_waiters",
        "asked",
        "base",
        "began",
        "calls",
        "cause",
        "chunks",
        "complete",
        "counted",
        "entry",
        "fields",
        "found",
        "headers",
        "key",
        "leader",
        "limit",
        "marks",
        "name",
        "note",
        "offer",
        "outcome",
        "over",
        "overflowed",
        "overflows",
        "purged",
        "refused",
        "scope",
        "size",
        "stale",
        "start",
        "state",
        "status",
        "store",
        "tags",
        "task",
        "timer",
        "waiting",
    )

    def __init__(
        self, name: "Key", base: "Key", key: "Key", scope: Scope, asked: Asked, decide: Decide
    ) -> None:
        self.name = name
        """By what others find it."""
        self.base = base
        self.key = key
        """Under which its answer is kept, unless that varies by more; `base` is without what it varies by."""
        self.scope: Scope | None = scope
        """What is sent upstream, while it is."""
        self.headers: list[Header] = scope["headers"]
        """Of the request that began it."""
        self.asked = asked
        self._decide = decide
        self.state: State = "waits"
        self.leader: Send | None = None
        """Who began it, if still there: gets what nobody else may have."""
        self.waiting = 0
        """Callers that are there."""
        self.stale: Entry | None = None
        """What is kept already, and is asked about."""
        self.offer: Offer | None = None
        """What is kept already, for whoever answers instead of an upstream that fails."""
        self.entry: Entry | None = None
        """What the callers are answered with."""
        self.note = b""
        """How that came about, for Cache-Status."""
        self.start: Message = {}
        self.status = 0
        self.fields: tuple[bytes, ...] = ()
        """By which fields the answer varies."""
        self.found = False
        """Whether the answer is out of the store, and nobody asked the origin."""
        self.chunks: list[bytes] = []
        self.size = 0
        """Bytes of the body so far."""
        self.limit = 0
        """The largest body that is kept."""
        self.overflows: Callable[[Flight, int], bool] | None = None
        self.counted = 0
        self.store: Callable[[Flight], None] | None = None
        """What keeps it, once it is complete."""
        self.complete = False
        """Whether the last byte is there."""
        self.over = False
        """Whether it ended, well or not."""
        self.overflowed = False
        """Whether it is too large: now it goes as fast as the slowest of those who wait."""
        self.purged = False
        """Whether it was asked before it was purged: it is not kept."""
        self.began = 0.0
        self.calls: list[Any] = []
        self.marks: tuple[bytes, ...] = ()
        """What was purged last when it began, in a store that is shared."""
        self.outcome: Outcome = "answered"
        self.cause = ""
        self.refused: Refusal | None = None
        self.tags: dict[str, Any] | None = None
        """What components behind the cache remarked."""
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._readers: list[Reader] = []
        self._room: asyncio.Future[None] | None = None

    # The fetch

    async def run(self, fetch: Callable[["Flight"], Coroutine[Any, Any, None]]) -> None:
        """The task of the fetch. What goes wrong is told to those who wait, never raised."""
        try:
            await fetch(self)
        except Unwanted:
            pass
        except Aborted as error:
            exchange = self.scope[EXCHANGE] if self.scope is not None else None
            self.outcome, self.cause = "aborted", exchange.cause if exchange is not None else str(error)
        except Exception as error:
            self.outcome, self.cause = "failed", type(error).__name__
            logger.error("a fetch for the cache failed", exc_info=error)
        finally:
            self.end()

    def end(self) -> None:
        """It is over, well or not, or never began."""
        self.over = True
        if self.state == "waits":
            self.state = "failed"
        self.scope = self.task = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.wake()

    async def take(self, message: Message) -> None:
        """The `send` of the fetch."""
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            self.start = message
            self.decide(self._decide(self, message))
            if self.state == "passes" and self.leader is not None:
                await self.leader(self.start)
        elif kind == "http.response.body":
            body, more = message.get("body", b""), message.get("more_body", False)
            if self.state == "keeps":
                await self._gather(body, more)
            elif self.state == "passes" and self.leader is not None:
                await self.leader(message)
                self.complete = not more
            elif self.state == "released":
                raise Unwanted
        elif kind == "http.response.trailers" and self.state == "passes" and self.leader is not None:
            await self.leader(message)

    def decide(self, state: State) -> None:
        """Now it is known what it comes to."""
        self.state = state
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        exchange: Exchange | None = self.scope[EXCHANGE] if self.scope is not None else None
        if exchange is not None:
            self.outcome, self.cause = exchange.outcome, exchange.cause
            self.refused, self.tags = exchange.refused, exchange.tags
            self.calls = list(exchange.calls)
        if state == "passes" and self.leader is None and self.outcome == "answered":
            # It is for one who has left, and for nobody else.
            self.state = "released"
            self.wake()
            raise Unwanted
        self.wake()

    async def _gather(self, body: bytes, more: bool) -> None:
        if body:
            self.chunks.append(body)
            self.size += len(body)
            if not self.overflowed and self.overflows is not None and self.overflows(self, len(body)):
                self.overflowed = True
        if not more:
            self.complete = True
            if not self.overflowed and self.store is not None:
                self.store(self)
        self.wake()
        while self.overflowed and more and self._lags():
            if not self.waiting:
                raise Unwanted
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _lags(self) -> bool:
        """Whether somebody has not taken yet what is there; what all have taken is let go of."""
        there = len(self.chunks)
        if any(reader.at < there for reader in self._readers):
            return True
        self.chunks.clear()
        for reader in self._readers:
            reader.at = 0
        return False

    # Those who wait

    def wake(self) -> None:
        """Something has changed."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def change(self) -> None:
        """Wait until something has changed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def join(self, reader: "Reader") -> None:
        self.waiting += 1
        self._readers.append(reader)

    def leave(self, reader: "Reader") -> bool:
        """A caller is served, or has left. The last one ends the fetch: then nobody may join it any more."""
        self._readers.remove(reader)
        self.waiting -= 1
        if reader.leads:
            self.leader = None
        if not self.over and not self.complete and self.task is not None:
            if self.waiting == 0 or (reader.leads and self.state == "passes"):
                self.task.cancel()
                return True
            self.took()
        return False

    def took(self) -> None:
        """A caller has taken what there was."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def release(self) -> None:
        """It takes too long: those who wait with the first caller go their own ways, together."""
        self.timer = None
        if self.state == "waits":
            for reader in self._readers:
                reader.released = not reader.leads
            self.wake()

    def purge(self) -> None:
        """What it asks about, and what it brings, may be what was purged."""
        self.purged = True
        if self.offer is not None and self.scope is not None:
            self.scope[EXCHANGE].stale = None

    async def abandon(self) -> None:
        """End it, whoever waits."""
        task = self.task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait((task,))


class Reader:
    """One caller of a fetch."""

    __slots__ = ("at", "leads", "released")

    def __init__(self, leads: bool) -> None:
        self.at = 0
        """Pieces of the body that were taken."""
        self.leads = leads
        """Whether the fetch began with this one."""
        self.released = False


def is_kept_whole(headers: list[Header], limit: int) -> bool:
    """Whether a body of this length, as far as it is known, is neither too large nor endless."""
    length = header(headers, b"content-length")
    if length is not None and length.isdigit() and int(length) > limit:
        return False
    return not is_stream(headers)
