"""Content codings (RFC 9110 8.4.1): gzip and deflate by the standard library, br and zstd by an extra."""

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, Protocol

from asgi_gateway.errors import ConfigError, Problem

Coding = Literal["gzip", "br", "zstd"]
WINDOW = 18
"""Binary logarithm of the window of br and zstd: each stream holds a few times as many bytes."""
LARGEST_WINDOW = 23
"""The largest window of zstd that a decoder has to know (RFC 9659)."""
GZIP, ZLIB, RAW = 31, 15, -15
MEMBERS = 1000
"""Members of one body: each costs a decoder."""


class Compressor(Protocol):
    """Codes one body, piece by piece."""

    def piece(self, data: bytes) -> bytes:
        """A piece of the body; whoever decodes gets all of it."""
        ...

    def last(self, data: bytes) -> bytes:
        """The last piece."""
        ...


class Decompressor(Protocol):
    """Decodes one body, piece by piece. ValueError for what is not coded so."""

    @property
    def finished(self) -> bool:
        """Whether what came so far is a whole body."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether there is more to be had of what came so far: ask with no data."""
        ...

    def piece(self, data: bytes, most: int) -> bytes:
        """Some `most` bytes of the body, or a few more."""
        ...


def missing(coding: str, library: str, where: str) -> ConfigError:
    return ConfigError(Problem(f"{coding} needs {library}", where, "pip install 'asgi-gateway[compress]'"))


def brotli(where: str) -> Any:
    try:
        return import_module("brotli")
    except ImportError:
        raise missing("br", "brotli", where) from None


def zstd(where: str) -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise missing("zstd", "backports.zstd", where)


# Compressing


def compressor(coding: Coding, level: int, where: str) -> Callable[[], Compressor]:
    """What makes a compressor for each body; ConfigError without the library."""
    if coding == "gzip":
        return lambda: Gzip(level)
    if coding == "br":
        library = brotli(where)
        return lambda: Brotli(library.Compressor(quality=level, lgwin=WINDOW))
    library = zstd(where)
    parameter = library.CompressionParameter
    options = {parameter.compression_level: level, parameter.window_log: WINDOW}
    return lambda: Zstd(library.ZstdCompressor(options=options))


class Gzip:
    """RFC 1952."""

    __slots__ = ("_stream",)

    def __init__(self, level: int) -> None:
        self._stream = zlib.compressobj(level, zlib.DEFLATED, GZIP)

    def piece(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def last(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush()


class Brotli:
    """RFC 7932."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def piece(self, data: bytes) -> bytes:
        coded: bytes = self._stream.process(data) + self._stream.flush()
        return coded

    def last(self, data: bytes) -> bytes:
        coded: bytes = self._stream.process(data) + self._stream.finish()
        return coded


class Zstd:
    """RFC 8878."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def piece(self, data: bytes) -> bytes:
        coded: bytes = self._stream.compress(data, self._stream.FLUSH_BLOCK)
        return coded

    def last(self, data: bytes) -> bytes:
        coded: bytes = self._stream.compress(data, self._stream.FLUSH_FRAME)
        return coded


# Decompressing


def decompressor(coding: str, where: str) -> Callable[[], Decompressor]:
    """What makes a decompressor for each body; ConfigError without the library."""
    if coding == "gzip":
        return lambda: Several(Inflate(GZIP), lambda: Inflate(GZIP))
    if coding == "deflate":
        return Deflate
    if coding == "br":
        library = brotli(where)
        return lambda: Unbrotli(library.Decompressor(), library.error)
    library = zstd(where)
    options = {library.DecompressionParameter.window_log_max: LARGEST_WINDOW}

    def one() -> Part:
        return Unzstd(library.ZstdDecompressor(options=options), library.ZstdError)

    return lambda: Several(one(), one)


class Part(Protocol):
    """A decoder that knows where what it decodes ends."""

    rest: bytes
    """What it was given and has not decoded yet, or what stands behind the end."""
    full: bool
    """Whether it has more to give without more data."""
    ended: bool

    def decode(self, data: bytes, most: int) -> bytes: ...


class Several:
    """Members one after the other, as gzip (RFC 1952 2.2) and zstd (RFC 8878 3) have them."""

    __slots__ = ("_left", "_make", "_part")

    def __init__(self, part: Part, make: Callable[[], Part]) -> None:
        self._part = part
        self._make = make
        self._left = MEMBERS

    @property
    def finished(self) -> bool:
        return self._part.ended and not self._part.rest

    @property
    def waiting(self) -> bool:
        return bool(self._part.rest) or self._part.full

    def piece(self, data: bytes, most: int) -> bytes:
        part = self._part
        data = part.rest + data if part.rest else data
        if part.ended:
            self._left -= 1
            if self._left < 0:
                raise ValueError("it has too many members")
            part = self._part = self._make()
        return part.decode(data, most)


class Inflate:
    """One stream of zlib's, in one of its formats."""

    __slots__ = ("_stream", "ended", "full", "rest")

    def __init__(self, window: int) -> None:
        self._stream = zlib.decompressobj(window)
        self.rest = b""
        self.full = self.ended = False

    def decode(self, data: bytes, most: int) -> bytes:
        stream = self._stream
        try:
            decoded = stream.decompress(data, most)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        self.ended = stream.eof
        self.rest = stream.unused_data if stream.eof else stream.unconsumed_tail
        # What was read of a repetition may not be written yet.
        self.full = not stream.eof and len(decoded) >= most
        return decoded


class Deflate:
    """Deflate as RFC 9110 8.4.1.2 means it, in a zlib stream, and bare, as many send it."""

    __slots__ = ("_part",)

    def __init__(self) -> None:
        self._part: Inflate | None = None

    @property
    def finished(self) -> bool:
        return self._part is not None and self._part.ended

    @property
    def waiting(self) -> bool:
        part = self._part
        return part is not None and not part.ended and (bool(part.rest) or part.full)

    def piece(self, data: bytes, most: int) -> bytes:
        if (part := self._part) is None:
            # The first byte of a zlib stream: method 8 (RFC 1950 2.2).
            part = self._part = Inflate(ZLIB if data[0] & 0x8F == 0x08 else RAW)
        decoded = part.decode(part.rest + data, most)
        if part.ended and part.rest:
            raise ValueError("something stands behind the end")
        return decoded


class Unbrotli:
    """RFC 7932."""

    __slots__ = ("_error", "_gave", "_stream")

    def __init__(self, stream: Any, error: type[Exception]) -> None:
        self._stream = stream
        self._error = error
        self._gave = False

    @property
    def finished(self) -> bool:
        return bool(self._stream.is_finished())

    @property
    def waiting(self) -> bool:
        # It takes all of the data, also if what comes of that is more than was asked for.
        return self._gave and not self._stream.is_finished()

    def piece(self, data: bytes, most: int) -> bytes:
        try:
            decoded: bytes = self._stream.process(data, output_buffer_limit=most)
        except self._error as error:
            raise ValueError(str(error)) from None
        self._gave = bool(decoded)
        return decoded


class Unzstd:
    """One frame of RFC 8878."""

    __slots__ = ("_error", "_stream", "ended", "full", "rest")

    def __init__(self, stream: Any, error: type[Exception]) -> None:
        self._stream = stream
        self._error = error
        self.rest = b""
        self.full = self.ended = False

    def decode(self, data: bytes, most: int) -> bytes:
        stream = self._stream
        try:
            decoded: bytes = stream.decompress(data, most)
        except self._error as error:
            raise ValueError(str(error)) from None
        self.ended = stream.eof
        self.rest = stream.unused_data if stream.eof else b""
        self.full = not stream.eof and not stream.needs_input
        return decoded
