"""Examples of what an OpenAPI document describes: its own, or small values that fit its schemas."""

from collections.abc import Iterator, Mapping
from typing import Any

from .openapi import Api, Node, mapping

DEEPEST = 8
"""Schemas inside of schemas; what lies deeper is null."""
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


def sample(api: Api, schema: Any, depth: int = 0) -> Any:
    """A value for a schema: its example, its default, or one that is made up."""
    schema = api.resolve(schema)
    if not isinstance(schema, Mapping) or depth > DEEPEST:
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
            return sample(api, schema[key][0], depth + 1)
    if isinstance(schema.get("allOf"), list):
        parts = [sample(api, part, depth + 1) for part in schema["allOf"]]
        own = made_up(api, schema, depth)
        merged: dict[str, Any] = {}
        for part in (*parts, own):
            merged |= mapping(part)
        return merged or (parts[0] if parts else None)
    return made_up(api, schema, depth)


def made_up(api: Api, schema: Node, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else None)
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if kind == "object":
        properties = mapping(schema.get("properties"))
        return {name: sample(api, each, depth + 1) for name, each in properties.items()}
    if kind == "array":
        return [sample(api, schema.get("items"), depth + 1)] * bounded(schema.get("minItems", 1), least=1)
    if kind == "string":
        text = TEXTS.get(schema.get("format", ""), "string")
        return text.ljust(bounded(schema.get("minLength", 0)), ".")
    if kind in ("integer", "number"):
        lowest = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        step = 0 if "minimum" in schema or "exclusiveMinimum" not in schema else 1
        return lowest + step if isinstance(lowest, int | float) and not isinstance(lowest, bool) else 0
    return True if kind == "boolean" else None


def bounded(wanted: Any, *, least: int = 0) -> int:
    return max(least, min(wanted, LONGEST)) if isinstance(wanted, int) else least
