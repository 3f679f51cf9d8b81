"""The only place that reads answers out of the bytes of a target (RFC 9112)."""

import asyncio
from collections.abc import Sequence

import httptools

from ..asgi import Header
from ..hops import HOP_BY_HOP, unnamed
from .answer import Http1Answer

HEAD_BYTES = 64 * 1024
"""The largest head of an answer, with all interim answers before it; and the most of its trailers."""

TOO_LARGE = f"its fields are larger than {HEAD_BYTES} bytes"

TOO_LATE = 408
NO_BODY = frozenset({204, 304})
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
SPECIAL = HOP_BY_HOP | FRAMING
"""Fields that say something about the connection or the message on it."""
SPACE = 0x20


class Reading(asyncio.Protocol):
    """What the parser tells of one answer after the other, and what that says about the connection."""

    __slots__ = (
        "_bodiless",
        "_buffered",
        "_head",
        "_headers",
        "_interim",
        "_keep_alive",
        "_method",
        "_parser",
        "_special",
        "_until_close",
        "answer",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.answer: Http1Answer | None = None
        """The one that is due."""
        self._expect_answer("")

    def _expect_answer(self, method: str) -> None:
        """A request with this method goes out: what comes now is its answer."""
        self._method = method
        self._head = False
        self._headers: list[Header] = []
        self._special: list[Header] = []
        """The fields of the head that its connection and its framing depend on."""
        self._interim = False
        self._until_close = False
        self._keep_alive = False
        self._buffered = 0
        self._bodiless = 0
        """Bytes since the last piece of a body: head, interim answers, sizes of chunks, trailers."""

    def on_message_begin(self) -> None:
        if self.answer is None or self.answer.complete:
            # A second answer behind the first, or a part of one: it would become part of the next.
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if value and value[-1] <= SPACE:
            # The parser leaves blanks behind a value, which are no part of it (RFC 9112 5.1). But a tab
            # behind `chunked` is another coding to it.
            value = value.rstrip(b" " if name == b"transfer-encoding" else b" \t")
        if name in SPECIAL:
            self._special.append((name, value))
            if name != b"content-length":
                return
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        if status < 100 or version not in ("1.1", "1.0"):
            raise ValueError(f"HTTP/{version} {status} is not spoken here")
        if status < 200:
            self._interim = True
            return
        answer = self.answer
        if answer is None or answer.complete:
            return
        headers, self._headers = self._headers, []
        special, self._special = self._special, []
        # What came with the end of the head may be body: only then the fields are counted.
        if self._bodiless > HEAD_BYTES < size(headers) + size(special):
            raise ValueError(TOO_LARGE)
        framing = [pair for pair in special if pair[0] in FRAMING]
        if framing and not has_one_meaning(framing, version):
            raise ValueError("its framing has more than one meaning")
        if len(special) > len(framing):
            headers = unnamed(headers, [value for name, value in special if name == b"connection"])
        answer.status, answer.headers = status, headers
        answer.chunked = (b"transfer-encoding", b"chunked") in framing
        # A 408 may answer nothing, said while the request was on its way: the right one comes behind.
        self._keep_alive = self._parser.should_keep_alive() and status != TOO_LATE
        self._head = True
        self._bodiless = 0
        if self._method == "HEAD":
            answer.complete = True
        elif status not in NO_BODY:
            self._until_close = not framing

    def on_body(self, body: bytes) -> None:
        answer = self.answer
        if answer is None or answer.complete:
            self._keep_alive = False
            return
        answer.chunks.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        answer, fields, self._headers = self.answer, self._headers, []
        if self._interim:
            self._interim, self._special = False, []
        elif answer is not None and not answer.complete:
            answer.complete = True
            answer.trailers = fields


def size(headers: Sequence[Header]) -> int:
    """Bytes of the fields, with their separators."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def has_one_meaning(framing: Sequence[Header], version: str) -> bool:
    """One length, or exactly `chunked`, which only HTTP/1.1 has (RFC 9112 6.1 to 6.3)."""
    (name, value), *more = framing
    return not more and (name == b"content-length" or (value.lower() == b"chunked" and version == "1.1"))
