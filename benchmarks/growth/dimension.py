"""One thing that can be large, and what measuring it brings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..measure import Effort
from .trend import Trend

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Growth:
    """A table, what it means, and what a reader must know."""

    columns: Row
    rows: Sequence[Row]
    trends: Sequence[Trend]
    notes: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Dimension:
    """What can be large."""

    name: str
    about: str
    sizes: Sequence[int]
    """From small to large."""
    measure: Callable[[Sequence[int], Effort], Growth]

    def up_to(self, most: int | None) -> Sequence[int]:
        """The sizes that are not above `most`; two at least, because one compares nothing."""
        if most is None:
            return self.sizes
        return [size for place, size in enumerate(self.sizes) if place < 2 or size <= most]
