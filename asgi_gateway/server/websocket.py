"""The only place that touches uvicorn's WebSocket protocol."""

from collections.abc import Coroutine
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ..asgi import Message, header


class GatewayWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket. A refusal that brings a date, as one from an upstream does, gets no second one."""

    def send(self, message: Message) -> Coroutine[Any, Any, None]:  # type: ignore[override]
        if message["type"] == "websocket.http.response.start" and header(message.get("headers", ()), b"date"):
            self.default_headers = []
        return super().send(message)  # type: ignore[arg-type]
