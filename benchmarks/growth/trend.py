"""Whether a cost grows with a size, how fast, and whether it may."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..goals import Goal

LINEAR, MEMORY = 2.4, 1.3
"""What twice the size may cost: where there is twice as much to do, and where there is only more memory to
reach into. A fifth more than it comes to, because machines are noisy.
"""
FLAT = 1.5
"""Up to so many times the cost of the smallest size counts as flat."""


@dataclass(frozen=True, slots=True)
class Trend:
    """The cost of one thing at several sizes."""

    what: str
    sizes: Sequence[int]
    costs: Sequence[float]
    each: str
    """What the size counts, one of it."""
    unit: str = "us"
    reason: str = ""
    """Why it may grow; empty: it has to be flat."""
    most: float = LINEAR
    """Where it may grow: how many times as much twice the size may cost."""

    @property
    def growth(self) -> float:
        """The cost of the largest size in units of that of the smallest."""
        small, large = self.costs[0], self.costs[-1]
        return large / small if small > 0 else math.nan

    @property
    def doubled(self) -> float:
        """How many times as much twice the size costs, by the last step: there, what any size costs weighs
        least.
        """
        seen = [(size, cost) for size, cost in zip(self.sizes, self.costs, strict=True) if size and cost > 0]
        if len(seen) < 2:
            return math.nan
        (size, cost), (more, dearer) = seen[-2:]
        order = math.log(dearer / cost) / math.log(more / size)
        return float(2**order)

    @property
    def slope(self) -> float:
        """What one more costs, over all sizes."""
        return (self.costs[-1] - self.costs[0]) / (self.sizes[-1] - self.sizes[0])

    @property
    def verdict(self) -> str:
        span = f"{self.sizes[0]:,} to {self.sizes[-1]:,}"
        if math.isnan(self.growth):
            return f"{self.what}: not measured"
        if self.growth <= FLAT:
            return f"{self.what}: flat, {self.growth:.2f} x from {span}"
        said = f"grows {self.growth:,.2f} x from {span}"
        if self.most > MEMORY:  # elsewhere one more of them costs nothing by itself
            said += f", {self.slope:.3g} {self.unit} per {self.each}"
        if not self.reason:
            return f"{self.what}: {said}, and need not"
        speed = "" if math.isnan(self.doubled) else f", {self.doubled:.2f} x for twice the size"
        return f"{self.what}: {said}{speed}: {self.reason}"

    @property
    def goal(self) -> Goal:
        """Flat; or, where it may grow, not faster than it may."""
        if not self.reason:
            return Goal(f"{self.what}, {self.sizes[-1]:,} over {self.sizes[0]:,}", self.growth, FLAT)
        return Goal(f"{self.what}, twice the size", self.doubled, self.most)
