"""The only place that says what carries a request to a target: the seam below which no policy lives."""

from typing import Protocol

from ..asgi import Header, Receive
from ..call import Call


class Answer(Protocol):
    """What came back from a target. The head is there; the body may still be on its way."""

    status: int
    headers: list[Header]
    """Names in lower case, in the order and with the duplicates of the wire; without those that belong to the
    connection.
    """
    chunked: bool
    """Whether trailers may follow its body."""
    complete: bool
    """Whether the last byte has arrived, so that `take` gives the rest."""
    trailers: list[Header]
    """Trailer fields, once the answer is complete."""

    def take(self) -> bytes:
        """The body bytes that have arrived and were not taken yet; never waits."""
        ...

    async def read(self) -> bytes:
        """The next body bytes, b"" at the end; UpstreamError when the rest will not come."""
        ...

    def close(self) -> None:
        """Let go of it; whatever is still on its way is dropped together with its connection."""
        ...


class Transport(Protocol):
    """Sends a request to one target, and brings the answer."""

    async def send(self, method: str, head: bytes, receive: Receive | None, call: Call) -> Answer:
        """Send `head` (request line, fields and the empty line), and the body that `receive` gives.

        `receive` is None where the request has no body. A head without Content-Length and Transfer-
        Encoding leaves
        the framing of the body to the transport. Raises UpstreamError.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections, the idle ones and those in use."""
        ...
