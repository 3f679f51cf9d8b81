"""The only place that frames the body of a request (RFC 9112 6), and holds it to what its head says."""

from ..asgi import Message
from ..errors import CallerLeft

LENGTH, CODING = b"\r\ncontent-length: ", b"\r\ntransfer-encoding: "


class Upload:
    """The bytes of a request with a body. A head that says nothing of it gets what the first piece tells."""

    __slots__ = ("_chunked", "_left", "first", "more")

    def __init__(self, head: bytes, message: Message) -> None:
        """`message` is the first piece of the body."""
        self._chunked, self._left = False, 0
        body, self.more = body_of(message), message.get("more_body", False)
        if CODING in head:
            self._chunked = True
        elif (at := head.find(LENGTH)) >= 0:
            self._left = int(head[at + len(LENGTH) : head.index(b"\r\n", at + 2)])
        elif self.more:
            head, self._chunked = with_field(head, b"transfer-encoding: chunked"), True
        else:
            head, self._left = with_field(head, b"content-length: %d" % len(body)), len(body)
        self.first = head + self._framed(body)

    def piece(self, message: Message) -> bytes:
        """The next bytes to write. CallerLeft; RuntimeError if the body is not as long as the head says."""
        body, self.more = body_of(message), message.get("more_body", False)
        return self._framed(body)

    def _framed(self, body: bytes) -> bytes:
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if self.more else chunk + b"0\r\n\r\n"
        self._left -= len(body)
        # What is too long would be another request to the target, what is too short would swallow the next.
        if self._left < 0 or (self._left and not self.more):
            raise RuntimeError("the body of the request is not as long as its content-length says")
        return body


def body_of(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise CallerLeft
    body: bytes = message.get("body", b"")
    return body


def with_field(head: bytes, field: bytes) -> bytes:
    return head[:-2] + field + b"\r\n\r\n"
