"""`python -m benchmarks growth`: how cost grows with all that can be large, and whether it may."""

import argparse
from dataclasses import replace

from ..goals import Goal
from ..measure import Effort
from ..process import NotInstalled, NotRunning
from ..table import render
from .bodies import BODIES
from .cache import CACHE
from .components import COMPONENTS
from .connections import CONNECTIONS
from .dimension import Dimension, Growth
from .fields import FIELDS_OF_A_MESSAGE
from .limiter import LIMITER
from .routes import ROUTES
from .targets import TARGETS
from .variants import VARIANTS
from .workers import WORKERS

DIMENSIONS = (
    ROUTES,
    VARIANTS,
    COMPONENTS,
    LIMITER,
    CACHE,
    TARGETS,
    FIELDS_OF_A_MESSAGE,
    BODIES,
    CONNECTIONS,
    WORKERS,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(dimension.name for dimension in DIMENSIONS)
    parser.add_argument("--only", default="", metavar="NAME,NAME", help=f"only these: {names}")
    parser.add_argument(
        "--most", type=int, metavar="N", help="no size above it, but always two sizes (default: all)"
    )


def choose(only: str) -> list[Dimension]:
    """Those that were asked for, or all."""
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    unknown = set(wanted) - {dimension.name for dimension in DIMENSIONS}
    if unknown:
        raise NotRunning(f"nothing that grows is called {', '.join(sorted(unknown))}")
    return [dimension for dimension in DIMENSIONS if not wanted or dimension.name in wanted]


def tell(growth: Growth) -> None:
    print(render(growth.columns, growth.rows))
    for trend in growth.trends:
        print(f"verdict: {trend.verdict}")
    for note in growth.notes:
        print(f"note: {note}")


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print a table for each. The goals, and whether everything that is installed ran."""
    goals, complete = [], True
    for dimension in choose(options.only):
        print(f"\n{dimension.name}: {dimension.about}\n", flush=True)
        try:
            growth = dimension.measure(dimension.up_to(options.most), effort)
        except NotRunning as problem:
            print(f"not measured: {problem}")
            complete = complete and isinstance(problem, NotInstalled)
            continue
        tell(growth)
        goals += [replace(trend.goal, text=f"{dimension.name}: {trend.goal.text}") for trend in growth.trends]
    print()
    return goals, complete
