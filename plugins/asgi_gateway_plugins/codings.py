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
