"""Answers callers from what is kept, and out of fetches that they share."""

import asyncio
from collections.abc import Awaitable
from functools import partial
from urllib.parse import urljoin, urlsplit

from asgi_gateway.asgi import Header, Message, Receive, Scope, Send, answer, problem
from asgi_gateway.errors import Aborted
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.store import StoreError

from .delivery import Departure, FetchFailed, fail, stream, told
from .fetching import Fetcher, without
from .flight import Flight, Reader, is_kept_whole
from .offering import Offer
from .policy import (
    NOTHING,
    SAFE,
    WITH_304,
    Asked,
    chosen,
    has_not_changed,
    term,
    varying,
)
from .second import Second
from .shelf import Entry, Key, Url

TRIES = 3
"""How often a request may find out that what it waited for is not for it."""
DEMANDS = frozenset({b"no-cache", b"max-age", b"min-fresh"})
"""What callers say who want better than stale."""


class Desk(Fetcher):
    """One cache at its place in a chain."""

    async def serve(self, scope: Scope, receive: Receive, send: Send, base: Key, asked: Asked) -> None:
        """Answer a GET or HEAD that is not simply a hit."""
        exchange: Exchange = scope[EXCHANGE]
        if asked.passes or exchange.has_body:
            if b"only-if-cached" in asked.directives:
                await not_cached(scope, send)
                return
            await self._pass(scope, receive, send, b"fwd=bypass")
            return
        for _ in range(TRIES):
            key, entry = self.shelf.find(base, scope["headers"])
            if entry is not None and not self._may_see(entry, asked):
                await self._pass(scope, receive, send, b"fwd=bypass")
                return
            if entry is not None and self._is_good(entry, asked, scope):
                await self.hit(scope, send, entry, asked)
                return
            if scope["method"] == "HEAD":
                await self._head(scope, receive, send, entry, asked)
                return
            if b"only-if-cached" in asked.directives and self._second is None:
                await not_cached(scope, send)
                return
            if await self._miss(scope, receive, send, base, key, entry, asked):
                return
        await self._pass(scope, receive, send, b"fwd=miss")

    def _is_good(self, entry: Entry, asked: Asked, scope: Scope) -> bool:
        """Whether it can be used as it is; what is stale, and may be used for a while, is fetched anew."""
        now = self._monotonic()
        left = entry.fresh_until - now
        if asked.takes(now - entry.made, left, entry.term):
            return True
        if left > 0 or not DEMANDS.isdisjoint(asked.directives) or now >= entry.revalidate_until:
            return False
        self._refresh(scope, entry)
        return True

    # From what is kept

    async def hit(
        self, scope: Scope, send: Send, entry: Entry, asked: Asked = NOTHING, note: bytes = b""
    ) -> None:
        """Answer with what is kept; with 304, if the caller has it already."""
        now = self._monotonic()
        headers = entry.headers
        status, body = entry.status, entry.body
        if (asked.if_none_match or asked.if_modified_since) and has_not_changed(status, headers, asked):
            status, body = 304, b""
            headers = [pair for pair in headers if pair[0] in WITH_304]
        elif scope["method"] == "HEAD":
            body = b""
        exchange: Exchange = scope[EXCHANGE]
        exchange.tag("cache", "stale" if entry.fresh_until <= now else "hit")
        age = max(0.0, now - entry.made)
        text = note or b"hit; ttl=%d" % (entry.fresh_until - now)
        headers = [*headers, (b"age", b"%d" % age), *self.status(text)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    # From the origin

    def _pass(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        text: bytes,
        entry: Entry | None = None,
        asked: Asked = NOTHING,
    ) -> Awaitable[None]:
        """To the origin and back, past everything that is kept. If it fails, `entry` may be better."""
        exchange: Exchange = scope[EXCHANGE]
        exchange.tag("cache", "pass")
        if entry is not None and entry.may_stand_in(self._monotonic()):
            offer = Offer(entry, asked)
            exchange.stale = offer.give
            exchange.on_start(partial(self._mark_offered, offer, entry, text))
        else:
            exchange.on_start(partial(mark, self.status(text), self._tags))
        return self._app(scope, receive, send)

    def _mark_offered(
        self, offer: Offer, entry: Entry, text: bytes, exchange: Exchange, message: Message
    ) -> None:
        if not offer.taken:
            mark(self.status(text), self._tags, exchange, message)
            return
        now = self._monotonic()
        exchange.tag("cache", "stale" if entry.fresh_until <= now else "hit")
        fields = offer.marked(message["headers"])
        status = self.status(b"%b; detail=fallback" % text)
        message["headers"] = [*fields, (b"age", b"%d" % max(0.0, now - entry.made)), *status]

    async def change(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request that may change what is kept: the answer says whether it did (RFC 9111 4.4)."""
        exchange: Exchange = scope[EXCHANGE]
        if scope["method"] not in SAFE:
            exchange.on_start(partial(self._changed, scope))
        await self._pass(scope, receive, send, b"fwd=method")

    def _changed(self, scope: Scope, exchange: Exchange, message: Message) -> None:
        if not 200 <= message["status"] < 400 or exchange.refused is not None:
            return
        url = (exchange.scheme, exchange.authority.lower(), scope["raw_path"], scope["query_string"])
        urls = {url}
        for name, value in message["headers"]:
            if name in (b"location", b"content-location") and (other := beside(url, value)) is not None:
                urls.add(other)
        self.shelf.purge_urls(urls)
        if self._second is not None:
            self._spawn(self._second.changed({found[2:] for found in urls}))

    async def _head(
        self, scope: Scope, receive: Receive, send: Send, entry: Entry | None, asked: Asked
    ) -> None:
        """A HEAD that cannot be answered here. It is not kept: it has no body."""
        if b"only-if-cached" in asked.directives:
            await not_cached(scope, send)
            return
        why = b"fwd=uri-miss"
        if entry is not None:
            why = b"fwd=stale" if entry.fresh_until <= self._monotonic() else b"fwd=request"
        await self._pass(scope, receive, send, why, entry, asked)

    async def _miss(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        base: Key,
        key: Key,
        stale: Entry | None,
        asked: Asked,
    ) -> bool:
        """Fetch it, or wait for somebody who does. False: what came is for others; go again."""
        exchange: Exchange = scope[EXCHANGE]
        name = (*key, asked.authorization, asked.cookie, b"only-if-cached" in asked.directives)
        until = self.shelf.passing.get(name)
        if until is not None and until > self._monotonic():
            exchange.on_start(partial(self._look_again, name, asked))
            await self._pass(scope, receive, send, b"fwd=uri-miss", stale, asked)
            return True
        flight = self.shelf.flights.get(name)
        leads = flight is None
        if flight is None:
            flight = self._begin(scope, name, base, key, stale, asked, send)
        elif flight.timer is None and flight.state == "waits":
            flight.timer = asyncio.get_running_loop().call_later(self._wait, flight.release)
        reader = Reader(leads)
        flight.join(reader)
        departure = Departure(exchange, receive) if exchange.foreign else None
        try:
            while flight.state == "waits" and not reader.released:
                await flight.change()
            done = await self._deliver(flight, reader, scope, receive, send, key, asked)
        finally:
            if departure is not None:
                departure.stop()
            if flight.leave(reader):
                self._land(flight)
        if done is None:
            why = b"fwd=stale; collapsed" if stale is not None else b"fwd=uri-miss; collapsed"
            await self._pass(scope, receive, send, why, stale, asked)
            return True
        return done

    async def _deliver(
        self,
        flight: Flight,
        reader: Reader,
        scope: Scope,
        receive: Receive,
        send: Send,
        key: Key,
        asked: Asked,
    ) -> bool | None:
        """Give a caller what the fetch came to. False: go again; None: to the origin, alone."""
        exchange: Exchange = scope[EXCHANGE]
        if reader.released and flight.state == "waits":
            return None
        if reader.leads:
            exchange.calls.extend(flight.calls)
        if flight.entry is not None and not reader.leads and not self._is_for(flight, scope, asked):
            return False
        if flight.state == "answers" and flight.entry is not None:
            told(flight, exchange)
            await self.hit(scope, send, flight.entry, asked, flight.note)
            return True
        if flight.state == "keeps":
            told(flight, exchange)
            await self._stream(flight, reader, scope, send, asked)
            return True
        if flight.state == "passes":
            if reader.leads:
                exchange.tag("cache", "pass")
                while not flight.over:
                    await flight.change()
                told(flight, exchange)
                if not flight.complete:
                    raise Aborted(flight.cause)
                return True
            if flight.outcome == "upstream_failed":
                told(flight, exchange)
                await fail(flight, scope, send)
                return True
            return None
        if b"only-if-cached" in asked.directives and flight.outcome == "answered":
            await not_cached(scope, send)
            return True
        if reader.leads:
            raise FetchFailed(flight.cause or "it was ended")
        return None

    def _is_for(self, flight: Flight, scope: Scope, asked: Asked) -> bool:
        """Whether what one caller fetched is what another one wants."""
        entry = flight.entry
        assert entry is not None
        fields = varying(entry.headers)
        if flight.overflowed or chosen(fields, scope["headers"]) != chosen(fields, flight.headers):
            return False
        if not flight.found:
            return True
        now = self._monotonic()
        return asked.takes(now - entry.made, entry.fresh_until - now, entry.term)

    async def _stream(self, flight: Flight, reader: Reader, scope: Scope, send: Send, asked: Asked) -> None:
        exchange: Exchange = scope[EXCHANGE]
        exchange.tag("cache", "miss")
        text = b"fwd=%b; fwd-status=%d%b" % (
            flight.note,
            flight.status,
            b"; stored" if reader.leads else b"; collapsed",
        )
        if has_not_changed(flight.status, flight.start["headers"], asked):
            while not (flight.over or flight.complete or flight.overflowed):
                reader.at = len(flight.chunks)
                await flight.change()
            headers = [pair for pair in flight.start["headers"] if pair[0] in WITH_304]
            await send({"type": "http.response.start", "status": 304, "headers": headers + self.status(text)})
            await send({"type": "http.response.body", "body": b""})
            return
        await stream(flight, reader, send, self.status(text))

    def _look_again(self, name: Key, asked: Asked, exchange: Exchange, message: Message) -> None:
        """What was not kept for a while may be kept now: the next caller fetches it for all."""
        if exchange.outcome != "answered" or exchange.refused is not None:
            return
        headers = message["headers"]
        if not is_kept_whole(headers, self._max_entry):
            return
        if term(message["status"], headers, asked, self._rules, now=self._time()) is not None:
            self.shelf.passing.pop(name, None)

    # By an operator

    async def purge(self, *, url: str = "", tag: str = "") -> int:
        """Forget the answers to a URL, those with a tag, or all of this component; how many there were.

        A URL may be a path: then the host does not matter.
        """
        if url and tag:
            raise ValueError("purge by url or by tag, not by both")
        if url.startswith("/"):
            path, _, query = url.encode().partition(b"?")
            gone = self.shelf.purge_path(path, query)
            tell = partial(Second.purge_paths, paths=[(path, query)])
        elif url:
            parts = urlsplit(url)
            if not parts.scheme or not parts.netloc:
                raise ValueError(f"{url!r} is neither a URL nor a path that begins with /")
            wanted = (
                parts.scheme,
                parts.netloc.lower().encode(),
                parts.path.encode() or b"/",
                parts.query.encode(),
            )
            gone = self.shelf.purge_urls([wanted])
            tell = partial(Second.purge_paths, paths=[wanted[2:]])
        elif tag:
            gone = self.shelf.purge_tag(tag.encode())
            tell = partial(Second.purge_tag, tag=tag.encode())
        else:
            gone = self.shelf.purge_place(self._place)
            tell = partial(Second.purge_place, place=self._place)
        try:
            if self._second is not None:
                await tell(self._second)
        except StoreError as error:
            raise StoreError(
                f"the store is away ({error}): in the memory of this process {gone} answers were purged, but"
                " the store and other processes may still have what was meant; purge again when it is there",
                asked=error.asked,
            ) from error
        return gone


def mark(status: list[Header], tags: bytes, exchange: Exchange, message: Message) -> None:
    """Say in an answer that goes past the cache what the cache did."""
    message["headers"] = [*without(message["headers"], tags), *status]


def beside(url: Url, value: bytes) -> Url | None:
    """The URL that a Location means, if it has the same origin (RFC 9111 4.4)."""
    scheme, authority, path, _ = url
    try:
        parts = urlsplit(
            urljoin(
                f"{scheme}://{authority.decode('latin-1')}{path.decode('latin-1')}", value.decode("latin-1")
            )
        )
    except ValueError:
        return None
    if parts.scheme != scheme or parts.netloc.lower().encode("latin-1") != authority:
        return None
    return scheme, authority, parts.path.encode("latin-1") or b"/", parts.query.encode("latin-1")


async def not_cached(scope: Scope, send: Send) -> None:
    """What callers are told who want nothing but what is kept (RFC 9111 5.2.1.7)."""
    exchange: Exchange = scope[EXCHANGE]
    text = "No answer is kept that this request could be given."
    body = problem(504, "not_cached", text, request_id=exchange.id, route=exchange.route)
    await answer(scope, send, 504, body)
