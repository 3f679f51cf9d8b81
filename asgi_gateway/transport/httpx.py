"""The only place that imports httpx: any of its transports carries requests to a target."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.util import find_spec
from typing import Any, cast

import httpx

from ..asgi import Header, Headers, Message, Receive
from ..call import Call
from ..clock import Clock
from ..component import Reply
from ..config import TRANSPORTS, Upstream
from ..errors import CallerLeft, ConfigError, ControlError, Phase, Problem, Reason, UpstreamError
from ..hops import end_to_end
from ..importing import find
from ..origin import Origin
from .gate import Gate
from .tls import ClientContext

FRAMING = frozenset({b"content-length", b"transfer-encoding"})

REASONS: tuple[tuple[type[httpx.TransportError], Reason, Phase | None], ...] = (
    (httpx.PoolTimeout, "pool_timeout", "pool"),
    (httpx.ConnectTimeout, "connect_timeout", "connect"),
    (httpx.ConnectError, "connect_failed", "connect"),
    (httpx.WriteTimeout, "write_timeout", "write"),
    (httpx.WriteError, "reset", "write"),
    (httpx.ReadTimeout, "idle_timeout", None),
    (httpx.NetworkError, "reset", None),
)
"""What an exception means; no phase: the one the call is in. Anything else is a breach of the protocol."""

ENDED = ("Server disconnected", "peer closed connection")
"""How httpx words a connection that ended too early; it has one exception for that and for bad HTTP."""


class HttpxTransport:
    """Sends through an httpx transport, which looks at the answer only when the whole body has gone out."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        origin: Origin,
        *,
        connect: float,
        idle: float,
        write: float,
        gate: Gate,
        server_name: str = "",
    ) -> None:
        self._transport = transport
        self._gate = gate
        self._url = httpx.URL(f"{origin.scheme}://{origin.authority}")
        self._extensions: dict[str, object] = {"timeout": {"connect": connect, "read": idle, "write": write}}
        if server_name:
            self._extensions["sni_hostname"] = server_name
        self._running: set[asyncio.Task[Any]] = set()

    @classmethod
    def make(cls, kind: str, origin: Origin, options: Upstream, clock: Clock) -> "HttpxTransport":
        """What `httpx`, `http2` and `package.module:name` stand for; ConfigError if it cannot be had.

        It has its own timers. Who waits for a connection waits at a gate of ours: the pool of httpx loses a
        connection for good when a wait for it ends at a bad moment.
        """
        if kind == "http2" and find_spec("h2") is None:
            raise ConfigError(
                Problem("`transport: http2` needs h2", hint="pip install 'asgi-gateway[http2]'")
            )

        def transport() -> httpx.AsyncBaseTransport:
            # A context of its own: httpx changes which protocols it offers.
            return httpx.AsyncHTTPTransport(
                verify=ClientContext(options.tls)() if origin.scheme == "https" else False,
                http2=kind == "http2",
                # Without TLS there is nobody to agree with: HTTP/2 with prior knowledge (RFC 9113 3.3).
                http1=kind != "http2" or origin.scheme == "https",
                trust_env=False,
                uds=origin.unix or None,
                limits=httpx.Limits(
                    max_connections=options.pool.max_connections,
                    max_keepalive_connections=options.pool.max_connections,
                    keepalive_expiry=options.pool.keep_alive,
                ),
            )

        return cls(
            Lazy(transport) if kind in TRANSPORTS else own(kind),
            origin,
            connect=options.timeout.connect,
            # One bound for both: httpx does not tell the head from the body.
            idle=max(options.timeout.head, options.timeout.idle),
            write=options.timeout.write,
            gate=Gate(
                options.pool.max_connections, options.pool.max_waiting, options.pool.wait, clock.monotonic
            ),
            server_name=options.tls.server_name,
        )

    async def send(self, method: str, head: bytes, receive: Receive | None, call: Call) -> "HttpxAnswer":
        target, fields = parse(head)
        body = Body(receive, call)
        await body.begin(fields)
        request = httpx.Request(
            method, self._url, headers=fields, stream=body, extensions={**self._extensions, "target": target}
        )
        await self._gate.enter(call)
        call.phase = "head"
        response = await self._undisturbed(request, body)
        answer = HttpxAnswer(response, call, self._end)
        if answer.status < 200:
            answer.close()
            raise UpstreamError("protocol_error", "head", "an upgrade that was not asked for", sent=True)
        return answer

    async def _undisturbed(self, request: httpx.Request, body: "Body") -> httpx.Response:
        """Let httpx finish what it began, whoever leaves: cancelled badly, its pool loses a place."""
        task = asyncio.create_task(self._transport.handle_async_request(request))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            body.stop()
            task.add_done_callback(self._drop)
            raise
        except BaseException as error:
            self._gate.leave()
            if isinstance(error, httpx.TransportError):
                raise translated(error, "head") from error
            raise

    def _drop(self, task: "asyncio.Task[httpx.Response]") -> None:
        """Nobody wants this answer any more."""
        if task.cancelled() or task.exception() is not None:
            self._gate.leave()
        else:
            self._end(cast("httpx.AsyncByteStream", task.result().stream))

    def _end(self, stream: httpx.AsyncByteStream) -> None:
        """Close an answer; then its place is free."""
        task = asyncio.get_running_loop().create_task(stream.aclose())
        # The loop itself keeps no reference to a task.
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._gate.leave()

    async def aclose(self) -> None:
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._transport.aclose()


class HttpxAnswer:
    """An answer on its way through an httpx transport. Nothing is read ahead, so there is nothing to take."""

    def __init__(
        self, response: httpx.Response, call: Call, end: Callable[[httpx.AsyncByteStream], None]
    ) -> None:
        self.status = response.status_code
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        self.headers: list[Header] = end_to_end(headers)
        self.chunked = (b"transfer-encoding", b"chunked") in headers
        self.trailers: list[Header] = []
        self.complete = False
        self._stream = cast("httpx.AsyncByteStream", response.stream)
        self._chunks = aiter(self._stream)
        self._call = call
        self._end = end
        self._closed = False

    def take(self) -> bytes:
        return b""

    async def read(self) -> bytes:
        self._call.phase = "body"
        try:
            async for chunk in self._chunks:
                if chunk:
                    return chunk
        except httpx.TransportError as error:
            raise translated(error, "body") from error
        self.complete = True
        return b""

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._end(self._stream)


class Body(httpx.AsyncByteStream):
    """The body of a request, as the caller sends it."""

    def __init__(self, receive: Receive | None, call: Call) -> None:
        self._receive = receive
        self._call = call
        self._first = b""
        self._stopped = False

    async def begin(self, fields: list[Header]) -> None:
        """Wait for the first piece; it tells which framing the request gets if `fields` say none."""
        more = False
        if self._receive is not None:
            self._first, more = body_of(await self._receive())
            if not FRAMING.intersection(name for name, _ in fields):
                if more:
                    fields.append((b"transfer-encoding", b"chunked"))
                elif self._first:
                    fields.append((b"content-length", b"%d" % len(self._first)))
        if not more:
            self._receive = None
            self._call.body_read = True

    def stop(self) -> None:
        """The request is over: nobody reads it any further."""
        self._stopped = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._first:
            yield self._first
        while self._receive is not None:
            if self._stopped:
                raise CallerLeft
            body, more = body_of(await self._receive())
            if body:
                yield body
            if not more:
                self._receive = None
                self._call.body_read = True


class Lazy(httpx.AsyncBaseTransport):
    """A transport that is made at its first request: a TLS context costs some 20 ms."""

    def __init__(self, make: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self._make = make
        self._made: httpx.AsyncBaseTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._made is None:
            self._made = self._make()
        return await self._made.handle_async_request(request)

    async def aclose(self) -> None:
        if self._made is not None:
            await self._made.aclose()


class Fetcher:
    """Makes the calls of the gateway itself: no redirects, no cookies, nothing from the environment."""

    def __init__(self) -> None:
        # What one caller is given must never be sent for another one.
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            cookies=cookies,
            headers={"accept-encoding": "identity"},
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30),
        )

    async def fetch(
        self, method: str, url: str, headers: Headers, body: bytes, seconds: float, max_size: int
    ) -> Reply:
        """The whole answer; `seconds` bounds each phase of the call. Raises ControlError."""
        try:
            request = self._client.build_request(
                method, url, headers=list(headers), content=body or None, timeout=seconds
            )
            response = await self._client.send(request, stream=True)
            try:
                content = bytearray()
                # As it came: what is packed would have no bound.
                async for chunk in response.aiter_raw():
                    content += chunk
                    if len(content) > max_size:
                        raise ControlError("too_large", f"more than {max_size} bytes")
            finally:
                await response.aclose()
        except httpx.TimeoutException as error:
            raise ControlError("timeout", type(error).__name__) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ControlError("unreachable", type(error).__name__) from error
        fields = [(name.lower(), value) for name, value in response.headers.raw]
        return Reply(response.status_code, fields, bytes(content))

    async def aclose(self) -> None:
        await self._client.aclose()


def own(path: str) -> httpx.AsyncBaseTransport:
    """A user's transport: what the class or function behind an import path gives."""
    try:
        made = find(path, "something that makes a transport")()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(Problem(f"{path!r} cannot be made: {type(error).__name__}: {error}")) from error
    if not isinstance(made, httpx.AsyncBaseTransport):
        raise ConfigError(Problem(f"{path!r} makes a {type(made).__name__}, not an httpx.AsyncBaseTransport"))
    return made


def parse(head: bytes) -> tuple[bytes, list[Header]]:
    """The target and the fields of a head that the gateway wrote itself."""
    line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    fields = [line.partition(b": ") for line in lines]
    return line.split(b" ")[1], [(name, value) for name, _, value in fields]


def body_of(message: Message) -> tuple[bytes, bool]:
    if message["type"] == "http.disconnect":
        raise CallerLeft
    return message.get("body", b""), message.get("more_body", False)


def translated(error: httpx.TransportError, phase: Phase) -> UpstreamError:
    """What an exception of httpx is called here. `phase`: head or body, whichever is awaited."""
    reason, known = meaning(error)
    where = known or phase
    if reason == "idle_timeout" and where == "head":
        reason = "head_timeout"
    return UpstreamError(reason, where, str(error), sent=where not in ("pool", "connect"))


def meaning(error: httpx.TransportError) -> tuple[Reason, Phase | None]:
    for kind, reason, phase in REASONS:
        if isinstance(error, kind):
            return ("tls_failed" if reason == "connect_failed" and is_tls(error) else reason), phase
    return ("reset" if str(error).startswith(ENDED) else "protocol_error"), None


def is_tls(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None
