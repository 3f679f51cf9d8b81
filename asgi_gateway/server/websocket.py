"""The only place that touches uvicorn's WebSocket protocol."""

from collections.abc import Coroutine
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ..asgi import Message, header
from .lines import farewell


class GatewayWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket. A refusal that brings a date, as one from an upstream does, gets no second one."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # A body, or larger fields than websockets takes: uvicorn would say nothing, and wait for ever.
            detail = "this is no WebSocket handshake"
            self.transport.write(farewell(400, "bad_request", detail, self.default_headers))
            self.transport.close()

    def send(self, message: Message) -> Coroutine[Any, Any, None]:  # type: ignore[override]
        if message["type"] == "websocket.http.response.start" and header(message.get("headers", ()), b"date"):
            self.default_headers = []
        return super().send(message)  # type: ignore[arg-type]
