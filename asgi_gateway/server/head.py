"""The only place that says which heads of requests do not come in."""

import logging

import httptools

from ..asgi import Headers, header

logger = logging.getLogger("asgi_gateway")


class Refused(Exception):
    """A request that does not reach the app, and what its caller is told."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(status, reason, detail)
        self.status = status
        self.reason = reason
        self.detail = detail

    @classmethod
    def bad(cls, detail: str) -> "Refused":
        return cls(400, "bad_request", detail)

    @classmethod
    def of(cls, error: httptools.HttpParserError) -> "Refused":
        """What to tell a caller whose bytes the parser, or one of our callbacks, does not take."""
        if not isinstance(error, httptools.HttpParserCallbackError):
            return cls.bad(f"this is not HTTP/1.1: {error}")
        if isinstance(error.__context__, Refused):
            return error.__context__
        logger.error("a request could not be read", exc_info=error.__context__)
        return cls(500, "internal_error", "the request could not be read")


def too_large() -> Refused:
    return Refused(431, "headers_too_large", "the header fields are larger than this gateway allows")


def size(headers: Headers) -> int:
    """Bytes of the fields as they came, with their separators."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def origin_form(url: bytes, headers: Headers) -> bytes:
    """`/path?query` out of `http://host/path?query`, which has to agree with Host (RFC 9112 3.2.2)."""
    scheme, _, rest = url.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    if scheme.lower() not in (b"http", b"https") or not slash:
        raise Refused.bad("the request target is neither a path nor a whole URL")
    if authority.lower() != (header(headers, b"host") or b"").lower():
        raise Refused.bad("the request target and the Host header name different hosts")
    return slash + path


def framing(headers: Headers) -> bytes:
    """The fields that say how long a body is."""
    names = (b"content-length", b"transfer-encoding")
    return b"".join(b"%b: %b\r\n" % field for field in headers if field[0] in names)
