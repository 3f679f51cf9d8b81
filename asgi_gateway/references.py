"""The only place that checks the names by which one part of a configuration refers to another."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import PydanticCustomError

from .config import Chain, GatewayConfig, Route, Use
from .consumers import Consumers
from .errors import Problem
from .mistake import Loc, mistake
from .patterns import Pattern
from .places import place
from .plugins import suggestion
from .stage import Stage


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
            *variables(config),
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


def variables(config: GatewayConfig) -> Iterator[tuple[str, PydanticCustomError]]:
    """Variables that a component reads, and no path has of which it sees requests."""
    for where, chain, routes in seen(config):
        for index, use in enumerate(chain):
            wanted = dict.fromkeys(use.component.variables()) if use.enabled and routes else {}
            known = known_variables(config, routes) if wanted else None
            for name in wanted:
                if known is not None and name not in known:
                    fault = mistake(f"{{{name}}} is no variable of {paths(routes)}", hint_of(known))
                    yield f"{where}[{index}].{use.component.name}", fault


def seen(config: GatewayConfig) -> Iterator[tuple[str, Chain, Sequence[Route]]]:
    """Every list of components, with its place and the routes whose requests come by."""
    every = [route for route in config.routes if route.enabled]
    using: dict[str, list[Route]] = {}
    for route in every:
        for name in route.policies:
            using.setdefault(name, []).append(route)
    for index, route in enumerate(config.routes):
        yield f"routes[{index}].components", route.components, [route]
    for name, chain in config.policies.items():
        yield f"policies.{name}", chain, using.get(name, ())
    # What splits may lead any route to any upstream.
    for name, upstream in config.upstreams.items():
        yield f"upstreams.{name}.components", upstream.components, every
    yield "components", config.components, every


def known_variables(config: GatewayConfig, routes: Sequence[Route]) -> frozenset[str] | None:
    """The variables of some paths; None if one of them cannot be read, which is told elsewhere."""
    try:
        return frozenset(name for route in routes for name in Pattern(route.path, config.paths).variables)
    except ValueError:
        return None


def paths(routes: Sequence[Route]) -> str:
    return repr(routes[0].path) if len(routes) == 1 else f"any of the {len(routes)} paths"


def hint_of(known: frozenset[str]) -> str:
    return f"known: {', '.join(f'{{{name}}}' for name in sorted(known)) or 'none'}"


def unidentified(config: GatewayConfig) -> Iterator[Problem]:
    """Components that ask who is calling, on routes where nobody finds out."""
    found: dict[tuple[str, str], list[str]] = {}
    for route in config.routes:
        shared = [use for name in route.policies for use in config.policies[name]]
        uses = [use for use in (*config.components, *shared, *route.components) if use.enabled]
        if not route.enabled or any(map(finds_out, uses)):
            continue
        for use in uses:
            for option in asking(use):
                found.setdefault((use.component.name, option), []).append(route.name)
    for (name, option), routes in found.items():
        yield Problem(
            f"{name} asks who is calling ({option}), and no AUTH component finds out",
            f"route {routes[0]}" + (f" and {len(routes) - 1} more" if routes[1:] else ""),
            "put one on the route, as in key_auth",
        )


def unsaid(config: GatewayConfig) -> Iterator[Problem]:
    """Fields that only trusted proxies may send, where there are none."""
    for where, chain in config.chains() if not config.trusted_proxies else ():
        for index, use in enumerate(chain):
            for name in use.component.forwarded() if use.enabled else ():
                yield Problem(
                    f"only trusted proxies may send {name}, and there are none",
                    f"{where}[{index}].{use.component.name}",
                    "list them in trusted_proxies",
                )


def finds_out(use: Use) -> bool:
    return use.component.stage is Stage.AUTH and not use.component.needs_caller()


def asking(use: Use) -> Iterator[str]:
    if option := use.component.needs_caller():
        yield option
    if use.when is not None and use.when.consumer:
        yield "when.consumer"


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
