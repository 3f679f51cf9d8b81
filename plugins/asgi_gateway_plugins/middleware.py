"""Any ASGI middleware, by its import path."""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, cast

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from asgi_gateway.asgi import ASGIApp
from asgi_gateway.component import Build, Component
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.importing import find
from asgi_gateway.stage import Stage


def read_stage(value: object) -> object:
    if isinstance(value, str) and value in Stage.__members__:
        return Stage[value]
    if isinstance(value, Stage):
        return value
    raise ValueError(f"{value!r} is not a stage: write one of {', '.join(Stage.__members__)}")


def read_options(value: object) -> object:
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, Mapping):
        raise ValueError("options are a mapping")
    try:
        return json.dumps(dict(value), sort_keys=True)
    except TypeError as error:
        raise ValueError(f"{error}: options hold what a file can say; for more, write a component") from None


StageName = Annotated[
    Stage,
    BeforeValidator(read_stage),
    PlainSerializer(lambda stage: stage.name),
    WithJsonSchema({"enum": list(Stage.__members__)}),
]
Options = Annotated[
    str, BeforeValidator(read_options), PlainSerializer(json.loads), WithJsonSchema({"type": "object"})
]
"""A mapping as canonical JSON: that is hashable."""


HTTP = frozenset({"http"})
BOTH = frozenset({"http", "websocket"})


class OfInstance:
    """A class variable of Component that each instance answers out of its options."""

    def __init__(self, default: object, answer: Callable[[Any], object]) -> None:
        self.default = default
        self.answer = answer

    def __get__(self, instance: object | None, owner: type) -> object:
        return self.default if instance is None else self.answer(instance)


class Middleware(Component, name="middleware"):
    """Puts an ASGI middleware class into the chain: `cls(app, **options)`."""

    model_config = ConfigDict(serialize_by_alias=True)

    stage: ClassVar[Stage] = cast("Stage", OfInstance(Stage.TRANSFORM, lambda self: self.at))
    serves: ClassVar[frozenset[str]] = cast(
        "frozenset[str]", OfInstance(HTTP, lambda self: BOTH if self.websocket else HTTP)
    )

    cls: Annotated[str, Field(pattern=r"^[^:\s]+:[^:\s]+$")]
    """Where the class is: `package.module:Class`."""
    at: StageName = Field(Stage.TRANSFORM, alias="stage")
    """The stage at which it stands."""
    options: Options = "{}"
    """Its keyword arguments."""
    websocket: bool = False
    """Whether it handles WebSocket too. Otherwise WebSockets go past it."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        make = find(self.cls, "a class")
        try:
            return cast("ASGIApp", make(app, **json.loads(self.options)))
        except Exception as error:
            what = f"{self.cls} cannot be made with the options {self.options}: {error}"
            raise ConfigError(Problem(what, build.owner)) from error
