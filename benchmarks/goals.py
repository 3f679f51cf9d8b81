"""What the figures are held against."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on one measured ratio; NaN stands for a ratio that this run could not measure."""

    text: str
    value: float
    bound: float
    kind: Literal["at most", "at least"] = "at most"
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Never met without a measurement."""
        return self.value <= self.bound if self.kind == "at most" else self.value >= self.bound

    def __str__(self) -> str:
        if math.isnan(self.value):
            measured, verdict = "not measured", "not met"
        else:
            measured, verdict = f"{self.value:.2f} {self.unit}", "met" if self.met else "NOT MET"
        return f"goal: {self.text}, {self.kind} {self.bound:g} {self.unit}: {measured}, {verdict}"
