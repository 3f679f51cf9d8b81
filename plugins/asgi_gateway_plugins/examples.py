"""Examples of what an OpenAPI document describes: its own, or small values that fit its schemas."""

from collections.abc import Iterator, Mapping
from typing import Any

from .openapi import Api, Node, mapping

DEEPEST = 8
"""Schemas inside of schemas; what lies deeper is null."""
MOST = 2000
"""Values in one example; what comes after them is null. Schemas that know each other would fill gigabytes."""
LONGEST = 1000
"""Characters of a string, or items of an array, that a schema can ask for."""

TEXTS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "user@example.com",
    "uri": "https://example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "byte": "",
}


def examples_of(api: Api, media: Node) -> Iterator[tuple[str, Any]]:
    """The examples of a media type with their names, the one that counts first."""
    if "example" in media:
        yield "example", media["example"]
    found = False
    for name, example in mapping(media.get("examples")).items():
        value = mapping(api.resolve(example))
        if "value" in value:
            found = True
            yield str(name), value["value"]
    if "example" not in media and not found:
        yield "", sample(api, media.get("schema"))


def sample(api: Api, schema: Any) -> Any:
    """A value for a schema: its example, its default, or one that is made up."""
    return Sampler(api).sample(schema)


class Sampler:
    """Makes one value."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._left = MOST

    def sample(self, schema: Any, depth: int = 0) -> Any:
        schema = self._api.resolve(schema)
        self._left -= 1
        if not isinstance(schema, Mapping) or depth > DEEPEST or self._left < 0:
            return None
        if "example" in schema:
            return schema["example"]
        for key in ("examples", "enum"):
            if isinstance(schema.get(key), list) and schema[key]:
                return schema[key][0]
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        for key in ("oneOf", "anyOf"):
            if isinstance(schema.get(key), list) and schema[key]:
                return self.sample(schema[key][0], depth + 1)
        if isinstance(schema.get("allOf"), list):
            parts = [self.sample(part, depth + 1) for part in schema["allOf"]]
            own = self._made_up(schema, depth)
            merged: dict[str, Any] = {}
            for part in (*parts, own):
                merged |= mapping(part)
            return merged or (parts[0] if parts else None)
        return self._made_up(schema, depth)

    def _made_up(self, schema: Node, depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        if kind == "object":
            properties = mapping(schema.get("properties"))
            return {name: self.sample(each, depth + 1) for name, each in properties.items()}
        if kind == "array":
            return self._array(schema, depth)
        if kind == "string":
            text = TEXTS.get(schema.get("format", ""), "string")
            return text.ljust(bounded(schema.get("minLength", 0)), ".")
        if kind in ("integer", "number"):
            lowest = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            step = 0 if "minimum" in schema or "exclusiveMinimum" not in schema else 1
            return lowest + step if isinstance(lowest, int | float) and not isinstance(lowest, bool) else 0
        return True if kind == "boolean" else None

    def _array(self, schema: Node, depth: int) -> list[Any]:
        before = self._left
        item = self.sample(schema.get("items"), depth + 1)
        size = before - self._left
        count = min(bounded(schema.get("minItems", 1), least=1), 1 + max(0, self._left) // size)
        self._left -= (count - 1) * size
        return [item] * count


def bounded(wanted: Any, *, least: int = 0) -> int:
    return max(least, min(wanted, LONGEST)) if isinstance(wanted, int) else least
