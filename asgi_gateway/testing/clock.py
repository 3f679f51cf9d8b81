"""The only place where time is turned by hand."""

from ..clock import Clock


class HandClock(Clock):
    """Both kinds of time, standing still until they are advanced."""

    def __init__(self, monotonic: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        """Where both begin, in seconds."""
        self._passed = 0.0
        super().__init__(lambda: monotonic + self._passed, lambda: wall + self._passed)

    def advance(self, seconds: float) -> None:
        """Let time pass; ValueError when it would go back."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        self._passed += seconds
