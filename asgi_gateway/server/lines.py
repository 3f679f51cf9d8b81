"""The only place that writes the status and the header fields of an HTTP/1 answer."""

import re
from collections.abc import Iterable
from http import HTTPStatus

from ..asgi import Header, Headers, problem

CONTROLS = bytes(set(range(0x20)) - set(b"\t\r\n")) + b"\x7f"
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})
"""What a connection says to its other end: the server's own business."""
COMMON = {
    name: name + b": "
    for name in (
        b"accept-ranges age cache-control content-disposition content-encoding content-language "
        b"content-range content-type etag expires last-modified link location retry-after server "
        b"set-cookie vary via"
    ).split()
}
"""Names that need no look at their letters."""


def status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}".encode()


STATUS_LINES = {status: status_line(status) for status in range(200, 600)}


def head(status: int, headers: Headers, defaults: Iterable[Header]) -> tuple[bytes, int | None, bool]:
    """The lines of an answer, its content-length, and whether the app asks to close the connection.

    Hop-by-hop fields and content-length are left out. `defaults` holds the date, for an answer that brings
    none. RuntimeError for a field that would break out of its line.
    """
    lines = [STATUS_LINES.get(status) or status_line(status)]
    length: int | None = None
    close = False
    for name, value in headers:
        prefix = COMMON.get(name)
        if prefix is None:
            name = name.lower()
            if name == b"content-length":
                length = read_length(value, length)
                continue
            if name in HOP_BY_HOP:
                close = close or (name == b"connection" and b"close" in value.lower())
                continue
            if name == b"date":
                defaults = ()
            elif not TOKEN.fullmatch(name):
                raise RuntimeError(f"{name!r} is not the name of a header")
            prefix = name + b": "
        lines.append(prefix + value)
    lines += [name + b": " + value for name, value in defaults]
    lines.append(b"")
    written = b"\r\n".join(lines)
    check(written, len(lines) - 1)
    return written, length, close


def trailers(headers: Headers) -> bytes:
    """The lines behind the last chunk of a body. RuntimeError for one that would break out of its line."""
    lines = [name.lower() + b": " + value for name, value in headers if TOKEN.fullmatch(name)]
    written = b"\r\n".join([*lines, b"", b""]) if lines else b"\r\n"
    check(written, len(lines) + 1)
    return written


def read_length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or before not in (None, int(value)):
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
