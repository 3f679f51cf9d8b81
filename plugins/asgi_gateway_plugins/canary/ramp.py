"""A percentage that grows by itself: a function of the time of day, so that every worker has the same one."""

import logging
from bisect import bisect_right
from itertools import accumulate, pairwise

from pydantic import AwareDatetime, Field, field_validator

from asgi_gateway.component import Dial
from asgi_gateway.config.model import Model
from asgi_gateway.mistake import mistake
from asgi_gateway.units import Span

from .buckets import Percent

logger = logging.getLogger("asgi_gateway")

NEVER = float("inf")


class Step(Model):
    """One step of a ramp."""

    percent: Percent
    """The part of the callers."""
    hold: Span = 3600.0
    """How long until the next step; nothing follows the last one."""


class Ramp(Model):
    """Steps that raise the percentage."""

    start: AwareDatetime
    """When the first step begins, as in `2026-11-24T09:00:00Z`. `percent` holds before."""
    steps: tuple[Step, ...] = Field(min_length=1, max_length=100)
    """Percentages, none smaller than the one before, each with how long it holds."""

    @field_validator("steps")
    @classmethod
    def rises(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        for before, after in pairwise(steps):
            if after.percent < before.percent:
                raise mistake(
                    f"a step from {before.percent:g} to {after.percent:g} percent moves callers back",
                    "a ramp only rises; `rollback` and the dial go back",
                )
        return steps


class Ramping:
    """Turns the dial when the time of a step has come. It ends when somebody else turns it."""

    def __init__(self, ramp: Ramp, before: float, dial: Dial) -> None:
        start = ramp.start.timestamp()
        self._times = [start, *accumulate((step.hold for step in ramp.steps[:-1]), initial=start)][1:]
        self._percents = [before, *(step.percent for step in ramp.steps)]
        self._dial = dial
        self._turned: float | None = None
        self.next = 0.0
        """When to look again; wall clock."""

    def turn(self, now: float) -> None:
        """Bring the dial to where it is by now."""
        dial = self._dial
        if self._turned is not None and dial.value != self._turned:
            logger.info("%s was turned to %g by hand: the ramp is over", dial.name, dial.value)
            self.stop()
            return
        step = bisect_right(self._times, now)
        self.next = self._times[step] if step < len(self._times) else NEVER
        percent = self._percents[step]
        if percent != dial.value:
            logger.info("%s goes from %g to %g", dial.name, dial.value, percent)
            dial.set(percent)
        self._turned = percent

    def stop(self) -> None:
        self.next = NEVER
