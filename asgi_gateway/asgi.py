"""The only place that knows how the gateway itself answers: problem+json over HTTP, a denial or a close over
WebSocket.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "RETRY_SOON",
    "ASGIApp",
    "Header",
    "Headers",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "answer",
    "cookie",
    "header",
    "problem",
]

Header = tuple[bytes, bytes]
Headers = Sequence[Header]

RETRY_SOON: Headers = ((b"retry-after", b"1"),)
TITLES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}  # RFC 9110 15.5
CLOSE_CODES = {503: 1013, 429: 1013, 500: 1011, 502: 1014, 504: 1014}  # RFC 6455 7.4.1 and its registry


def header(headers: Iterable[Header], name: bytes) -> bytes | None:
    """The first value of a header; `name` in lower case."""
    for key, value in headers:
        if key == name:
            return value
    return None


def cookie(headers: Iterable[Header], name: bytes) -> bytes:
    """The value of the first cookie of that name, or nothing."""
    for key, line in headers:
        if key == b"cookie":
            for pair in line.split(b";"):
                found, _, text = pair.strip().partition(b"=")
                if found == name:
                    return text.strip(b'"')
    return b""


def is_stream(headers: Iterable[Header]) -> bool:
    """Whether this is the head of an event stream."""
    return any(
        name == b"content-type" and value[:17].lower() == b"text/event-stream" for name, value in headers
    )


def title(status: int) -> str:
    if status in TITLES:
        return TITLES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problem(status: int, reason: str, detail: str = "", **members: Any) -> bytes:
    """The body of an RFC 9457 problem; `reason` is for machines, `detail` for people."""
    body = {"type": "about:blank", "title": title(status), "status": status, "reason": reason}
    if detail:
        body["detail"] = detail
    body |= {name: value for name, value in members.items() if value}
    return json.dumps(body, ensure_ascii=False).encode() + b"\n"


async def answer(
    scope: Scope,
    send: Send,
    status: int,
    body: bytes,
    headers: Headers = (),
    content_type: bytes = b"application/problem+json",
) -> None:
    """Send a whole answer. A WebSocket that is not accepted yet gets it as a denial, or a close code without
    one.
    """
    if scope["type"] == "websocket":
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send(
                {"type": "websocket.close", "code": CLOSE_CODES.get(status, 1008), "reason": title(status)}
            )
            return
        kind = "websocket.http.response"
    else:
        kind = "http.response"
    content = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))] if body else []
    if not body and status not in (204, 304):
        content = [(b"content-length", b"0")]
    await send({"type": f"{kind}.start", "status": status, "headers": [*content, *headers]})
    await send({"type": f"{kind}.body", "body": body})


def extension(scope: Scope, name: str) -> Mapping[str, Any] | None:
    """What the server says about an ASGI extension that it offers, or None."""
    found: Mapping[str, Any] | None = (scope.get("extensions") or {}).get(name)
    return found
