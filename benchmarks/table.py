"""How figures are printed: one table, every column with its unit."""

import math
from collections.abc import Sequence


def number(value: float, digits: int = 0) -> str:
    """A figure with thousands separated; a dash where there is none."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "-"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2f} x" if math.isfinite(value) else "-"


def render(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of a table: names to the left, figures to the right. Two cells are a name and a remark."""
    full = [row for row in rows if len(row) == len(columns)]
    widths = [max(len(row[index]) for row in [columns, *full]) for index in range(len(columns))]
    widths[0] = max(len(row[0]) for row in [columns, *rows])
    lines = [line(columns, widths), "-" * (sum(widths) + 2 * len(widths) - 2)]
    lines += [line(row, widths) for row in rows]
    return "\n".join(lines)


def line(row: Sequence[str], widths: Sequence[int]) -> str:
    first = row[0].ljust(widths[0])
    if len(row) < len(widths):
        return "  ".join([first, *row[1:]])
    return "  ".join([first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
