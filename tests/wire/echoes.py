"""Apps that answer with what they understood of a request, for servers of three kinds."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web

from asgi_gateway.asgi import Receive, Scope, Send, answer

FRAMING = ("connection", "content-length", "transfer-encoding")
"""How it was said, not what."""


def meaning(method: str, target: str, fields: Iterable[tuple[str, str]], body: bytes) -> bytes:
    said: dict[str, list[str]] = {}
    for name, value in fields:
        if name.lower() not in FRAMING:
            said.setdefault(name.lower(), []).append(value)
    joined = {name: ",".join(values) for name, values in sorted(said.items())}
    told = {"method": method, "target": target, "fields": joined, "body": body.decode("latin-1")}
    return json.dumps(told).encode()


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    target: bytes = scope["raw_path"].partition(b"?")[0]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    fields = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
    await answer(scope, send, 200, meaning(scope["method"], target.decode("latin-1"), fields, body))


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    names = [name for name in environ if name.startswith("HTTP_") or name == "CONTENT_TYPE"]
    fields = [(name.removeprefix("HTTP_").replace("_", "-"), environ[name]) for name in names]
    body = environ["wsgi.input"].read()
    said = meaning(environ["REQUEST_METHOD"], environ["RAW_URI"], fields, body)
    start_response("200 OK", [("content-length", str(len(said)))])
    return [said]


def aiohttp(arguments: list[str]) -> web.Application:
    async def echo(request: web.Request) -> web.Response:
        fields = [(name.decode(), value.decode("latin-1")) for name, value in request.raw_headers]
        return web.Response(body=meaning(request.method, request.raw_path, fields, await request.read()))

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", echo)
    return app
