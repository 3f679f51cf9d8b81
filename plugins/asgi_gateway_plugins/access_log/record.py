"""What a line of the access log says about a request."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Literal, get_args

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

NAMES: tuple[Name, ...] = get_args(Name)

# Everything that could end a line, or a quoted word in it.
UNSAFE = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


class Moments:
    """Times of day as RFC 3339 writes them, in UTC. Under load many requests end in one millisecond: each is
    written once.
    """

    __slots__ = ("_millisecond", "_second", "_seconds", "_written")

    def __init__(self) -> None:
        self._second = self._millisecond = -1
        self._seconds = self._written = ""

    def write(self, now: float) -> str:
        """`now` in seconds; what is less than a millisecond is cut off."""
        millisecond = int(now * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            second, rest = divmod(millisecond, 1000)
            if second != self._second:
                self._seconds = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
                self._second = second
            self._written = f"{self._seconds}.{rest:03d}Z"
        return self._written


def record(exchange: Exchange, time: str, *, query: bool) -> tuple[Any, ...]:
    """The members of a line, in the order of NAMES. `time`: when the request ended."""
    calls = exchange.calls
    attempts = calls[0].attempts if len(calls) == 1 else [each for call in calls for each in call.attempts]
    principal = exchange.principal
    return (
        time,
        exchange.id,
        exchange.client,
        exchange.scope.get("method", "GET"),
        path(exchange, query=query),
        exchange.route,
        exchange.status,
        # round() to three places costs three times as much.
        int((exchange.ended - exchange.started) * 1e6 + 0.5) / 1000,
        exchange.sent,
        calls[-1].upstream if calls else "",
        attempts[-1].name if attempts else "",
        len(attempts),
        principal.consumer if principal is not None else "",
        exchange.outcome,
        exchange.cause,
        exchange.tags or {},
        reports(exchange.reported) if exchange.reported else (),
    )


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
    from msgspec import defstruct
    from msgspec.json import Encoder

    # Tags may hold anything; and text that is not UTF-8 must not cost the line.
    encode = Encoder(enc_hook=str).encode
    moment = Moments().write
    names = tuple(dict.fromkeys(fields)) or NAMES
    # Encoded in half the time of a dict.
    shape = defstruct("Line", names, gc=False)
    chosen = chooser(names) if names != NAMES else None

    def line(exchange: Exchange) -> bytes:
        members = record(exchange, moment(now()), query=query)
        if chosen is not None:
            members = chosen(members)
        try:
            return encode(shape(*members)) + b"\n"
        except UnicodeEncodeError:
            return encode(shape(*[escaped(str(found)) for found in members])) + b"\n"

    return line


def chooser(fields: tuple[Name, ...]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """The function that takes these members out of all."""
    places = [NAMES.index(name) for name in fields]
    if len(places) == 1:
        return lambda members: (members[places[0]],)
    return itemgetter(*places)


def text_lines(now: Now, *, query: bool) -> Line:
    """The function that writes a request as in the combined log, with some words more at its end."""

    def line(exchange: Exchange) -> bytes:
        members = record(exchange, "", query=query)
        scope = exchange.scope
        words = {name: escaped(str(found)) or "-" for name, found in zip(NAMES, members, strict=True)}
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
