"""The only place that touches pluggy: finds plugins, and knows what they offer."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from . import hookspecs
from .component import Component
from .consumers import Consumer
from .endpoint import Endpoint
from .errors import ConfigError, Problem
from .stage import Stage
from .store import Store
from .strategy import Strategy

GROUP = "asgi_gateway"
"""The entry-point group of plugins."""


POLICY = frozenset({"enabled", "when", "mode"})
"""What every entry of a chain can say beside the options of its component."""


class Plugins:
    """The plugins of one gateway. Two gateways have two of these, and share nothing."""

    def __init__(self, plugins: Iterable[object] = ()) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        for plugin in plugins:
            self._register(plugin, None)
        self._collect()

    @classmethod
    def installed(
        cls, extra: Iterable[object] = (), *, disable: Iterable[str] = (), allow: Iterable[str] | None = None
    ) -> "Plugins":
        """The plugins found through entry points, and `extra` ones.

        `disable` names entry points to leave out; `allow`, if given, the only third-party ones to import.
        """
        disabled, allowed = set(disable), None if allow is None else set(allow)
        found = entry_points(group=GROUP)
        problems = [
            Problem(f"no plugin is called {name!r}", "plugins", suggestion(name, found.names))
            for name in sorted((disabled | (allowed or set())) - found.names)
        ]
        plugins = cls.__new__(cls)
        plugins._manager = pluggy.PluginManager(GROUP)
        plugins._manager.add_hookspecs(hookspecs)
        for point in sorted(found, key=lambda point: point.name):
            ours = point.dist is not None and point.dist.name == "asgi-gateway"
            if point.name in disabled or not (ours or allowed is None or point.name in allowed):
                continue
            try:
                plugins._register(load(point), point.name)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        for plugin in extra:
            plugins._register(plugin, None)
        plugins._collect()
        return plugins

    def _register(self, plugin: object, name: str | None) -> None:
        try:
            self._manager.register(plugin, name)
        except Exception as error:
            raise ConfigError(
                Problem(f"plugin {name or plugin!r} cannot be registered: {error}", "plugins")
            ) from error

    def _collect(self) -> None:
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise ConfigError(Problem(f"{error}", "plugins", "is the name of the hook misspelt?")) from error
        self.components: Mapping[str, type[Component]] = self._offers("gateway_components", Component)
        self.endpoints: Mapping[str, type[Endpoint]] = self._offers("gateway_endpoints", Endpoint)
        self.stores: Mapping[str, type[Store]] = self._offers("gateway_stores", Store)
        """By the schemes of their URLs."""
        self.strategies: Mapping[str, type[Strategy]] = self._offers("gateway_canary_strategies", Strategy)

    def _offers(self, hook: str, base: type[Any]) -> dict[str, Any]:
        offers: dict[str, Any] = {}
        problems = []
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                kinds = list(implementation.function())
            except Exception as error:
                raise ConfigError(
                    Problem(f"{hook} of plugin {implementation.plugin_name!r} failed: {error!r}", "plugins")
                ) from error
            for kind in kinds:
                if fault := unfit(kind, base):
                    problems.append(Problem(fault, f"plugin {implementation.plugin_name}"))
                    continue
                for name in names_of(kind):
                    other = offers.setdefault(name, kind)
                    if other is not kind:
                        problems.append(
                            Problem(
                                f"{name!r} is offered by both {other.__module__} and {kind.__module__}",
                                "plugins",
                                "switch one of the plugins off",
                            )
                        )
        if problems:
            raise ConfigError(problems)
        return offers

    def unknown(self, kind: str, name: str) -> str:
        """What to say about a name that nobody offers."""
        what = f"no {kind.rstrip('s')} is called {name!r}"
        hint = suggestion(name, getattr(self, kind))
        return f"{what}: {hint}" if hint else what

    def names(self) -> dict[str, str]:
        """Every plugin by name, with the module that it is."""
        return {
            name: getattr(plugin, "__name__", type(plugin).__module__)
            for name, plugin in sorted(self._manager.list_name_plugin())
            if plugin is not None
        }

    def consumers(self) -> tuple[Consumer, ...]:
        """The callers that plugins know, asked for anew. May block."""
        found: list[Consumer] = []
        for implementation in self._manager.hook.gateway_consumers.get_hookimpls():
            where = f"plugin {implementation.plugin_name}"
            try:
                made: Any = implementation.function()
                offered = list(made)
            except Exception as error:
                # Only its kind: the text of an error may show a credential.
                raise ConfigError(
                    Problem(f"gateway_consumers failed: {type(error).__name__}", where)
                ) from error
            for each in offered:
                if not isinstance(each, Consumer):
                    raise ConfigError(
                        Problem(f"gateway_consumers gave a {type(each).__name__}, not a Consumer", where)
                    )
            found += offered
        return tuple(found)

    def lifespans(self, gateway: Any) -> list[Any]:
        """The context managers that the plugins want to be inside of while the gateway runs."""
        return list(self._manager.hook.gateway_lifespan(gateway=gateway))

    def reloaded(self, gateway: Any) -> None:
        """Tell the plugins that a new configuration went live."""
        self._manager.hook.gateway_reloaded(gateway=gateway)


def load(point: EntryPoint) -> object:
    try:
        return point.load()
    # A module that exits at import must not take the gateway with it.
    except (Exception, SystemExit) as error:
        raise ConfigError(
            Problem(
                f"plugin {point.name!r} ({point.value}) cannot be imported: {error!r}",
                "plugins",
                f"mend it, uninstall it, or write plugins: {{disable: [{point.name}]}}",
            )
        ) from error


def names_of(kind: Any) -> tuple[str, ...]:
    """Under which names an offer is known."""
    return tuple(kind.schemes) if issubclass(kind, Store) else (kind.name,)


def unfit(kind: Any, base: type[Any]) -> str:
    """Why an offer cannot be used, or nothing."""
    if not (isinstance(kind, type) and issubclass(kind, base)):
        return f"{kind!r} is not a subclass of {base.__name__}"
    if issubclass(kind, Store):
        return "" if kind.schemes else f"{kind.__qualname__} has no scheme: class ...(Store, schemes=...)"
    name = getattr(kind, "name", None)
    if not isinstance(name, str):
        return f"{kind.__qualname__} has no name: class {kind.__qualname__}({base.__name__}, name=...)"
    if base is Component and not isinstance(getattr(kind, "stage", None), Stage):
        return f"component {name!r} has no stage: class {kind.__qualname__}(Component, stage=Stage...)"
    if base is Component and (taken := sorted(POLICY & set(getattr(kind, "model_fields", ())))):
        return (
            f"component {name!r} has an option called {taken[0]!r}, which every entry of a chain has already"
        )
    return ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?` for the nearest known name, or nothing."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""
