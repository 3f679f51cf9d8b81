"""The only place that checks the names by which one part of a configuration refers to another."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from .config import GatewayConfig
from .consumers import Consumers
from .errors import Problem
from .mistake import Loc, mistake
from .places import place
from .plugins import suggestion


def check_references(config: GatewayConfig, known: Consumers | None = None) -> tuple[Problem, ...]:
    """Everything that a route names and nobody declares."""
    known = Consumers(config.consumers) if known is None else known
    document = {
        "upstreams": config.upstreams,
        "policies": config.policies,
        "routes": [{"upstream": route.upstream, "policies": route.policies} for route in config.routes],
    }
    return tuple(
        Problem(fault.context["what"], where, fault.context["hint"])
        for where, fault in (
            *((place(loc), fault) for loc, fault in dangling(document)),
            *consumers(config, known),
        )
        if fault.context
    )


def consumers(config: GatewayConfig, declared: Consumers) -> Iterator[tuple[str, PydanticCustomError]]:
    """Conditions on consumers that nobody declares. Where there are none, tokens name them; others may be in
    the store.
    """
    known = [consumer.name for consumer in declared]
    for where, chain in config.chains() if known and config.store.consumers is None else ():
        for index, use in enumerate(chain):
            for name in use.when.consumer if use.when is not None else ():
                if name not in known:
                    fault = mistake(f"no consumer is called {name!r}", suggestion(name, known), name)
                    yield f"{where}[{index}].{use.component.name}.when.consumer", fault


def unused(config: GatewayConfig) -> Iterator[Problem]:
    """What is declared, and named by nobody."""
    named = {name for route in config.routes for name in route.policies}
    for policy in config.policies:
        if policy not in named:
            yield Problem("no route uses this policy", f"policies.{policy}")


def dangling(document: Mapping[str, Any]) -> Iterator[tuple[Loc, PydanticCustomError]]:
    """The same in a document that may be wrong in other ways, too."""
    for section, what, names in (("upstreams", "upstream", upstreams), ("policies", "policy", policies)):
        known = document.get(section, {})
        for loc, name in names(document) if isinstance(known, Mapping) else ():
            if name not in known:
                yield loc, mistake(f"no {what} is called {name!r}", suggestion(name, known), name)


def upstreams(document: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    for index, route in routes(document):
        if isinstance(name := route.get("upstream"), str):
            yield ("routes", index, "upstream"), name


def policies(document: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    for index, route in routes(document):
        names = route.get("policies")
        for position, name in enumerate(names if isinstance(names, list | tuple) else ()):
            if isinstance(name, str):
                yield ("routes", index, "policies", position), name


def routes(document: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    written = document.get("routes")
    for index, route in enumerate(written if isinstance(written, list | tuple) else ()):
        if isinstance(route, Mapping):
            yield index, route
