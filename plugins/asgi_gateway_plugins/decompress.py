"""Decompresses the bodies of requests (RFC 9110 8.4), up to a size and a ratio."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.errors import Aborted
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage
from asgi_gateway.units import Size

from .codings import Decompressor, decompressor
from .fields import values

PIECE = 64 * 1024
"""Bytes that are decoded at one time."""
GRACE = 64 * 1024
"""Bytes of a body that are not held against its ratio: a few words repeated are no bomb."""
GONE = frozenset(
    {
        b"content-digest",
        b"content-encoding",
        b"content-length",
        b"content-md5",
        b"digest",
        b"repr-digest",
    }
)
"""What says something of the coded bytes only."""

Encoding = Literal["gzip", "deflate", "br", "zstd"]

CORRUPT = Refusal(400, "corrupt_body", (), "The body is not coded as its Content-Encoding says.")
TRUNCATED = Refusal(400, "truncated_body", (), "The body ends too early.")


class Stopped(Exception):
    """Ends the call that was about to read what is refused."""


def read_encodings(encodings: tuple[Encoding, ...]) -> tuple[Encoding, ...]:
    if not encodings:
        raise mistake("names no coding", "as in [gzip, br]")
    if len(set(encodings)) != len(encodings):
        raise mistake("names a coding twice")
    return encodings


class Decompress(Component, name="decompress", stage=Stage.TRANSFORM, rank=-16, refuses=True):
    """Decompresses the bodies of requests while they stream, and refuses those that grow too large."""

    encodings: Annotated[tuple[Encoding, ...], AfterValidator(read_encodings)] = ("gzip", "deflate")
    """Which of `gzip`, `deflate`, `br` and `zstd` are taken; all others are refused with 415."""
    max_size: Size = 10 * 1024 * 1024
    """The largest body, decompressed; more is refused with 413."""
    max_ratio: Annotated[int, Field(ge=1)] = 100
    """How many times as large a body may become, past its first 64 KiB; more is refused with 413."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse, record = build.refuse(app), build.refuse(nothing)
        makers = {name.encode(): decompressor(name, "encodings") for name in self.encodings}
        if b"gzip" in makers:
            makers[b"x-gzip"] = makers[b"gzip"]
        accept = ", ".join(self.encodings)
        unknown = Refusal(
            415,
            "unknown_coding",
            ((b"accept-encoding", accept.encode()),),
            f"A body is coded with one of {accept}, or not at all.",
        )
        limits = Limits(self.max_size, self.max_ratio)

        async def decode(
            scope: Scope, receive: Receive, send: Send, make: Callable[[], Decompressor]
        ) -> None:
            exchange: Exchange = scope[EXCHANGE]
            decoding = Decoding(receive, send, make(), limits)
            headers = [field for field in scope["headers"] if field[0] not in GONE]
            # Whoever read the body before has the coded one; from here on it is another.
            exchange.replay = None
            try:
                await app({**scope, "headers": headers}, decoding.receive, decoding.send)
            except Exception:
                if decoding.refusal is None:
                    raise
            if decoding.refusal is None:
                return
            if not exchange.status:
                await refuse(scope, receive, send, decoding.refusal)
            elif not exchange.complete:
                exchange.cause = decoding.refusal.reason
                raise Aborted("the body of the request cannot be decoded, and its answer had begun")

        def watch(
            scope: Scope, receive: Receive, send: Send, make: Callable[[], Decompressor]
        ) -> Awaitable[None]:
            async def tell(refusal: Refusal) -> None:
                await record(scope, receive, send, refusal)

            return app(scope, Watching(receive, make(), limits, tell).receive, send)

        handle = watch if refuse.reporting else decode

        def decompress(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            if not exchange.has_body:
                return app(scope, receive, send)
            coding = values(scope, b"content-encoding").strip().lower()
            if not coding or coding == b"identity":
                return app(scope, receive, send)
            make = makers.get(coding)
            if make is None:
                return refuse(scope, receive, send, unknown)
            return handle(scope, receive, send, make)

        return decompress


class Limits:
    """How much a body may become."""

    __slots__ = ("ratio", "size", "too_large", "too_much")

    def __init__(self, size: int, ratio: int) -> None:
        self.size = size
        self.ratio = ratio
        self.too_large = Refusal(413, "body_too_large", (), f"The body is larger than {size} bytes.")
        self.too_much = Refusal(
            413, "body_too_large", (), f"The body is more than {ratio} times as large as what was sent."
        )


class Bounded:
    """Decodes a body, and says why it is refused."""

    __slots__ = ("_decompressor", "_given", "_limits", "_made", "refusal")

    def __init__(self, decompressor: Decompressor, limits: Limits) -> None:
        self._decompressor = decompressor
        self._limits = limits
        self._given = self._made = 0
        self.refusal: Refusal | None = None

    def piece(self, data: bytes) -> bytes:
        """The next piece of the body, decoded. Empty: there is none, or it is refused."""
        self._given += len(data)
        try:
            decoded = self._decompressor.piece(data, PIECE)
        except ValueError:
            self.refusal = CORRUPT
            return b""
        self._made += len(decoded)
        if self._made > self._limits.size:
            self.refusal = self._limits.too_large
        elif self._made > GRACE and self._made > self._given * self._limits.ratio:
            self.refusal = self._limits.too_much
        return decoded if self.refusal is None else b""

    @property
    def waiting(self) -> bool:
        return self._decompressor.waiting

    def end(self) -> None:
        """All of the body came."""
        if self._given and not self._decompressor.finished:
            self.refusal = TRUNCATED


class Decoding(Bounded):
    """The body of a request as it goes on. What is refused stops whoever reads it or answers."""

    __slots__ = ("_ended", "_more", "_receive", "_send")

    def __init__(self, receive: Receive, send: Send, decompressor: Decompressor, limits: Limits) -> None:
        super().__init__(decompressor, limits)
        self._receive = receive
        self._send = send
        self._more = True
        self._ended = False

    async def receive(self) -> Message:
        if self._ended:
            return await self._receive()
        while True:
            data = b""
            if not self.waiting and self._more:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                data = message.get("body", b"")
                self._more = message.get("more_body", False)
            body = self.piece(data) if data or self.waiting else b""
            more = self.refusal is None and (self._more or self.waiting)
            if not more and self.refusal is None:
                self.end()
            if self.refusal is not None:
                raise Stopped
            if body or not more:
                self._ended = not more
                return {"type": "http.request", "body": body, "more_body": more}

    def send(self, message: Message) -> Awaitable[None]:
        # An application that was stopped may want to tell the caller that it failed.
        if self.refusal is not None:
            raise Stopped
        return self._send(message)


class Watching(Bounded):
    """The body of a request that goes on as it came, and what would be said of it."""

    __slots__ = ("_receive", "_tell", "_watches")

    def __init__(
        self,
        receive: Receive,
        decompressor: Decompressor,
        limits: Limits,
        tell: Callable[[Refusal], Awaitable[None]],
    ) -> None:
        super().__init__(decompressor, limits)
        self._receive = receive
        self._tell = tell
        self._watches = True

    async def receive(self) -> Message:
        message = await self._receive()
        if self._watches and message["type"] == "http.request":
            data = message.get("body", b"")
            while (data or self.waiting) and self.refusal is None:
                self.piece(data)
                data = b""
            if not message.get("more_body", False) and self.refusal is None:
                self._watches = False
                self.end()
            if self.refusal is not None:
                self._watches = False
                await self._tell(self.refusal)
        return message


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Where a request goes on that is only recorded: it is on its way already."""
