"""The only place that asks the system whether something waits at a socket."""

import select


def readable(number: int) -> bool:
    """Whether bytes, callers, or an end wait there; False if it is closed."""
    if number < 0:
        return False
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))
