"""The only place that asks the system what waits at a socket."""

import fcntl
import select
import struct
import termios
from collections.abc import Callable


def readable(number: int) -> bool:
    """Whether bytes, callers, or an end wait there; False if it is closed."""
    if number < 0:
        return False
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


def asked_again(number: int) -> Callable[[], object]:
    """The same question about one socket, for half the price: true if something waits, or it is closed."""
    if number < 0:
        return bool
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return lambda: poll.poll(0)


def untaken(number: int) -> int:
    """Bytes that were sent, and that the other end has not taken yet; 0 where the system does not say."""
    try:
        (size,) = struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):
        return 0
    return int(size)
