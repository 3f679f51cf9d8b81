"""The only place that reads the entries of a chain: a component, its options, and the policy around it."""

import logging
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails

from ..component import Component
from ..mistake import below, mistake, mistakes
from ..plugins import Plugins, suggestion
from .model import Methods, Model, Pairs

M = TypeVar("M", bound=BaseModel)

logger = logging.getLogger("asgi_gateway")

POLICY = ("enabled", "when", "mode")
"""The keys that every entry takes beside the options of its component."""


class When(Model):
    """For which requests a component is there at all. Everything that is given has to hold."""

    method: Methods = ()
    """One of these methods."""
    path: str = ""
    """The canonical path; a last `*` stands for any rest."""
    headers: Pairs = ()
    """These headers with these values; `*` for any value."""
    query: Pairs = ()
    """These query parameters with these values; `*` for any value."""
    consumer: tuple[str, ...] = ()
    """One of these consumers (after AUTH only)."""


class Use(Model):
    """One entry of a chain: a component and the policy around it."""

    component: SerializeAsAny[Component]
    """What stands there."""
    enabled: bool = True
    """`false` leaves it out."""
    when: When | None = None
    """For which requests it is there."""
    mode: Literal["enforce", "report"] = "enforce"
    """`report` records what it would refuse, and lets it pass."""

    @model_validator(mode="wrap")
    @classmethod
    def read(cls, value: Any, handler: ModelWrapValidatorHandler["Use"], info: ValidationInfo) -> "Use":
        """Accept `name`, `{name: options}`, a component or a Use. `info.context` knows the names."""
        if isinstance(value, Component):
            value = {"component": value}
        if isinstance(value, Use) or has_component(value):
            return sensible(handler(value))
        name, options = read_entry(value, "- rate_limit: {limit: 100/minute}")
        kind = find(offered(info).components, "component", name)
        policy = {key: options.pop(key) for key in POLICY if key in options}
        wrong: list[InitErrorDetails] = []
        component = None
        try:
            component = make(kind, options, info)
        except ValidationError as error:
            wrong += below(name, error)
        try:
            use = sensible(handler({"component": component, **policy}))
        except ValidationError as error:
            # Without a component the handler misses it, too: that was said already.
            wrong += [each for each in below(name, error) if each["loc"] != (name, "component")]
        if wrong:
            raise ValidationError.from_exception_data("Use", wrong, hide_input=True)
        return use

    @model_serializer(mode="wrap")
    def write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The entry as a file has it."""
        fields = handler(self)
        return {self.component.name: fields.pop("component", {}) | fields}


Chain = tuple[Use, ...]


def has_component(value: Any) -> bool:
    """Whether this is a Use as Python writes it."""
    return isinstance(value, Mapping) and isinstance(value.get("component"), Component)


def sensible(use: Use) -> Use:
    """Refuse what would do nothing."""
    if use.mode == "report" and not use.component.refuses:
        fault = mistake(f"{use.component.name} never refuses", "leave `mode: report` out")
        raise mistakes([(("mode",), fault)])
    return use


def read_entry(value: Any, example: str) -> tuple[str, dict[str, Any]]:
    """Name and options (a copy) of what is written as `name`, `{name: options}` or `{name: }`."""
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, Mapping) or not value:
        raise mistake("must be a name, or a name with its options", f"as in `{example}`")
    if len(value) > 1:
        names = ", ".join(map(str, value))
        raise mistake(
            f"has more than one name: {names}", "options stand below the name, further to the right"
        )
    ((name, options),) = value.items()
    if options is not None and not isinstance(options, Mapping):
        raise mistakes([((str(name),), mistake("must be a mapping", "its options"))])
    return str(name), dict(options or {})


def make(kind: type[M], options: Mapping[str, Any], info: ValidationInfo) -> M:
    """A component or an endpoint out of its options; ValidationError, also if its own code breaks."""
    try:
        return kind.model_validate(options, context=info.context)
    except ValidationError:
        raise
    except Exception as error:
        logger.debug("%s cannot read its options", kind.__qualname__, exc_info=True)
        raise mistakes([((), mistake(f"reading the options failed: {type(error).__name__}"))]) from None


def offered(info: ValidationInfo) -> Plugins:
    """The plugins that validate this document."""
    plugins = (info.context or {}).get("plugins")
    if not isinstance(plugins, Plugins):
        raise mistake(
            "a name has no meaning here", "pass an object, or read with Gateway.parse or Gateway.load"
        )
    return plugins


def find(known: Mapping[str, type[M]], what: str, name: str) -> type[M]:
    """The class behind a name."""
    if name not in known:
        raise mistake(f"no {what} is called {name!r}", suggestion(name, known), name)
    return known[name]
