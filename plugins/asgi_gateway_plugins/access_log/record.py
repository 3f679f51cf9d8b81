"""What a line of the access log says about a request."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from asgi_gateway.asgi import Scope, header
from asgi_gateway.component import Refusal
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


class Moments:
    """Times of day as RFC 3339 writes them, in UTC. Many requests end in one second: it is written once."""

    __slots__ = ("_second", "_written")

    def __init__(self) -> None:
        self._second = -1
        self._written = ""

    def write(self, now: float) -> str:
        """`now` in seconds; what is less than a millisecond is cut off."""
        second = int(now)
        if second != self._second:
            self._written = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = second
        return f"{self._written}.{int((now - second) * 1000):03d}Z"


def record(exchange: Exchange, time: str, *, query: bool) -> dict[str, Any]:
    """The members of a line. `time`: when the request ended."""
    calls = exchange.calls
    attempts = calls[0].attempts if len(calls) == 1 else [each for call in calls for each in call.attempts]
    principal = exchange.principal
    return {
        "time": time,
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
        "reported": reports(exchange.reported) if exchange.reported else (),
    }


def reports(refusals: list[Refusal]) -> list[dict[str, Any]]:
    return [
        {"component": refusal.component, "status": refusal.status, "reason": refusal.reason}
        for refusal in refusals
    ]


def path(exchange: Exchange, *, query: bool) -> str:
    """The path that was matched; what the caller sent if it was refused before that."""
    found = exchange.path or sent(exchange.scope)
    if query and (text := exchange.scope.get("query_string", b"")):
        return f"{found}?{text.decode('latin-1')}"
    return found


def sent(scope: Scope) -> str:
    raw: bytes = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
    return raw.decode("latin-1")


def json_lines(now: Now, fields: tuple[Name, ...], *, query: bool) -> Line:
    """The function that writes a request as one JSON object."""
    from msgspec.json import Encoder

    # Tags may hold anything; and text that is not UTF-8 must not cost the line.
    encode = Encoder(enc_hook=str).encode
    moment = Moments().write

    def line(exchange: Exchange) -> bytes:
        members = record(exchange, moment(now()), query=query)
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
        members = record(exchange, "", query=query)
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
