"""The only place that knows how a frame lies in bytes (RFC 6455 5.2); the rare is left to `websockets`."""

import os
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the wheel
    from websockets.utils import apply_mask

__all__ = ["BINARY", "TEXT", "Masks", "apply_mask", "frame", "measure"]

TEXT: Final = 0x81
"""The first byte of a text message in one frame, without extensions."""
BINARY: Final = 0x82

HEADER = 14
"""The longest header of a frame."""
SUPPLY = 4096


class Masks:
    """Unpredictable masks for what a client sends (RFC 6455 5.3). One system call for a thousand of them."""

    __slots__ = ("_at", "_supply")

    def __init__(self) -> None:
        self._supply = b""
        self._at = 0

    def take(self) -> bytes:
        at = self._at
        if at >= len(self._supply):
            self._supply = os.urandom(SUPPLY)
            at = 0
        self._at = at + 4
        return self._supply[at : at + 4]


def frame(first: int, payload: bytes, mask: bytes | None) -> bytes:
    """A whole message in one frame. `first` is TEXT or BINARY; only clients mask."""
    length = len(payload)
    bit = 0 if mask is None else 0x80
    if length < 126:
        header = bytes((first, bit | length))
    elif length < 65536:
        header = bytes((first, bit | 126)) + length.to_bytes(2, "big")
    else:
        header = bytes((first, bit | 127)) + length.to_bytes(8, "big")
    if mask is None:
        return header + payload
    return header + mask + apply_mask(payload, mask)


def measure(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `at` begins, and how long it is. None: the header is not complete."""
    left = len(data) - at
    if left < 2:
        return None
    second = data[at + 1]
    length = second & 0x7F
    size = 2
    if length > 125:
        size = 4 if length == 126 else 10
        if left < size:
            return None
        length = int.from_bytes(data[at + 2 : at + size], "big")
    if second & 0x80:
        size += 4
        if left < size:
            return None
    return at + size, length
