"""Fetches what is not kept, decides who may have it, and keeps it."""

import asyncio
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from functools import partial
from hashlib import blake2b
from typing import Any

from asgi_gateway.asgi import ASGIApp, Header, Message, Receive, Scope, Send, header
from asgi_gateway.clock import Clock
from asgi_gateway.consumers import Principal
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.hops import end_to_end

from .flight import Flight, State, is_kept_whole
from .offering import Offer
from .policy import (
    CONDITIONS,
    FAILURES,
    NOT_KEPT,
    Asked,
    Rules,
    conditional,
    term,
    unconditional,
    updated,
    varying,
)
from .second import Second
from .shelf import Entry, Key, Shelf

PASSING = 10.0
"""Seconds for which it is remembered that the answers of a URL are not kept: nobody waits for them."""
MOST_TAGS = 64
LONGEST_TAG = 256
VOLATILE = frozenset({"exp", "iat", "nbf", "jti", "auth_time"})
"""Claims that differ from token to token of one caller."""

Spawn = Callable[[Coroutine[Any, Any, None]], bool]


def identify(principal: Principal) -> str:
    """Who is calling, as the key of what only this caller may see."""
    if not principal.claims and not principal.scopes:
        return f"{principal.method} {principal.consumer}"
    claims = sorted((name, repr(said)) for name, said in principal.claims.items() if name not in VOLATILE)
    said = repr((principal.consumer, principal.groups, principal.scopes, claims))
    return blake2b(said.encode(), digest_size=16).hexdigest()


class Fetcher:
    """What one cache at its place in a chain asks the second level and the origin."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        place: str,
        shelf: Shelf,
        rules: Rules,
        clock: Clock,
        spawn: Spawn,
        label: str,
        max_entry: int,
        wait: float,
        tags: bytes,
        second: Second | None,
    ) -> None:
        self._app = app
        self._place = place
        self.shelf = shelf
        self._rules = rules
        self._monotonic, self._time = clock.monotonic, clock.time
        self._spawn = spawn
        self._label = label.encode()
        self._max_entry = max_entry
        self._wait = wait
        self._tags = tags
        self._second = second

    # What a request asks for

    def asked(self, headers: list[Header]) -> Asked:
        return Asked.of(headers, obeyed=self._rules.obey_callers)

    def key(self, scope: Scope, exchange: Exchange) -> Key:
        return (
            self._place,
            exchange.upstream,
            "" if self._rules.shared or exchange.principal is None else identify(exchange.principal),
            exchange.scheme,
            exchange.authority.lower(),
            scope["raw_path"],
            scope["query_string"],
        )

    def status(self, text: bytes) -> list[Header]:
        """The field that says what the cache did (RFC 9211)."""
        return [(b"cache-status", b"%b; %b" % (self._label, text))] if self._label else []

    def _may_see(self, entry: Entry, asked: Asked) -> bool:
        """Whether an answer may be given to a caller with credentials that only the origin knows."""
        if asked.authorization and not entry.term.open_to_all:
            return False
        return not (asked.cookie and entry.term.guessed and not self._rules.shared)

    # The fetch

    def _begin(
        self,
        scope: Scope,
        name: Key,
        base: Key,
        key: Key,
        stale: Entry | None,
        asked: Asked,
        leader: Send | None,
    ) -> Flight:
        flight = Flight(name, base, key, scope, asked, self._decide)
        flight.leader, flight.stale = leader, stale
        flight.limit = self._max_entry
        flight.overflows, flight.store = self._overflows, self._keep
        flight.began = self._monotonic()
        self.shelf.flights[name] = flight
        self.shelf.aloft.add(flight)
        if leader is not None:
            flight.task = asyncio.get_running_loop().create_task(flight.run(self._fetch))
            flight.task.add_done_callback(partial(self._ended, flight))
        return flight

    def _ended(self, flight: Flight, task: "asyncio.Task[None] | None" = None) -> None:
        """The fetch is over, or was never begun."""
        shelf = self.shelf
        shelf.aloft.discard(flight)
        self._land(flight)
        shelf.filling -= flight.counted
        flight.counted = 0
        if not flight.over:
            flight.end()

    def _land(self, flight: Flight) -> None:
        """Nobody may join it any more."""
        if self.shelf.flights.get(flight.name) is flight:
            del self.shelf.flights[flight.name]

    def _refresh(self, scope: Scope, entry: Entry) -> None:
        """Fetch an answer anew beside the requests (RFC 5861 3)."""
        if entry.refreshing:
            return
        exchange: Exchange = scope[EXCHANGE]
        asked = self.asked(scope["headers"])
        base = self.key(scope, exchange)
        key, _ = self.shelf.find(base, scope["headers"])
        name = (*key, asked.authorization, asked.cookie, False)
        if name in self.shelf.flights:
            return
        flight = self._begin({**scope, "method": "GET"}, name, base, key, entry, asked, None)
        entry.refreshing = self._spawn(self._beside(flight, entry, exchange.fork(flight.take)))
        if not entry.refreshing:
            self._ended(flight)

    async def _beside(self, flight: Flight, entry: Entry, twin: Exchange) -> None:
        flight.task = asyncio.current_task()
        try:
            await flight.run(partial(self._fetch, twin=twin))
        finally:
            entry.refreshing = False
            self._ended(flight)

    async def _fetch(self, flight: Flight, twin: Exchange | None = None) -> None:
        """Ask the second level, then the origin."""
        scope = flight.scope
        assert scope is not None
        exchange: Exchange = scope[EXCHANGE]
        if self._second is not None and await self._find(flight, self._second):
            return
        if b"only-if-cached" in flight.asked.directives:
            return
        if twin is None:
            twin = exchange.fork(flight.take)
        twin.upstream, twin.foreign, twin.task = exchange.upstream, False, flight.task
        if flight.leader is None:
            twin.deadline = float("inf")  # that of the caller is not its own
        else:
            twin.trailers = exchange.trailers
        stale = flight.stale
        if stale is not None and not flight.purged and stale.may_stand_in(flight.began):
            flight.offer = Offer(stale)
            twin.stale = flight.offer.give
        headers = scope["headers"]
        if stale is not None:
            headers = conditional(headers, stale.headers)
        elif not CONDITIONS.isdisjoint([name for name, _ in headers]):
            headers = unconditional(headers)
        flight.scope = {**scope, EXCHANGE: twin, "headers": headers, "extensions": {}}
        try:
            await self._app(flight.scope, no_body(), twin.send)
        finally:
            twin.end(self._monotonic())

    async def _find(self, flight: Flight, second: Second) -> bool:
        """Whether the second level had it."""
        flight.marks, found = await second.find(flight.base, flight.headers)
        if found is None or flight.purged:
            return False
        fields, entry = found
        now = self._monotonic()
        if not self._may_see(entry, flight.asked):
            return False
        key = self.shelf.vary(flight.base, fields, flight.headers)
        self.shelf.keep(flight.base, key, entry)
        left = entry.fresh_until - now
        if left > 0 and flight.asked.takes(now - entry.made, left, entry.term):
            flight.entry, flight.key, flight.note = entry, key, b"hit; ttl=%d; detail=shared" % left
            flight.fields, flight.found = fields, True
            flight.decide("answers")
            return True
        if flight.stale is None or entry.made > flight.stale.made:
            flight.stale, flight.key = entry, key
        return False

    def _decide(self, flight: Flight, message: Message) -> State:
        """The head of the answer is there: who may have it?"""
        assert flight.scope is not None
        exchange: Exchange = flight.scope[EXCHANGE]
        status: int = message["status"]
        headers: list[Header] = list(message["headers"])
        now = self._monotonic()
        stale = flight.stale
        why = self._why(flight)
        if flight.offer is not None and flight.offer.taken:
            assert stale is not None
            came = stale.made + stale.term.age
            fields = flight.offer.marked(headers)
            flight.entry = Entry(stale.status, fields, stale.body, stale.term, came)
            flight.note = b"fwd=%b; detail=fallback" % why
            self._land(flight)
            return "answers"
        failed = exchange.outcome == "upstream_failed" or status in FAILURES
        if stale is not None and failed and now < stale.if_error_until and not flight.purged:
            flight.entry = stale
            flight.note = b"fwd=stale; fwd-status=%d; detail=stale-if-error" % status
            exchange.outcome = "answered"
            self._land(flight)
            return "answers"
        if stale is not None and status == 304:
            return self._validated(flight, stale, headers, now)
        flight.note = why
        delay = now - flight.began
        found = None
        if exchange.outcome == "answered" and exchange.refused is None:
            found = term(status, headers, flight.asked, self._rules, now=self._time(), delay=delay)
        if found is None or not is_kept_whole(headers, self._max_entry):
            self._land(flight)
            # Where a cause is named, something else answers in place of the origin, which said nothing.
            if status < 500 and exchange.outcome == "answered" and not exchange.cause:
                if stale is not None:
                    self.shelf.forget(flight.key)
                self.shelf.passing[flight.name] = now + PASSING
            message["headers"] = [
                *without(headers, self._tags),
                *self.status(b"fwd=%b; fwd-status=%d" % (why, status)),
            ]
            return "passes"
        flight.fields = varying(headers)
        flight.key = self.shelf.vary(flight.base, flight.fields, flight.headers)
        kept = self._fields(headers)
        ages = [pair for pair in headers if pair[0] == b"age"]
        flight.start = {"type": message["type"], "status": status, "headers": kept + ages}
        flight.entry = Entry(status, kept, b"", found, now, self._tags_of(headers))
        return "keeps"

    def _why(self, flight: Flight) -> bytes:
        """Why the origin is asked (RFC 9211 2.2)."""
        if flight.stale is not None:
            return b"stale" if flight.stale.fresh_until <= flight.began else b"request"
        return b"vary-miss" if len(flight.key) > len(flight.base) else b"uri-miss"

    def _fields(self, headers: list[Header]) -> list[Header]:
        """What is kept of the fields of an answer (RFC 9111 3.1)."""
        kept = [pair for pair in end_to_end(headers) if pair[0] not in NOT_KEPT and pair[0] != self._tags]
        if not any(name == b"date" for name, _ in kept):
            kept.append((b"date", http_date(self._time())))
        return kept

    def _tags_of(self, headers: list[Header]) -> tuple[bytes, ...]:
        said = b" ".join([value for name, value in headers if name == self._tags]) if self._tags else b""
        tags = [tag for tag in said.replace(b",", b" ").split() if len(tag) <= LONGEST_TAG]
        return tuple(dict.fromkeys(tags))[:MOST_TAGS]

    def _validated(self, flight: Flight, stale: Entry, headers: list[Header], now: float) -> State:
        """The origin says that what is kept is still good."""
        fields = updated(stale.headers, self._fields(headers))
        delay = now - flight.began
        judged = [*fields, *[pair for pair in headers if pair[0] == b"age"]]
        found = term(stale.status, judged, flight.asked, self._rules, now=self._time(), delay=delay)
        flight.note = b"fwd=stale; fwd-status=304"
        if found is None:
            # It says now that it must not be kept; those who wait may have it all the same.
            self.shelf.forget(flight.key)
            flight.entry = Entry(stale.status, fields, stale.body, stale.term, now)
        else:
            flight.entry = Entry(stale.status, fields, stale.body, found, now, stale.tags)
            flight.fields = varying(fields)
            flight.key = self.shelf.vary(flight.base, flight.fields, flight.headers)
            if not flight.purged:
                self._put(flight, flight.entry)
        self._land(flight)
        return "answers"

    def _overflows(self, flight: Flight, more: int) -> bool:
        """Whether a body is too large to be kept, or all that is being fetched is."""
        shelf = self.shelf
        shelf.filling += more
        flight.counted += more
        if flight.size <= flight.limit and shelf.filling <= shelf.most:
            return False
        shelf.filling -= flight.counted
        flight.counted = 0
        self._land(flight)
        return True

    def _keep(self, flight: Flight) -> None:
        """The answer is complete."""
        head = flight.entry
        self._land(flight)
        if head is None or flight.purged:
            return
        headers, body = head.headers, b"".join(flight.chunks)
        length = header(headers, b"content-length")
        if length is None:
            if head.status != 204:
                headers = [*headers, (b"content-length", b"%d" % len(body))]
        elif length != b"%d" % len(body):
            return
        came = head.made + head.term.age
        self._put(flight, Entry(head.status, headers, body, head.term, came, head.tags))

    def _put(self, flight: Flight, entry: Entry) -> None:
        self.shelf.passing.pop(flight.name, None)
        self.shelf.keep(flight.base, flight.key, entry)
        if self._second is not None:
            self._spawn(self._second.keep(flight.base, flight.fields, flight.headers, entry, flight.marks))


def without(headers: list[Header], name: bytes) -> list[Header]:
    return [pair for pair in headers if pair[0] != name] if name else headers


def no_body() -> Receive:
    """A `receive` of a request that has none, and of a caller who does not leave: that ends the task."""
    told = False

    async def receive() -> Message:
        nonlocal told
        if told:
            await asyncio.get_running_loop().create_future()
        told = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


def http_date(now: float) -> bytes:
    return formatdate(now, usegmt=True).encode()
