"""The only place that opens a WebSocket to a target: what the handshake says, and what its answer means."""

import asyncio
from collections.abc import Callable
from ssl import SSLError
from typing import TYPE_CHECKING, Any, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from ..asgi import Header, Scope
from ..call import CALL, Call
from ..clock import Clock
from ..config import Upstream
from ..errors import Reason, UpstreamError
from ..exchange import EXCHANGE, HOST, Exchange
from ..forwarding import writer
from ..hops import end_to_end
from ..origin import Origin
from ..paths import strip_root
from ..transport.tls import ClientContext
from .peer import Peer

if TYPE_CHECKING:
    from ..upstream import Target

HEAD_BYTES = 65536
"""The longest head of an answer to a handshake."""
ANYWHERE = parse_uri("ws://localhost")
"""What `websockets` wants to know; where it goes and what it says is decided here."""

OWN = frozenset({b"host", b"connection", b"upgrade", b"content-length"})
"""Fields that each handshake has of its own, besides Sec-WebSocket-*."""
OF_SERVER = frozenset({b"date", b"server"})


class Opening:
    """Makes the handshakes of one upstream."""

    def __init__(self, options: Upstream, clock: Clock) -> None:
        self._context = ClientContext(options.tls)
        self._server_name = options.tls.server_name
        self._connect_time = options.timeout.connect
        self._head_time = options.timeout.head
        self._host = options.host
        self._forwarding = writer(options.forwarded)
        self._websocket = options.websocket
        self._monotonic = clock.monotonic

    async def open(self, target: "Target", scope: Scope) -> "Remote":
        """Connect, and shake hands. UpstreamError; InvalidStatus when the target refuses in words of HTTP."""
        call: Call = scope[CALL]
        loop = asyncio.get_running_loop()
        limit, ping = self._websocket.message_bytes, self._websocket.ping
        protocol = Handshaking(target_of(scope), self._fields(target, scope), scope, limit)
        assert target.origin is not None
        call.phase = "connect"
        try:
            async with asyncio.timeout(self._connect_time):
                remote = await self._connect(target.origin, lambda: Remote(protocol, loop, ping))
        except TimeoutError as error:
            raise UpstreamError("connect_timeout", "connect") from error
        except SSLError as error:
            raise UpstreamError("tls_failed", "connect", str(error)) from error
        except OSError as error:
            raise UpstreamError("connect_failed", "connect", str(error)) from error
        await self._shake(remote, call)
        return remote

    async def _connect(self, origin: Origin, factory: "Callable[[], Remote]") -> "Remote":
        loop = asyncio.get_running_loop()
        if origin.unix:
            return (await loop.create_unix_connection(factory, origin.unix))[1]
        secure: dict[str, Any] = {}
        if origin.scheme == "https":
            secure = {"ssl": self._context(), "server_hostname": self._server_name or origin.host}
        return (await loop.create_connection(factory, origin.host, origin.port, **secure))[1]

    async def _shake(self, remote: "Remote", call: Call) -> None:
        call.phase, call.limit = "head", self._monotonic() + self._head_time
        # The ticker puts an error into it when the time is over.
        call.waiter = remote.shaken
        try:
            remote.shake()
            await remote.shaken
        except InvalidStatus:
            remote.abort()
            raise
        except InvalidHandshake as error:
            remote.abort()
            ended: Reason = "reset" if isinstance(error.__cause__, EOFError) else "protocol_error"
            raise UpstreamError(ended, "head", str(error), sent=True) from error
        except BaseException:
            remote.abort()
            raise
        finally:
            call.waiter = None

    def _fields(self, target: "Target", scope: Scope) -> list[Header]:
        exchange: Exchange = scope[EXCHANGE]
        host = scope.get(HOST) or exchange.authority
        if self._host != "preserve" and HOST not in scope:
            host = target.authority if self._host == "target" else self._host.encode()
        return [(b"host", host), *kept(scope["headers"]), *self._forwarding(exchange, exchange.authority)]


class Handshaking(ClientProtocol):
    """The client's side of a connection whose request is the caller's, byte by byte."""

    def __init__(self, target: bytes, fields: list[Header], scope: Scope, limit: int) -> None:
        offered = cast("list[Subprotocol]", scope.get("subprotocols")) or None
        super().__init__(ANYWHERE, subprotocols=offered, max_size=limit)
        self._target = target
        self._fields = fields

    def send_request(self, request: Request) -> None:
        own = [
            (name.encode(), value.encode()) for name, value in request.headers.raw_items() if name != "Host"
        ]
        lines = [b"%b: %b" % pair for pair in (*self._fields, *own)]
        self.writes.append(b"\r\n".join([b"GET %b HTTP/1.1" % self._target, *lines, b"\r\n"]))


class Remote(Peer):
    """The connection to a target, from its first byte on."""

    protocol: Handshaking

    def __init__(self, protocol: Handshaking, loop: asyncio.AbstractEventLoop, ping: float | None) -> None:
        super().__init__(protocol, loop, ping)
        self.shaken: asyncio.Future[None] = loop.create_future()
        self.response: Response | None = None
        self._head = bytearray()
        self._refused = False
        """Whether the answer is a refusal, whose body follows."""

    def shake(self) -> None:
        """Send the request. `shaken` is done when the answer is there, or with what is wrong about it."""
        if self.lost:
            self._broken(EOFError("the connection ended at once"))
            return
        self.protocol.send_request(self.protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self.ready or self.shaken.done():
            super().data_received(data)
            return
        if self._refused:
            self._answered(data)
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(self._head) > HEAD_BYTES:
                self._broken(ValueError("the head of the answer is too long"))
        elif self._head[:12].endswith(b" 101"):
            # What stands behind the head are frames already.
            self._answered(bytes(self._head[:end]))
            if rest := bytes(self._head[end:]):
                super().data_received(rest)
        else:
            self._refused = True
            self._answered(bytes(self._head))

    def _answered(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        self._judge()

    def _judge(self) -> None:
        for event in self.protocol.events_received():
            assert isinstance(event, Response)
            self.response = event
        if self.protocol.handshake_exc is not None:
            self._settle(self.protocol.handshake_exc)
        elif self.response is not None:
            self.begin()
            self._settle(None)

    def _settle(self, error: Exception | None) -> None:
        if not self.shaken.done():
            if error is None:
                self.shaken.set_result(None)
            else:
                self.shaken.set_exception(error)

    def _broken(self, cause: Exception) -> None:
        error = InvalidHandshake("the target gave no valid answer")
        error.__cause__ = cause
        self._settle(error)

    def eof_received(self) -> None:
        if not self.shaken.done():
            # It may end the body of a refusal.
            self.protocol.receive_eof()
            self._judge()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._broken(EOFError("the connection ended"))
        if not self.shaken.cancelled():
            self.shaken.exception()  # nobody may ask for it any more


def target_of(scope: Scope) -> bytes:
    path: bytes = scope["raw_path"]
    if root := scope.get("root_path"):
        path = strip_root(path.decode("ascii"), root).encode("ascii")
    query = scope["query_string"]
    return b"%b?%b" % (path, query) if query else path


def kept(headers: list[Header]) -> list[Header]:
    """The fields of one handshake that go into the other one."""
    return [
        pair
        for pair in end_to_end(headers)
        if pair[0] not in OWN and not pair[0].startswith(b"sec-websocket-")
    ]


def fields_of(response: Response) -> list[Header]:
    raw = [
        # Before its version 17 `websockets` escaped what is not ASCII, since then it is ISO-8859-1.
        (name.lower().encode(), value.encode("latin-1", "surrogateescape"))
        for name, value in response.headers.raw_items()
    ]
    return [pair for pair in kept(raw) if pair[0] not in OF_SERVER]
