"""The only place that sends a request upstream and streams the response back."""

from collections.abc import Awaitable, Callable

from .asgi import ASGIApp, Headers, Receive, Scope, Send
from .errors import UpstreamError
from .exchange import CALL, EXCHANGE, Call, Exchange
from .forwarding import Style, writer
from .hops import end_to_end
from .paths import strip_root
from .transport import Answer
from .upstream import Pool, Target

EMPTY = frozenset({204, 304})


Tunnel = Callable[[Target, Scope, Receive, Send], Awaitable[None]]


def proxy(pool: Pool, *, host: str, forwarded: Style, tunnel: Tunnel) -> ASGIApp:
    """The endpoint of an upstream with targets: an ASGI app that runs inside a boundary."""
    head = heads(host, forwarded)

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        call: Call = scope[CALL]
        target = pool.pick(call.attempts)
        call.attempts.append(target)
        target.active += 1
        try:
            if scope["type"] != "http":
                await tunnel(target, scope, receive, send)
                pool.succeeded(target, call.status)
                return
            transport = target.transport
            if transport is None:
                assert target.local is not None
                await target.local.serve(scope, receive, send)
                pool.succeeded(target, call.status)
                return
            exchange: Exchange = scope[EXCHANGE]
            answer = await transport.send(
                scope["method"], head(scope, exchange, target), receive if exchange.has_body else None, call
            )
            try:
                pool.succeeded(target, answer.status)
                await relay(answer, call, send)
            finally:
                answer.close()
        except UpstreamError as error:
            pool.failed(target, error)
            raise
        finally:
            target.active -= 1

    return proxy


async def relay(answer: Answer, call: Call, send: Send) -> None:
    """Stream an answer to the caller: nothing is held back, nothing is read before the caller has room for
    it.
    """
    status, headers = answer.status, end_to_end(answer.headers)
    if status in EMPTY:
        # A length without a body: servers would wait for it. RFC 9110 15.4.5 allows to leave it out.
        headers = [pair for pair in headers if pair[0] != b"content-length"]
    elif not answer.complete and is_stream(headers):
        call.streaming = True
    complete = answer.complete
    body = answer.take()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while not complete:
        if body:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        body = await answer.read()
        complete = answer.complete
        if complete:
            body += answer.take()
    await send({"type": "http.response.body", "body": body})


def is_stream(headers: Headers) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def heads(host: str, forwarded: Style) -> Callable[[Scope, Exchange, Target], bytes]:
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
        if host != "preserve":
            name = literal or target.authority
            headers = [pair if pair[0] != b"host" else (b"host", name) for pair in headers]
        lines = [b"%b %b HTTP/1.1" % (scope["method"].encode(), path)]
        lines += [b"%b: %b" % pair for pair in headers]
        lines += [b"%b: %b" % pair for pair in forwarding(exchange, exchange.authority)]
        lines.append(b"\r\n")
        return b"\r\n".join(lines)

    return head
