"""WebSocket apps for `asgi:` upstreams."""

from starlette.websockets import WebSocket

from asgi_gateway.asgi import Receive, Scope, Send

ended: list[tuple[int, str]] = []
"""How the callers of `app` left."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Does what its path says."""
    if scope["type"] != "websocket":
        return
    await receive()
    path = scope["path"]
    if path == "/deny":
        headers = [(b"x-why", b"because")]
        await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"tea"})
        return
    if path == "/fails":
        raise ValueError("on purpose")
    await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[-1]})
    while (message := await receive())["type"] == "websocket.receive":
        if path == "/raises":
            raise ValueError("on purpose")
        if path == "/closes":
            await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
        elif path == "/returns":
            return
        else:
            await send({**message, "type": "websocket.send"})
    ended.append((message["code"], message.get("reason") or ""))


async def starlette(scope: Scope, receive: Receive, send: Send) -> None:
    """As tutorials have it: nobody catches what is raised when the caller leaves."""
    socket = WebSocket(scope, receive, send)
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())
