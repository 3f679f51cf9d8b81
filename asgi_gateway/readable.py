"""The only place that asks the system whether something waits at a socket."""

import select
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
