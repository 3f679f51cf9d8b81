"""The only place that opens a WebSocket to a target, and carries messages both ways (RFC 6455)."""

import asyncio
from collections.abc import Callable
from ssl import SSLError
from typing import TYPE_CHECKING, Any, cast

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from .asgi import Header, Receive, Scope, Send, answer, extension
from .config import Upstream
from .errors import CallerLeft, Reason, UpstreamError
from .exchange import CALL, EXCHANGE, Call, Exchange
from .forwarding import writer
from .hops import end_to_end
from .origin import Origin
from .paths import strip_root
from .transport.tls import ClientContext

if TYPE_CHECKING:
    from .proxy import Tunnel
    from .upstream import Target

MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest message of a target; a larger one ends the connection with 1009."""
CLOSE_SECONDS = 5.0
"""How long a target may take to answer a close."""

OWN = frozenset({b"host", b"connection", b"upgrade", b"content-length"})
"""Fields that each handshake has of its own, besides Sec-WebSocket-*."""
OF_SERVER = frozenset({b"date", b"server"})

Close = tuple[int, str]


def tunnel(options: Upstream) -> "Tunnel":
    """An async function that carries one WebSocket to a target."""
    opening = Opening(options)

    async def tunnel(target: "Target", scope: Scope, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            raise CallerLeft
        try:
            socket = await opening.open(target, scope)
        except InvalidStatus as refused:
            await deny(scope, send, refused.response)
            return
        try:
            assert socket.response is not None
            accept = {"subprotocol": socket.subprotocol, "headers": fields_of(socket.response)}
            await send({"type": "websocket.accept", **accept})
            scope[CALL].streaming = True
            await carry(socket, receive, send)
        finally:
            # After a clean end there is nothing left to abort.
            socket.transport.abort()

    return tunnel


class Opening:
    """Makes the handshakes of one upstream."""

    def __init__(self, options: Upstream) -> None:
        self._context = ClientContext(options.tls)
        self._server_name = options.tls.server_name
        self._seconds = options.timeout.connect
        self._host = options.host
        self._forwarding = writer(options.forwarded)

    async def open(self, target: "Target", scope: Scope) -> ClientConnection:
        """Connect, and shake hands. UpstreamError; InvalidStatus when the target refuses in words of HTTP."""
        call: Call = scope[CALL]
        head = self._fields(target, scope)

        def factory() -> ClientConnection:
            protocol = Handshaking(target_of(scope), head, scope.get("subprotocols") or [])
            return ClientConnection(protocol, ping_interval=None, close_timeout=CLOSE_SECONDS)

        call.phase = "connect"
        try:
            async with asyncio.timeout(self._seconds):
                socket = await self._connect(target.origin, factory)
                call.phase = "head"
                await shake(socket)
                return socket
        except InvalidStatus:
            raise
        except InvalidHandshake as error:
            ended: Reason = "reset" if isinstance(error.__cause__, EOFError) else "protocol_error"
            raise UpstreamError(ended, "head", str(error), sent=True) from error
        except TimeoutError as error:
            raise UpstreamError("connect_timeout", call.phase, sent=call.phase == "head") from error
        except SSLError as error:
            raise UpstreamError("tls_failed", call.phase, str(error)) from error
        except OSError as error:
            raise UpstreamError("connect_failed", call.phase, str(error)) from error

    async def _connect(
        self, origin: Origin | None, factory: Callable[[], ClientConnection]
    ) -> ClientConnection:
        assert origin is not None
        loop = asyncio.get_running_loop()
        if origin.unix:
            return (await loop.create_unix_connection(factory, origin.unix))[1]
        secure: dict[str, Any] = {}
        if origin.scheme == "https":
            secure = {"ssl": self._context(), "server_hostname": self._server_name or origin.host}
        return (await loop.create_connection(factory, origin.host, origin.port, **secure))[1]

    def _fields(self, target: "Target", scope: Scope) -> list[Header]:
        exchange: Exchange = scope[EXCHANGE]
        host = exchange.authority
        if self._host != "preserve":
            host = target.authority if self._host == "target" else self._host.encode()
        return [(b"host", host), *kept(scope["headers"]), *self._forwarding(exchange, exchange.authority)]


class Handshaking(ClientProtocol):
    """The client's side of a connection whose request is the caller's, byte by byte."""

    def __init__(self, target: bytes, fields: list[Header], subprotocols: list[str]) -> None:
        offered = cast("list[Subprotocol]", subprotocols) or None
        super().__init__(parse_uri("ws://localhost"), subprotocols=offered, max_size=MESSAGE_BYTES)
        self._target = target
        self._fields = fields

    def send_request(self, request: Request) -> None:
        own = [
            (name.encode(), value.encode()) for name, value in request.headers.raw_items() if name != "Host"
        ]
        lines = [b"%b: %b" % pair for pair in (*self._fields, *own)]
        self.writes.append(b"\r\n".join([b"GET %b HTTP/1.1" % self._target, *lines, b"\r\n"]))


async def shake(socket: ClientConnection) -> None:
    try:
        await socket.handshake(user_agent_header=None)
    except BaseException:
        socket.transport.abort()
        raise


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
        (name.lower().encode(), value.encode("ascii", "surrogateescape"))
        for name, value in response.headers.raw_items()
    ]
    return [pair for pair in kept(raw) if pair[0] not in OF_SERVER]


async def deny(scope: Scope, send: Send, response: Response) -> None:
    """The target refused: its answer goes to the caller, or a close code where the server knows no denial."""
    status, body = response.status_code, response.body or b""
    if status < 200:
        raise UpstreamError("protocol_error", "head", f"the answer to a handshake is {status}", sent=True)
    if extension(scope, "websocket.http.response") is None:
        await answer(scope, send, status, b"")
        return
    headers = [*fields_of(response), (b"content-length", b"%d" % len(body))]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": bytes(body)})


async def carry(socket: ClientConnection, receive: Receive, send: Send) -> None:
    """Carry messages both ways until one side closes; then close the other one with the same code."""
    up = asyncio.create_task(upwards(socket, receive))
    down = asyncio.create_task(downwards(socket, send))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if up.done():
            code, reason = up.result()
            await socket.close(sendable(code), reason)
        else:
            code, reason = down.result()
            await send({"type": "websocket.close", "code": sendable(code), "reason": reason})
    finally:
        up.cancel()
        down.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


async def upwards(socket: ClientConnection, receive: Receive) -> Close:
    """Carry the caller's messages to the target; what the caller closed with."""
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        try:
            await socket.send(message["bytes"] if text is None else text)
        except ConnectionClosed:
            # The other direction knows how it ended, and says so; the caller's own close may still come.
            continue
    return message.get("code", 1005), message.get("reason") or ""


async def downwards(socket: ClientConnection, send: Send) -> Close:
    """Carry the target's messages to the caller; what the target closed with."""
    try:
        while True:
            message = await socket.recv()
            kind = "text" if isinstance(message, str) else "bytes"
            await send({"type": "websocket.send", kind: message})
    except OSError as gone:
        raise CallerLeft from gone
    except ConnectionClosed as closed:
        if closed.rcvd is None:
            why: Reason = "reset" if closed.sent is None else "protocol_error"
            raise UpstreamError(why, "body", str(closed), sent=True) from closed
        return closed.rcvd.code, closed.rcvd.reason


def sendable(code: int) -> int:
    """A code that may stand in a close frame. 1005 says that there was none; 1006 and 1015 are never sent."""
    if code == 1005:
        return 1000
    return code if 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999 else 1011
