"""The only place that knows which keys a declaration may have at a place of a document."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..component import Component
from ..config import POLICY, GatewayConfig, Use
from ..endpoint import Endpoint
from ..mistake import Loc
from ..plugins import Plugins


def keys_at(loc: Loc, plugins: Plugins) -> tuple[str, ...]:
    """The keys of the mapping at a place; none if it is not known what stands there."""
    kinds: list[type[Any]] = [GatewayConfig]
    for part in loc:
        kinds = [below for kind in kinds for below in step(kind, part, plugins)]
    return tuple(dict.fromkeys(key for kind in kinds for key in keys_of(kind)))


def keys_of(kind: type[Any]) -> Iterator[str]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from fields_of(kind)
        if issubclass(kind, Component):
            yield from POLICY


def step(kind: type[Any], part: int | str, plugins: Plugins) -> list[type[Any]]:
    """The types that may stand below a type, under a key or an index."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (tuple, list) and arguments:
        return alternatives(arguments[0])
    if origin is dict:
        return alternatives(arguments[1])
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    if kind is Use:
        return [plugins.components[str(part)]] if part in plugins.components else []
    if kind is Endpoint:
        return [plugins.endpoints[str(part)]] if part in plugins.endpoints else []
    fields = fields_of(kind)
    if issubclass(kind, Component) and part in POLICY and part not in fields:
        fields = fields_of(Use)
    return alternatives(fields[str(part)].annotation) if part in fields else []


def fields_of(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by the names that a document has."""
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def alternatives(annotation: Any) -> list[type[Any]]:
    """The types that an annotation allows."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return alternatives(arguments[0])
    if origin in (Union, UnionType):
        return [kind for argument in arguments for kind in alternatives(argument)]
    return [annotation]
