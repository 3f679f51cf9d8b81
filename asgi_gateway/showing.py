"""The only place that shows a gateway to people at a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from inspect import cleandoc
from typing import TYPE_CHECKING

from .errors import Problem
from .plugins import Plugins

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .live import Beside, Plan

ARROW = " → "


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines with aligned columns."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def where(plan: "Plan") -> tuple[str, str, str]:
    """Methods, hosts and path of a route."""
    return " ".join(plan.methods) or "any", " ".join(plan.hosts) or "any", plan.path


def chains(plan: "Plan") -> Iterator[str]:
    """A route as it was compiled: what a request passes, outermost first."""
    methods, hosts, path = where(plan)
    yield f"{plan.name}: {methods} {path}" + (f" on {hosts}" if plan.hosts else "")
    yield "  " + ARROW.join([*plan.chain, plan.upstream])
    if plan.websocket_chain is not None:
        yield "  WebSocket: " + ARROW.join([*plan.websocket_chain, plan.upstream])
    for beside in plan.beside:
        yield f"  {beside.component}{ARROW}{beside.upstream}: {beside.share}"


def upstreams(plans: Iterable["Plan"]) -> Iterator[str]:
    """The upstreams that routes lead to: what a call passes, outermost first, and where it ends."""
    ends: dict[str, Plan | Beside] = {}
    for plan in plans:
        ends[plan.upstream] = plan
        ends.update((beside.upstream, beside) for beside in plan.beside)
    for name, end in ends.items():
        yield f"upstream {name}: " + ARROW.join([*end.upstream_chain, ", ".join(end.targets)])


def checked(plans: Sequence["Plan"], warnings: Iterable[Problem]) -> Iterator[str]:
    """What `check` says about a file that can be used."""
    if not plans:
        yield "no routes"
    for plan in plans:
        yield from chains(plan)
        yield ""
    yield from upstreams(plans)
    problems = [f"warning: {warning}" for warning in warnings]
    if problems:
        yield ""
        yield from problems


def routes(plans: Iterable["Plan"]) -> Iterator[str]:
    rows = [(*where(plan), plan.name, plan.upstream) for plan in plans]
    return table(("METHODS", "HOSTS", "PATH", "ROUTE", "UPSTREAM"), rows)


def installed(plugins: Plugins) -> Iterator[str]:
    """The plugins, and what they offer."""
    yield from table(("PLUGIN", "MODULE"), plugins.names().items())
    kinds = sorted(plugins.components.values(), key=lambda kind: (kind.stage, kind.rank, kind.name))
    if kinds:
        yield ""
        rows = [(kind.name, kind.stage.name, kind.__module__, summary(kind)) for kind in kinds]
        yield from table(("COMPONENT", "STAGE", "MODULE", "WHAT IT DOES"), rows)
    if plugins.endpoints:
        yield ""
        ends = [(name, kind.__module__, summary(kind)) for name, kind in sorted(plugins.endpoints.items())]
        yield from table(("ENDPOINT", "MODULE", "WHAT IT DOES"), ends)
    if plugins.strategies:
        yield ""
        ways = [(name, kind.__module__, summary(kind)) for name, kind in sorted(plugins.strategies.items())]
        yield from table(("CANARY STRATEGY", "MODULE", "WHAT IT DOES"), ways)


def summary(kind: "type[BaseModel]") -> str:
    """The first line of what a class says about itself."""
    return cleandoc(kind.__doc__ or "").partition("\n")[0]
