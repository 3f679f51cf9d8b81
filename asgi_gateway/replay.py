"""The only place that holds the body of a request: read once up to a cap, replayed to whoever receives it."""

from collections.abc import Callable

from .asgi import Message, Receive
from .errors import CallerLeft
from .exchange import Exchange


class Replay:
    """The body of one request, in the pieces in which it came."""

    __slots__ = ("_more", "_receive", "chunks", "lost", "size")

    def __init__(self, receive: Receive, *, empty: bool = False) -> None:
        self._receive = receive
        self._more = not empty
        self.chunks: list[bytes] = []
        self.size = 0
        self.lost = False
        """Whether a reader has passed on what it did not keep: nobody can begin anew."""

    @classmethod
    def of(cls, exchange: Exchange, receive: Receive) -> "Replay":
        """The one of this request, which everybody shares who needs the body before it goes upstream."""
        if exchange.replay is None:
            exchange.replay = cls(receive, empty=not exchange.has_body)
        return exchange.replay

    @property
    def whole(self) -> bool:
        """Whether it was read to its end."""
        return not self._more

    async def read(self, cap: int, each: Callable[[bytes], object] | None = None) -> bool:
        """Read it whole; False: it has more bytes than `cap`. `each` is shown every piece, once, in order."""
        if each is not None:
            for chunk in self.chunks:
                each(chunk)
        while self._more and self.size <= cap:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise CallerLeft
            chunk = message.get("body", b"")
            self._more = message.get("more_body", False)
            if chunk:
                self.chunks.append(chunk)
                self.size += len(chunk)
                if each is not None:
                    each(chunk)
        return self.size <= cap

    def reader(self, keep: int = 0) -> Receive:
        """A `receive` that begins with the first byte; behind what was read it goes on with the caller's.

        With `keep` the next reader can begin anew, too, unless the body has more bytes than that.
        """
        position = 0
        whole = not self.chunks and not self._more

        async def receive() -> Message:
            nonlocal position, whole
            if whole:
                whole = False
                return {"type": "http.request", "body": b"", "more_body": False}
            if position < len(self.chunks):
                chunk = self.chunks[position]
                position += 1
                more = self._more or position < len(self.chunks)
                return {"type": "http.request", "body": chunk, "more_body": more}
            message = await self._receive()
            if keep and self._more:
                self._keep(message, keep)
                position = len(self.chunks)
            return message

        return receive

    def _keep(self, message: Message, most: int) -> None:
        chunk = message.get("body", b"")
        self.size += len(chunk)
        if self.size > most or message["type"] != "http.request":
            self.lost = True
            self.chunks.clear()
            return
        self._more = message.get("more_body", False)
        if chunk:
            self.chunks.append(chunk)
