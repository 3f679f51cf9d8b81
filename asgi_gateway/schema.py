"""The only place that describes a configuration file to editors: its JSON Schema, with what is installed."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import (
    GenerateJsonSchema,
    JsonSchemaValue,
    JsonSchemaWarningKind,
    models_json_schema,
)
from pydantic_core import SchemaError, SchemaSerializer, core_schema

from .config import POLICY, GatewayConfig, Upstream, Use
from .plugins import Plugins

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
UNUSED = ("GatewayConfig", "Component", "Endpoint")
REFERENCE: Schema = {
    "description": "`${NAME}`, `${NAME:-default}` or `${file:/path}`: out of the environment or a file.",
    "type": "string",
    "pattern": r"\$\{",
}


def schema(plugins: Plugins) -> Schema:
    """The JSON Schema (2020-12) of a whole file."""
    kinds: list[type[BaseModel]] = [*plugins.components.values(), *plugins.endpoints.values()]
    models: list[type[BaseModel]] = [GatewayConfig, Upstream, Use, *kinds]
    names, made = models_json_schema([(model, "validation") for model in models], schema_generator=Generator)
    name_of = {model: names[model, "validation"]["$ref"].rpartition("/")[2] for model in models}
    definitions = {name: fillable(definition) | {"title": name} for name, definition in made["$defs"].items()}
    of = {model: definitions[name] for model, name in name_of.items()}
    policy = of[Use].pop("properties")
    for component in plugins.components.values():
        keys = [key for key in POLICY if key != "mode" or component.refuses]
        of[component].setdefault("properties", {}).update({key: policy[key] for key in keys})
    of[Use].clear()
    of[Use] |= {
        "description": "A component, and the policy around it.",
        "oneOf": choice(plugins.components, of),
    }
    endpoint = of[Upstream]["properties"]["endpoint"]
    endpoint["anyOf"] = [*choice(plugins.endpoints, of), {"type": "null"}]
    root = of[GatewayConfig]
    used = {name: definition for name, definition in definitions.items() if name not in UNUSED}
    return {"$schema": DIALECT, **root, "title": "asgi-gateway", "$defs": {**used, "Reference": REFERENCE}}


def choice(kinds: Mapping[str, type[BaseModel]], of: Mapping[type[BaseModel], Schema]) -> list[Schema]:
    """What is written as a name alone, or as a name with options."""
    alone = [name for name, kind in sorted(kinds.items()) if not of[kind].get("required")]
    properties: Schema = {}
    for name, kind in sorted(kinds.items()):
        reference = {"$ref": f"#/$defs/{of[kind]['title']}"}
        properties[name] = {"anyOf": [reference, {"type": "null"}]} if name in alone else reference
    named: Schema = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return [{"enum": alone}, named] if alone else [named]


def fillable(schema: Any) -> Any:
    """Let everything that is more than any string be filled from the environment or a file, too."""
    if isinstance(schema, list):
        return [fillable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: inner(key, value) for key, value in schema.items()}
    if "patternProperties" in made:
        made["additionalProperties"] = False
    if made.get("type") not in ("integer", "number", "boolean") and not {"pattern", "enum", "const"} & set(
        made
    ):
        return made
    told = {key: made.pop(key) for key in ("description", "default", "examples") if key in made}
    return {**told, "anyOf": [made, {"$ref": "#/$defs/Reference"}]}


def inner(key: str, value: Any) -> Any:
    """The same for the schemas inside of a schema."""
    if key in ("properties", "patternProperties", "$defs"):
        return {name: fillable(schema) for name, schema in value.items()}
    return (
        fillable(value)
        if key in ("items", "prefixItems", "anyOf", "oneOf", "allOf", "additionalProperties")
        else value
    )


class Generator(GenerateJsonSchema):
    """pydantic's generator, without titles of fields, with defaults as a file has them."""

    # A default that JSON cannot say is left out.
    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if isinstance(made.get("default"), int | float):
            # The default of a time is a number, and is written with a unit.
            with suppress(SchemaError):
                made["default"] = SchemaSerializer(schema["schema"]).to_python(schema["default"], mode="json")
        return made

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        # An option that no JSON Schema can describe is left to the component.
        return {}
