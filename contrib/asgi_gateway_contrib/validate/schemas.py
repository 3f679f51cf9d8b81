"""The only place that speaks with jsonschema-rs. Nothing is fetched, and every pattern takes linear time."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Literal

from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway_plugins.openapi import Api

Side = Literal["request", "response"]
Fault = dict[str, Any]
"""One mistake in a message: `in`, where it is (`pointer`, `name`), and what it is (`detail`)."""

MISSING = Problem("validate needs jsonschema-rs", hint="pip install 'asgi-gateway[validate]'")
LARGEST_PATTERN = 1 << 20
"""Bytes of a compiled regular expression."""
HINTS = {
    '"regex"': "patterns know no look-around and no back references",
    "retrieving it failed": "nothing is fetched: a reference leads to a place in the same schema",
}
COMPONENTS = "#/components/schemas/"

MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
ONES = (
    "items",
    "additionalItems",
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
)
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
BOUNDS = (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum"))


class Checker:
    """One compiled schema."""

    def __init__(self, schema: Any, where: str) -> None:
        """ConfigError, with the place and what is wrong with it."""
        try:
            from jsonschema_rs import ReferencingError, RegexOptions, ValidationError, validator_for
        except ImportError:
            raise ConfigError(MISSING) from None
        options: dict[str, Any] = {
            "offline": True,
            "validate_formats": True,
            "pattern_options": RegexOptions(size_limit=LARGEST_PATTERN),
        }
        try:
            # Without the mask, which would hide what is wrong with the schema.
            validator_for(schema, **options)
        except (ValidationError, ReferencingError, ValueError) as error:
            place = pointer(list(getattr(error, "instance_path", ())))
            what = getattr(error, "message", "") or str(error)
            hint = next((hint for words, hint in HINTS.items() if words in what), "")
            raise ConfigError(Problem(f"not a JSON Schema: {place}: {what.strip()}", where, hint)) from None
        self._validator = validator_for(schema, mask="the value", **options)

    def accepts(self, value: Any) -> bool:
        return self._validator.is_valid(value)

    def faults(self, value: Any, most: int) -> Iterator[tuple[list[str | int], str]]:
        """The first mistakes in a value: where, and what."""
        from jsonschema_rs import ValidationErrorKind

        for error in islice(self._validator.iter_errors(value), most):
            path, kind = list(error.instance_path), error.kind
            if isinstance(kind, ValidationErrorKind.Required):
                path.append(kind.property)
                yield path, "is missing"
            else:
                yield path, error.message


def pointer(path: list[str | int]) -> str:
    """A JSON Pointer (RFC 6901) as the fragment of a URL."""
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


class Schemas:
    """The schemas of a document as JSON Schema of 2020-12, for what callers send or for what they get."""

    def __init__(self, api: Api, side: Side) -> None:
        self._api = api
        self._hidden = "readOnly" if side == "request" else "writeOnly"
        self._made: dict[str, Any] = {}

    def whole(self, schema: Any) -> Any:
        """A schema with everything that it refers to."""
        made = self._convert(schema)
        if not isinstance(made, dict):
            return made
        needed: dict[str, Any] = {}
        self._collect(made, needed)
        return {**made, "components": {"schemas": needed}} if needed else made

    def _component(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._convert(self._api.find(COMPONENTS + name))
        return self._made[name]

    def _collect(self, node: Any, needed: dict[str, Any]) -> None:
        """Find the components that a schema refers to, and those that they refer to."""
        stack = [node]
        while stack:
            node = stack.pop()
            if isinstance(node, list):
                stack += node
            elif isinstance(node, Mapping):
                reference = node.get("$ref")
                if isinstance(reference, str) and reference.startswith(COMPONENTS):
                    name = reference.removeprefix(COMPONENTS).partition("/")[0]
                    if name not in needed:
                        needed[name] = self._component(name)
                        stack.append(needed[name])
                stack += node.values()

    def _convert(self, schema: Any) -> Any:
        """The schema in the words of 2020-12. What are values in it, not schemas, stays as it is."""
        if not isinstance(schema, Mapping):
            return schema
        made = dict(schema)
        for key in MAPS:
            if isinstance(made.get(key), Mapping):
                made[key] = {name: self._convert(each) for name, each in made[key].items()}
        for key in ONES:
            if key in made:
                made[key] = self._convert(made[key])
        for key in LISTS:
            if isinstance(made.get(key), list):
                made[key] = [self._convert(each) for each in made[key]]
        self._forget_hidden(made)
        return modern(made) if self._api.old else made

    def _forget_hidden(self, made: dict[str, Any]) -> None:
        """What only the other side says is not asked of this one."""
        properties = made.get("properties")
        if not isinstance(made.get("required"), list) or not isinstance(properties, Mapping):
            return
        hidden = {
            name
            for name, each in properties.items()
            if isinstance(each, Mapping) and each.get(self._hidden) is True
        }
        made["required"] = [name for name in made["required"] if name not in hidden]


def modern(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of OpenAPI 3.0 as one of JSON Schema."""
    for flag, bound in BOUNDS:
        if isinstance(schema.get(flag), bool) and schema.pop(flag) and bound in schema:
            schema[flag] = schema.pop(bound)
    if schema.pop("nullable", False) is True:
        if isinstance(schema.get("type"), str):
            schema["type"] = [schema["type"], "null"]
            if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
                schema["enum"] = [*schema["enum"], None]
        else:
            schema = {"anyOf": [schema, {"type": "null"}]}
    return schema
