"""The only place that speaks WebSocket with callers under uvicorn: the handshake, and the ASGI messages."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from uvicorn import Config
from uvicorn.protocols.utils import ClientDisconnected, get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState
from websockets.datastructures import Headers as Fields
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from ..asgi import Header, Message, Scope, header
from ..errors import Aborted
from ..websocket import End, Peer
from .head import Refused, origin_form
from .lines import farewell, head
from .tls import shown

GOING = "the server is going away"
VERSION = b"13"

logger = logging.getLogger("asgi_gateway")


class GatewayWebSocket(Peer):
    """One WebSocket: the ASGI `receive` and `send`. Cancels the task of a caller who leaves before the
    handshake is answered; of one who leaves later the app is told by `websocket.disconnect`.
    """

    protocol: ServerProtocol

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        protocol = ServerProtocol(state=State.OPEN, max_size=config.ws_max_size)
        super().__init__(protocol, _loop or asyncio.get_running_loop(), config.ws_ping_interval)
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._task: asyncio.Task[None] | None = None
        self._scope: Scope = {}
        self._fields: list[Header] = []
        """What the answer to the handshake says, if it is a good one."""
        self._connected = False
        self._answered = False
        """Whether the answer to the handshake has begun."""
        self._denial: tuple[int, list[Header]] | None = None
        """Status and headers of a refusal, until its body comes."""
        self._denying = False
        self._stopping = False
        """Whether the server shuts down: what the app still says is lost, what the caller says is not."""

    # Its connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._state.connections.add(self)  # type: ignore[arg-type]  # it has `shutdown`: that will do

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        super().connection_lost(exc)
        if self._task is not None and not self._answered:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._task is None and not self.deaf:
            self._begin(data)
        else:
            super().data_received(data)

    def shutdown(self) -> None:
        """Called by the server: close, and let the caller answer. A handshake is answered first."""
        self._stopping = True
        if self.open:
            self.say_close(1001, GOING)

    # The handshake

    def _begin(self, data: bytes) -> None:
        """The head of the request, as the HTTP protocol passes it on."""
        first, *lines = data[:-4].split(b"\r\n")
        pairs = [line.partition(b": ") for line in lines]
        headers = [(name, value) for name, _, value in pairs]
        method, url = first.split(b" ")[:2]
        try:
            self._fields = self._agree(method, headers)
            self._scope = self._describe(url, headers)
        except Refused as refused:
            self._refuse(refused)
            return
        self._task = self.loop.create_task(self._run())
        self._state.tasks.add(self._task)

    def _agree(self, method: bytes, headers: list[Header]) -> list[Header]:
        """The fields of a good answer. Refused."""
        fields = Fields()
        for name, value in headers:
            fields[name.decode("latin-1")] = value.decode("latin-1")
        if header(headers, b"transfer-encoding") or header(headers, b"content-length") not in (None, b"0"):
            raise Refused.bad("a WebSocket handshake has no body")
        if header(headers, b"sec-websocket-version") != VERSION:
            raise Refused(
                426, "websocket_version", "this gateway speaks version 13 of the WebSocket protocol"
            )
        answer = self.protocol.accept(Request("/", fields, method.decode("latin-1")))
        if answer.status_code != 101:
            raise Refused(answer.status_code, "bad_handshake", "this is no good handshake for a WebSocket")
        accept = answer.headers["Sec-WebSocket-Accept"].encode()
        return [(b"upgrade", b"websocket"), (b"sec-websocket-accept", accept)]

    def _describe(self, url: bytes, headers: list[Header]) -> Scope:
        if url[:1] != b"/":
            url = origin_form(url, headers)
        if b"#" in url or not url.isascii():
            raise Refused.bad("the request target is not a path of a URL")
        raw_path, _, query = url.partition(b"?")
        root, told = self._config.root_path, shown(self.transport)
        offered = b",".join(value for name, value in headers if name == b"sec-websocket-protocol")
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "root_path": root,
            "path": root + unquote(raw_path.decode()),
            "raw_path": root.encode() + raw_path,
            "query_string": query,
            "headers": headers,
            "subprotocols": [name.strip().decode("latin-1") for name in offered.split(b",") if name.strip()],
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}} | ({} if told is None else {"tls": told}),
        }

    @property
    def _date(self) -> list[Header]:
        return self._state.default_headers

    @property
    def _accepted(self) -> bool:
        return self.ready

    def _accept(self, subprotocol: str | None, headers: Iterable[Header]) -> None:
        fields = [*self._fields, *headers]
        if subprotocol:
            fields.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
        written = head(101, fields, self._date)[0] + b"connection: Upgrade\r\n\r\n"
        self._answered = True
        self.transport.write(written)
        self.begin()
        if self._stopping:
            self.shutdown()

    def _deny(self, message: Message) -> None:
        """The next piece of a refusal: its end is the end of the connection."""
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._denial is not None:
            status, headers = self._denial
            self._denial = None
            lines, length, _ = head(status, headers, self._date)
            size = b"content-length: %d\r\n" % len(body) if length is None and not more else b""
            body = lines + size + b"connection: close\r\n\r\n" + body
        self.transport.write(body)
        if not more:
            self._denying = False
            self._finish(End(1006))
            self._turn_away()

    def _turn_away(self, answer: bytes = b"") -> None:
        """End the connection with an answer in words of HTTP."""
        self._answered = self.deaf = True
        if answer:
            self.transport.write(answer)
        self._await_end()
        self.transport.close()

    def _refuse(self, refused: Refused) -> None:
        self._turn_away(farewell(refused.status, refused.reason, refused.detail, self._date))

    # The app

    async def _run(self) -> None:
        try:
            await self._config.loaded_app(self._scope, self.receive, self.send)
        except Aborted:
            self.abort()
        except asyncio.CancelledError:
            self.leave(1001, GOING)
        except ClientDisconnected:
            pass
        # An app that wants to exit ends its WebSocket, not the server.
        except BaseException:
            self._fail("the application failed", with_traceback=True)
        else:
            if self.open:
                self.close(1000)
            elif not self._answered or self._denying:
                self._fail("the application returned before it had answered the handshake")
        finally:
            if self._task is not None:
                self._state.tasks.discard(self._task)

    def _fail(self, what: str, with_traceback: bool = False) -> None:
        if with_traceback or not self.lost:
            logger.error("%s: %s", self._scope["path"], what, exc_info=with_traceback)
        if self.open:
            self.close(1011, "the application failed")
        elif self._denying:
            self.abort()
        elif not self._answered and not self.lost:
            self._refuse(Refused(500, "internal_error", "the request could not be processed"))

    async def receive(self) -> Message:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        message = await self.next()
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        if message is not None:
            return {"type": "websocket.receive", "bytes": message}
        assert self.end is not None
        code = 1001 if self._stopping and self._accepted and self.end.code == 1006 else self.end.code
        return {"type": "websocket.disconnect", "code": code, "reason": self.end.reason}

    async def send(self, message: Message) -> None:
        if self.write_paused:
            await self.drained()
        kind = message["type"]
        if self.open and kind == "websocket.send":
            text: str | None = message.get("text")
            self.write(message["bytes"] if text is None else text)
        elif self.open and kind == "websocket.close":
            self.close(message.get("code", 1000), message.get("reason") or "")
        elif self.lost or self.end is not None:
            raise ClientDisconnected
        elif not self._answered:
            self._answer(kind, message)
        elif self._denying and kind == "websocket.http.response.body":
            self._deny(message)
        # A server that shuts down has closed it already.
        elif not (self._stopping and self._accepted):
            raise RuntimeError(f"{kind!r} was sent at the wrong time")

    def _answer(self, kind: str, message: Message) -> None:
        if kind == "websocket.accept":
            self._accept(message.get("subprotocol"), message.get("headers", ()))
        elif kind == "websocket.close":
            self._turn_away(head(403, (), self._date)[0] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self._finish(End(1006))
        elif kind == "websocket.http.response.start":
            self._answered = self._denying = True
            self._denial = message["status"], list(message.get("headers", ()))
        else:
            raise RuntimeError(f"{kind!r} was sent before the handshake was answered")
