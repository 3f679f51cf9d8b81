"""The only place that reads the time."""

import time
from collections.abc import Callable


class Clock:
    """Both kinds of time in seconds. A test hands in one that it can turn."""

    __slots__ = ("monotonic", "time")

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.monotonic = monotonic
        self.time = wall
