"""The only place that writes the status and the header fields of an HTTP/1 answer."""

import re
from collections.abc import Iterable
from http import HTTPStatus

from ..asgi import Header, Headers, problem

CONTROLS = bytes(set(range(0x20)) - set(b"\t\r\n")) + b"\x7f"
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})
"""What a connection says to its other end: the server's own business."""
PLAIN = set(
    b"accept-ranges access-control-allow-origin age cache-control content-disposition content-encoding "
    b"content-language content-length content-range content-type date etag expires last-modified link "
    b"location retry-after server set-cookie vary via x-request-id".split()
)
"""Names in lower case that need no look at their letters. Those that apps use join them, up to a bound."""
MOST = 1000
LENGTH, DATE = b"content-length", b"date"
FIELD = b": ".join


def status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}".encode()


STATUS_LINES = {status: status_line(status) for status in range(200, 600)}


def head(status: int, headers: Headers, defaults: Iterable[Header]) -> tuple[bytes, int | None, bool]:
    """The lines of an answer, its content-length, and whether the app asks to close the connection.

    Hop-by-hop fields are left out, as is a content-length of 204. `defaults` holds the date, for an answer
    that brings none. RuntimeError for a field that would break out of its line.
    """
    if type(headers) is not list:
        headers = list(headers)
    names, close = [name for name, _ in headers], False
    lengths = names.count(LENGTH)
    # Most answers hold nothing that has to be looked at field by field.
    if not PLAIN.issuperset(names) or lengths > 1 or status == 204:
        headers, close = proper(status, headers)
        names = [name for name, _ in headers]
        lengths = names.count(LENGTH)
    length = read_length(headers[names.index(LENGTH)][1]) if lengths else None
    lines = [STATUS_LINES.get(status) or status_line(status), *map(FIELD, headers)]
    if DATE not in names:
        lines += map(FIELD, defaults)
    lines.append(b"")
    written = b"\r\n".join(lines)
    check(written, len(lines) - 1)
    return written, length, close


def proper(status: int, headers: Headers) -> tuple[list[Header], bool]:
    """What of some fields an app may say, with names in lower case, and whether it asks to close."""
    kept: list[Header] = []
    length: bytes | None = None
    close = False
    for name, value in headers:
        if name not in PLAIN:
            name = name.lower()
            if name in HOP_BY_HOP:
                close = close or (name == b"connection" and b"close" in value.lower())
                continue
            if not TOKEN.fullmatch(name):
                raise RuntimeError(f"{name!r} is not the name of a header")
            if len(PLAIN) < MOST:
                PLAIN.add(name)
        if name == LENGTH:
            if length is not None or status == 204:
                if length is not None and read_length(value) != read_length(length):
                    raise RuntimeError(f"content-length {value!r} has no meaning here")
                continue
            length = value
        kept.append((name, value))
    return kept, close


def trailers(headers: Headers) -> bytes:
    """The lines behind the last chunk of a body. RuntimeError for one that would break out of its line."""
    lines = [name.lower() + b": " + value for name, value in headers if TOKEN.fullmatch(name)]
    written = b"\r\n".join([*lines, b"", b""]) if lines else b"\r\n"
    check(written, len(lines) + 1)
    return written


def read_length(value: bytes) -> int:
    if not value.isdigit():
        raise RuntimeError(f"content-length {value!r} has no meaning here")
    return int(value)


def check(written: bytes, lines: int) -> None:
    """RuntimeError if a header would break out of its line, or holds what no header may hold."""
    flat = written.replace(b"\r\n", b"")
    if len(written) - len(flat) == 2 * lines and flat.decode("latin-1").isprintable():
        # Most answers: cheaper than the two looks below.
        return
    if written.count(b"\n") != lines or written.count(b"\r") != lines:
        raise RuntimeError("a header of the answer holds a line break")
    if len(written.translate(None, CONTROLS)) != len(written):
        raise RuntimeError("a header of the answer holds a control character")


def farewell(status: int, reason: str, detail: str, defaults: Iterable[Header]) -> bytes:
    """A whole answer, a problem, that ends its connection."""
    body = problem(status, reason, detail)
    headers = [(b"content-type", b"application/problem+json")]
    end = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return head(status, headers, defaults)[0] + end + body
