"""Gives a caller what a fetch came to, and notices that he leaves."""

import asyncio

from asgi_gateway.asgi import RETRY_SOON, Header, Receive, Scope, Send, answer, problem
from asgi_gateway.boundary import DETAILS
from asgi_gateway.errors import Aborted
from asgi_gateway.exchange import EXCHANGE, Exchange

from .flight import Flight, Reader

PATIENCE = 0.05
"""Seconds that pass before somebody looks: most callers are served until then."""


class FetchFailed(Exception):
    """A component behind the cache failed, while it answered for several callers."""


class Departure:
    """Notices after a while that a caller leaves, where the server does not cancel his request."""

    __slots__ = ("_exchange", "_receive", "_task", "_timer")

    def __init__(self, exchange: Exchange, receive: Receive) -> None:
        self._exchange = exchange
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._exchange.task is not None:
            self._exchange.left = True
            self._exchange.task.cancel()

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


async def stream(flight: Flight, reader: Reader, send: Send, status: list[Header]) -> None:
    """Send an answer while it comes; a part of one never looks like all of it."""
    headers = [*flight.start["headers"], *status]
    await send({"type": "http.response.start", "status": flight.status, "headers": headers})
    while True:
        body = b"".join(flight.chunks[reader.at :])
        reader.at = len(flight.chunks)
        complete, broken = flight.complete, flight.over and not flight.complete
        if body or complete:
            await send({"type": "http.response.body", "body": body, "more_body": not complete})
        if complete:
            return
        if broken:
            raise Aborted(flight.cause or "the answer of the upstream broke off")
        flight.took()
        if reader.at == len(flight.chunks) and not flight.complete and not flight.over:
            await flight.change()


def told(flight: Flight, exchange: Exchange) -> None:
    """Tell the exchange of a caller what came of the fetch."""
    if flight.outcome != "answered":
        exchange.outcome = flight.outcome
        exchange.refused = flight.refused
    exchange.cause = flight.cause
    if flight.tags:
        exchange.tags = {**flight.tags, **(exchange.tags or {})}


async def fail(flight: Flight, scope: Scope, send: Send) -> None:
    """The upstream failed, for all who waited."""
    exchange: Exchange = scope[EXCHANGE]
    body = problem(
        flight.status,
        flight.cause,
        DETAILS.get(flight.cause, ""),
        request_id=exchange.id,
        route=exchange.route,
        upstream=exchange.upstream,
    )
    await answer(scope, send, flight.status, body, RETRY_SOON if flight.status == 503 else ())
