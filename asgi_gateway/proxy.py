"""The only place that sends a request upstream and streams the response back."""

from collections.abc import Awaitable, Callable

from .asgi import ASGIApp, Receive, Scope, Send, is_stream
from .call import CALL, Call
from .clock import Clock
from .errors import Discarded, UpstreamError
from .exchange import EXCHANGE, HOST, Exchange
from .forwarding import Style, writer
from .hops import NO_TRAILER
from .paths import strip_root
from .transport import Answer
from .upstream import Pool, Target

EMPTY = frozenset({204, 304})
FIELD = b": ".join
TAKES_TRAILERS = (b"te: trailers", b"connection: te")  # RFC 9110 10.1.4


Tunnel = Callable[[Target, Scope, Receive, Send], Awaitable[None]]


def proxy(
    pool: Pool,
    *,
    host: str,
    forwarded: Style,
    tunnel: Tunnel,
    max_open: int,
    deadline_header: str = "",
    clock: Clock | None = None,
) -> ASGIApp:
    """The endpoint of an upstream with targets: an ASGI app that runs inside a boundary.

    `max_open`: WebSockets to one target. `deadline_header`: where a target is told how long it has.
    """
    head = heads(host, forwarded)
    if deadline_header:
        head = with_deadline(head, deadline_header.encode(), (clock or Clock()).monotonic)
    timed, monotonic = pool.timed, pool.monotonic

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        call: Call = scope[CALL]
        target = pool.pick(scope, call.attempts)
        call.attempts.append(target)
        target.active += 1
        asked = monotonic() if timed else 0.0
        try:
            if scope["type"] != "http":
                if target.tunnels >= max_open:
                    raise UpstreamError(
                        "pool_full", "pool", f"{max_open} WebSockets to {target.name} are open"
                    )
                target.tunnels += 1
                try:
                    await tunnel(target, scope, receive, send)
                finally:
                    target.tunnels -= 1
                pool.answered(target, call.status)
                return
            transport = target.transport
            if transport is None:
                assert target.local is not None
                await target.local.serve(scope, receive, send)
                if timed:
                    target.took((now := monotonic()) - asked, now)
                pool.answered(target, call.status)
                return
            exchange: Exchange = scope[EXCHANGE]
            answer = await transport.send(
                scope["method"], head(scope, exchange, target), receive if exchange.has_body else None, call
            )
            if timed:
                target.took((now := monotonic()) - asked, now)
            try:
                await relay(answer, call, send, trailers=exchange.trailers)
            finally:
                answer.close()
            pool.answered(target, answer.status)
        except Discarded as discarded:
            pool.answered(target, discarded.answered)
            raise
        except UpstreamError as error:
            # Nobody blames a target for a caller who does not send the whole request.
            if call.body_read or error.reason != "total_timeout":
                pool.failed(target, error)
            raise
        finally:
            target.active -= 1

    return proxy


async def relay(answer: Answer, call: Call, send: Send, *, trailers: bool) -> None:
    """Stream an answer to the caller: nothing is held back, nothing is read before there is room for it.

    `trailers`: whether the caller takes them, and the server can send them.
    """
    status, headers = answer.status, answer.headers
    if status in EMPTY:
        # A length without a body: servers would wait for it. RFC 9110 15.4.5 allows to leave it out.
        headers = [pair for pair in headers if pair[0] != b"content-length"]
    elif not answer.complete and is_stream(headers):
        call.streaming = True
    complete = answer.complete
    body = answer.take()
    trailers = trailers and answer.chunked
    await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": trailers})
    while not complete:
        if body:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        body = await answer.read()
        complete = answer.complete
        if complete:
            body += answer.take()
    await send({"type": "http.response.body", "body": body})
    if trailers:
        fields = [pair for pair in answer.trailers if pair[0] not in NO_TRAILER]
        await send({"type": "http.response.trailers", "headers": fields})


Head = Callable[[Scope, Exchange, Target], bytes]


def with_deadline(head: Head, name: bytes, monotonic: Callable[[], float]) -> Head:
    """Tell the target how many milliseconds are left. UpstreamError: there are none."""

    def with_deadline(scope: Scope, exchange: Exchange, target: Target) -> bytes:
        call: Call = scope[CALL]
        if (left := int((call.deadline - monotonic()) * 1000)) <= 0:
            raise UpstreamError("total_timeout", "pool")
        return b"%b%b: %d\r\n\r\n" % (head(scope, exchange, target)[:-2], name, left)

    return with_deadline


def heads(host: str, forwarded: Style) -> Head:
    """A function that writes the head of a request as it goes to a target."""
    forwarding = writer(forwarded)
    literal = b"" if host in ("preserve", "target") else host.encode()

    def head(scope: Scope, exchange: Exchange, target: Target) -> bytes:
        path = scope["raw_path"]
        root = scope.get("root_path")
        if root:
            path = strip_root(path.decode("ascii"), root).encode("ascii")
        if query := scope["query_string"]:
            path = b"%b?%b" % (path, query)
        headers = scope["headers"]
        name = literal or target.authority
        if HOST in scope:
            pass
        elif not exchange.authority:
            # HTTP/1.0 may leave it out; what goes upstream is HTTP/1.1.
            headers = [(b"host", name), *headers]
        elif host != "preserve":
            headers = [pair if pair[0] != b"host" else (b"host", name) for pair in headers]
        lines = [b"%b %b HTTP/1.1" % (scope["method"].encode(), path), *map(FIELD, headers)]
        lines += map(FIELD, forwarding(exchange, exchange.authority))
        if exchange.trailers:
            lines += TAKES_TRAILERS
        lines.append(b"\r\n")
        return b"\r\n".join(lines)

    return head
