"""Compresses answers for callers who take that (RFC 9110 8.4 and 12.5.3)."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from asgi_gateway.asgi import ASGIApp, Header, Message, Receive, Scope, Send, extension
from asgi_gateway.call import CALL, Call
from asgi_gateway.component import Build, Component
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage
from asgi_gateway.units import Size

from .codings import Coding, Compressor, compressor
from .fields import values

LARGE = 32 * 1024
"""Bytes of a piece that is compressed beside the event loop."""
REMEMBERED = 512
"""Values of Accept-Encoding and Content-Type whose meaning is remembered."""
LONGEST = 256
"""Bytes of such a value."""
TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+|[a-z]+/\*(?:\+[a-z]+)?|\*/\*(?:\+[a-z]+)?")
QUALITY = re.compile(rb"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)

CODED = frozenset({b"content-encoding", b"content-range", b"content-md5"})
DIGESTS = frozenset({b"digest", b"content-digest", b"repr-digest"})
LEFT_ALONE = CODED | DIGESTS
"""Fields whose answer is left as it is: it is coded, it is a part, or somebody has its digest."""
NO_BODY = frozenset({204, 205, 206, 304})
CHANGED = frozenset({b"content-length", b"accept-ranges", b"etag"})
SENT_BY_FILE = ("http.response.pathsend", "http.response.zerocopysend")
"""Ways around `send` for the bytes of a file, where a server has them."""

VARY: Header = (b"vary", b"accept-encoding")
TYPES = (
    "text/*",
    "application/json",
    "application/*+json",
    "application/javascript",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "application/x-ndjson",
    "image/svg+xml",
)


def read_type(text: str) -> str:
    if not TYPE.fullmatch(lower := text.lower()):
        raise mistake(f"{text!r} is not a media type", "as in text/*, application/json or */*+json", text)
    return lower


def read_encodings(encodings: tuple[Coding, ...]) -> tuple[Coding, ...]:
    if not encodings:
        raise mistake("names no coding", "as in [br, gzip]")
    if len(set(encodings)) != len(encodings):
        raise mistake("names a coding twice")
    return encodings


Choose = Callable[[Scope], Coding | None]
Fits = Callable[[Message], bool]


class Compress(Component, name="compress", stage=Stage.TRANSFORM, rank=-30):
    """Compresses answers for callers who take that, piece by piece while they stream."""

    encodings: Annotated[tuple[Coding, ...], AfterValidator(read_encodings)] = ("gzip",)
    """Which of `gzip`, `br` and `zstd`, the best first. The caller's weights count more."""
    types: Annotated[tuple[Annotated[str, AfterValidator(read_type)], ...], Field(min_length=1)] = TYPES
    """Media types that are compressed. Event streams never are."""
    min_size: Size = 1024
    """Answers with a smaller Content-Length are left alone."""
    gzip_level: Annotated[int, Field(ge=1, le=9)] = 5
    """From fast to small."""
    br_level: Annotated[int, Field(ge=0, le=11)] = 4
    """From fast to small."""
    zstd_level: Annotated[int, Field(ge=1, le=19)] = 3
    """From fast to small."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        levels = {"gzip": self.gzip_level, "br": self.br_level, "zstd": self.zstd_level}
        makers = {name: compressor(name, levels[name], "encodings") for name in self.encodings}
        choose, fits = chooser(self.encodings), self.fits()

        def mark(exchange: Exchange, message: Message) -> None:
            if fits(message):
                message["headers"] = varied(list(message.get("headers", ())))

        def judge(exchange: Exchange, call: Call, message: Message) -> None:
            mark(exchange, message)

        def compress(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            coding = choose(scope) if scope["method"] != "HEAD" else None
            if coding is not None:
                made = Compressing(send, coding.encode(), makers[coding], fits)
                return app(through_send(scope), receive, made.send)
            # What another caller would get compressed depends on Accept-Encoding for this one, too.
            exchange: Exchange = scope[EXCHANGE]
            call: Call | None = scope.get(CALL)
            if call is None:
                exchange.on_start(mark)
            else:
                call.judge(partial(judge, exchange))
            return app(scope, receive, send)

        return compress

    def fits(self) -> Fits:
        """Whether the answer with this head is compressed for those who take it."""
        is_wanted, least = wanted(self.types), self.min_size

        def fits(message: Message) -> bool:
            if message["status"] in NO_BODY or message["status"] < 200:
                return False
            kind, length = b"", least
            for name, text in message.get("headers", ()):
                if name == b"content-type":
                    kind = text
                elif name == b"content-length":
                    length = int(text)
                elif name in LEFT_ALONE or (name == b"cache-control" and b"no-transform" in text.lower()):
                    return False
            return length >= least and is_wanted(kind)

        return fits


class Compressing:
    """The `send` of one request: it decides at the head, and codes the body."""

    __slots__ = ("_coding", "_compressor", "_fits", "_make", "_send")

    def __init__(self, send: Send, coding: bytes, make: Callable[[], Compressor], fits: Fits) -> None:
        self._send = send
        self._coding = coding
        self._make = make
        self._fits = fits
        self._compressor: Compressor | None = None

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.start":
            # Every attempt has a head of its own.
            self._compressor = None
            if self._fits(message):
                self._compressor = self._make()
                message = {**message, "headers": coded(message["headers"], self._coding)}
        elif self._compressor is not None and kind == "http.response.body":
            body, more = message.get("body", b""), message.get("more_body", False)
            if len(body) > LARGE:
                return self._beside(self._compressor, message, body, more)
            if body or not more:
                code = self._compressor.piece if more else self._compressor.last
                message = {**message, "body": code(body)}
        return self._send(message)

    async def _beside(self, compressor: Compressor, message: Message, body: bytes, more: bool) -> None:
        """Other requests go on meanwhile."""
        code = compressor.piece if more else compressor.last
        await self._send({**message, "body": await asyncio.to_thread(code, body)})


def through_send(scope: Scope) -> Scope:
    """The scope for an app that has no way around `send`."""
    if not any(extension(scope, name) is not None for name in SENT_BY_FILE):
        return scope
    kept = {name: what for name, what in scope["extensions"].items() if name not in SENT_BY_FILE}
    return {**scope, "extensions": kept}


def coded(headers: Iterable[Header], coding: bytes) -> list[Header]:
    """The head of an answer whose body is coded on the way."""
    kept = []
    for name, text in headers:
        if name not in CHANGED:
            kept.append((name, text))
        elif name == b"etag":
            # The bytes are others now: what is equal is only what they mean (RFC 9110 8.8.1).
            kept.append((name, text if text.startswith(b"W/") else b"W/" + text))
    kept.append((b"content-encoding", coding))
    return varied(kept)


def varied(headers: list[Header]) -> list[Header]:
    """The head that says that the answer depends on Accept-Encoding."""
    for name, text in headers:
        if name == b"vary" and {part.strip().lower() for part in text.split(b",")} & {b"*", VARY[1]}:
            return headers
    headers.append(VARY)
    return headers


def wanted(types: Iterable[str]) -> Callable[[bytes], bool]:
    """Whether a Content-Type is one of these; it is remembered."""
    patterns = [re.escape(pattern).replace(r"\*", "[^/ ]*") for pattern in types]
    fits = re.compile("|".join(patterns)).fullmatch
    known: dict[bytes, bool] = {}

    def is_wanted(kind: bytes) -> bool:
        found = known.get(kind)
        if found is None:
            bare = kind.partition(b";")[0].strip().lower().decode("latin-1")
            found = bare != "text/event-stream" and fits(bare) is not None
            if len(known) < REMEMBERED and len(kind) <= LONGEST:
                known[kind] = found
        return found

    return is_wanted


def chooser(encodings: tuple[Coding, ...]) -> Choose:
    """The function that says which coding a caller gets, or None for none; it is remembered."""
    known: dict[bytes, Coding | None] = {b"": None}

    def choose(scope: Scope) -> Coding | None:
        accept = values(scope, b"accept-encoding")
        if accept in known:
            return known[accept]
        found = best(accept, encodings)
        if len(known) < REMEMBERED and len(accept) <= LONGEST:
            known[accept] = found
        return found

    return choose


def best(accept: bytes, encodings: Iterable[Coding]) -> Coding | None:
    """The coding with the greatest weight (RFC 9110 12.5.3); between equals the first one."""
    weights = read_weights(accept)
    others = weights.get(b"*", 0.0)
    chosen: Coding | None = None
    # Who says nothing of identity takes it, and would rather have what was asked for.
    greatest = weights.get(b"identity", 0.0)
    for coding in encodings:
        weight = weights.get(coding.encode(), others)
        if weight > greatest or (weight == greatest and chosen is None and weight > 0):
            chosen, greatest = coding, weight
    return chosen


def read_weights(accept: bytes) -> Mapping[bytes, float]:
    """The weight of each coding; what cannot be read is not wanted."""
    weights: dict[bytes, float] = {}
    for part in accept.split(b","):
        name, _, parameters = part.partition(b";")
        name = name.strip().lower().removeprefix(b"x-")
        weight = 1.0
        if parameters := parameters.strip():
            found: Any = QUALITY.fullmatch(parameters)
            weight = float(found[1]) if found else 0.0
        weights.setdefault(name, weight)
    return weights
