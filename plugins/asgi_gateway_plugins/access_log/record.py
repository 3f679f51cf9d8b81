"""What a line of the access log says about a request."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from asgi_gateway.asgi import header
from asgi_gateway.exchange import Exchange

Line = Callable[[Exchange], bytes]
Now = Callable[[], float]

Name = Literal[
    "time",
    "id",
    "client",
    "method",
    "path",
    "route",
    "status",
    "duration_ms",
    "bytes",
    "upstream",
    "target",
    "attempts",
    "consumer",
    "outcome",
    "cause",
    "tags",
    "reported",
]

# Everything that could end a line, or a quoted word in it.
UNSAFE = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


def record(exchange: Exchange, now: float, *, query: bool) -> dict[str, Any]:
    """The members of a line. `now` is the time of day at the end of the request, in seconds."""
    calls = exchange.calls
    attempts = [target for call in calls for target in call.attempts]
    principal = exchange.principal
    return {
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "id": exchange.id,
        "client": exchange.client,
        "method": exchange.scope.get("method", "GET"),
        "path": path(exchange, query=query),
        "route": exchange.route,
        "status": exchange.status,
        "duration_ms": round((exchange.ended - exchange.started) * 1000, 3),
        "bytes": exchange.sent,
        "upstream": calls[-1].upstream if calls else "",
        "target": attempts[-1].name if attempts else "",
        "attempts": len(attempts),
        "consumer": principal.consumer if principal is not None else "",
        "outcome": exchange.outcome,
        "cause": exchange.cause,
        "tags": exchange.tags or {},
        "reported": [
            {"component": refusal.component, "status": refusal.status, "reason": refusal.reason}
            for refusal in exchange.reported or ()
        ],
    }


def path(exchange: Exchange, *, query: bool) -> str:
    """The path that was matched; what the caller sent if it was refused before that."""
    scope = exchange.scope
    sent = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
    found = exchange.path or sent.decode("latin-1")
    if query and (text := scope.get("query_string", b"")):
        return f"{found}?{text.decode('latin-1')}"
    return found


def json_lines(now: Now, fields: tuple[Name, ...], *, query: bool) -> Line:
    """The function that writes a request as one JSON object."""
    from msgspec.json import Encoder

    # Tags may hold anything; and text that is not UTF-8 must not cost the line.
    encode = Encoder(enc_hook=str).encode

    def line(exchange: Exchange) -> bytes:
        members = record(exchange, now(), query=query)
        if fields:
            members = {name: members[name] for name in fields}
        try:
            return encode(members) + b"\n"
        except UnicodeEncodeError:
            return encode(printable(members)) + b"\n"

    return line


def printable(members: dict[str, Any]) -> dict[str, Any]:
    return {name: escaped(str(found)) for name, found in members.items()}


def text_lines(now: Now, *, query: bool) -> Line:
    """The function that writes a request as in the combined log, with some words more at its end."""

    def line(exchange: Exchange) -> bytes:
        members = record(exchange, now(), query=query)
        scope = exchange.scope
        words = {name: escaped(str(found)) or "-" for name, found in members.items()}
        day = datetime.fromtimestamp(now(), UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
        words["consumer"] = words["consumer"].replace(" ", "\\x20")
        return (
            f"{words['client']} - {words['consumer']} [{day}] "
            f'"{words["method"]} {words["path"]} HTTP/{escaped(scope.get("http_version", "1.1"))}" '
            f'{words["status"]} {words["bytes"]} "-" "{agent(exchange)}" '
            f"{words['duration_ms']} {words['id']} {words['route']} {words['outcome']} {words['cause']}\n"
        ).encode()

    return line


def agent(exchange: Exchange) -> str:
    return escaped((header(exchange.scope["headers"], b"user-agent") or b"-").decode("latin-1"))


def escaped(text: str) -> str:
    """A text that cannot end the line that it stands in, nor a quoted word."""
    return UNSAFE.sub(hexadecimal, text)


def hexadecimal(found: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode(errors="replace"))
