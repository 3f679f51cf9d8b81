"""The only place that holds signals back until somebody listens to them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

HELD = frozenset({signal.SIGHUP, signal.SIGUSR2})
"""What would end a process that has no handler yet; what is meant is to go on."""


def hold() -> None:
    """First thing in a process: these signals wait, and are not lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)


def let_go() -> None:
    """Their handlers stand."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


@contextmanager
def held() -> Iterator[None]:
    """Processes that begin meanwhile hold them from their first moment."""
    hold()
    try:
        yield
    finally:
        let_go()
