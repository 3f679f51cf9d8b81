"""The only place that reads parameters: out of text, the types that their schemas ask for."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from asgi_gateway.asgi import Scope
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.paths import decode
from asgi_gateway_plugins.credentials import cookie_pairs, query_pairs
from asgi_gateway_plugins.openapi import Api, Node, Operation, mapping

from .body import Malformed, parse
from .schemas import Checker, Fault, Schemas, pointer

INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,39})")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?")
IGNORED = frozenset({"accept", "authorization", "content-type"})
"""Fields that OpenAPI describes elsewhere."""
SEPARATORS = {"form": ",", "simple": ",", "spaceDelimited": " ", "pipeDelimited": "|"}
STYLES = {
    "path": ("simple",),
    "header": ("simple",),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "cookie": ("form",),
}
DEEP = re.compile(r"([^\[\]]+)\[([^\[\]]+)\]")

Read = Callable[[list[str]], Any]
"""The value of a parameter out of all texts that were given for it."""


class Parameters:
    """The parameters of one place: how each is read, and what they have to be together."""

    def __init__(
        self,
        place: str,
        schema: Any,
        reads: Mapping[str, Read],
        where: str,
        *,
        deep: Iterable[str] = (),
        everything: bool = False,
    ) -> None:
        """`everything`: parameters that nobody described count, too."""
        self.place = place
        self._checker = Checker(schema, where)
        self._reads = dict(reads)
        self._deep = frozenset(deep)
        self._everything = everything

    def faults(self, scope: Scope, params: Mapping[str, str], most: int) -> list[Fault]:
        """The first mistakes in the parameters of a request."""
        values: dict[str, Any] = {}
        for name, texts in TEXTS[self.place](scope, params).items():
            if self._deep and (found := DEEP.fullmatch(name)) and found[1] in self._deep:
                values.setdefault(found[1], {})[found[2]] = self._reads.get(name, plain)(texts)
            elif (read := self._reads.get(name)) is not None:
                values[name] = read(texts)
            elif self._everything:
                values[name] = plain(texts)
        try:
            if self._checker.accepts(values):
                return []
            found_faults = list(self._checker.faults(values, most))
        except (ValueError, RecursionError):
            return [{"in": self.place, "detail": "cannot be read"}]
        return [fault(self.place, path, what) for path, what in found_faults]


def fault(place: str, path: list[str | int], detail: str) -> Fault:
    if not path:
        return {"in": place, "detail": detail}
    told: Fault = {"in": place, "name": str(path[0])}
    if len(path) > 1:
        told["pointer"] = pointer(path[1:])
    return {**told, "detail": detail}


# Where they stand


def in_path(scope: Scope, params: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: [decode(text)] for name, text in params.items()}


def in_query(scope: Scope, params: Mapping[str, str]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for (name, text), piece in query_pairs(scope["query_string"]):
        if piece:
            texts.setdefault(name.decode(errors="replace"), []).append(text.decode(errors="replace"))
    return texts


def in_headers(scope: Scope, params: Mapping[str, str]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for name, text in scope["headers"]:
        texts.setdefault(name.decode("latin-1"), []).append(text.decode("latin-1"))
    # RFC 9110 5.3: several fields of one name are one list.
    return {name: [", ".join(each)] for name, each in texts.items()}


def in_cookies(scope: Scope, params: Mapping[str, str]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for key, line in scope["headers"]:
        for (name, text), _ in cookie_pairs(line) if key == b"cookie" else ():
            texts.setdefault(name.decode("latin-1"), []).append(text.decode("latin-1"))
    return texts


TEXTS = {"path": in_path, "query": in_query, "header": in_headers, "cookie": in_cookies}


# How they are read


def plain(texts: list[str]) -> Any:
    return texts[0] if len(texts) == 1 else texts


def scalar(types: frozenset[str]) -> Callable[[str], Any]:
    """The function that makes a number or a switch out of a text, where the schema asks for one."""

    def read(text: str) -> Any:
        if "integer" in types and INTEGER.fullmatch(text):
            return int(text)
        if "number" in types and NUMBER.fullmatch(text):
            return float(text)
        if "boolean" in types and text in ("true", "false"):
            return text == "true"
        return text

    return read


def one(types: frozenset[str]) -> Read:
    read = scalar(types)
    # What is there twice is a list, which no schema for one value takes.
    return lambda texts: read(texts[0]) if len(texts) == 1 else texts


def several(types: frozenset[str], separator: str) -> Read:
    """An array: each text an item, or one text with separators."""
    read = scalar(types)
    if not separator:
        return lambda texts: [read(text) for text in texts]
    return lambda texts: [
        read(part.strip(" ") if separator == "," else part)
        for text in texts
        for part in (text.split(separator) if text else ())
    ]


def as_json(texts: list[str]) -> Any:
    try:
        return parse(texts[0].encode()) if len(texts) == 1 else texts
    except Malformed:
        return texts[0]


def types_of(schema: Any, resolve: Callable[[Any], Any], depth: int = 0) -> frozenset[str]:
    """The types that a schema names, at whatever place."""
    schema = resolve(schema)
    if not isinstance(schema, Mapping) or depth > 8:
        return frozenset()
    kind = schema.get("type", ())
    types = {kind} if isinstance(kind, str) else {str(each) for each in kind}
    for value in (*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())):
        name = {bool: "boolean", int: "integer", float: "number"}.get(type(value))
        types |= {name} if name else set()
    for key in ("allOf", "anyOf", "oneOf"):
        for each in schema.get(key, ()):
            types |= types_of(each, resolve, depth + 1)
    return frozenset(types)


def reader(schema: Any, resolve: Callable[[Any], Any], *, separator: str = "") -> Read:
    """How a parameter with this schema is read."""
    types = types_of(schema, resolve)
    if "array" in types:
        items = mapping(resolve(schema)).get("items", {})
        return several(types_of(items, resolve), separator)
    return one(types)


# Out of schemas, and out of a document


def of_schema(place: str, schema: Any) -> Parameters:
    """The parameters of a place, as the properties of one object."""
    properties = mapping(mapping(schema).get("properties"))
    separator = "" if place == "query" else ","
    reads = {
        name.lower() if place == "header" else name: reader(each, lambda node: node, separator=separator)
        for name, each in properties.items()
    }
    if place == "header" and isinstance(schema, Mapping):
        lower = {name.lower(): each for name, each in properties.items()}
        schema = {**schema, "properties": lower}
        if isinstance(schema.get("required"), list):
            schema["required"] = [name.lower() for name in schema["required"]]
    return Parameters(place, {"type": "object", **mapping(schema)}, reads, option(place), everything=True)


def option(place: str) -> str:
    return {"header": "headers", "cookie": "cookies"}.get(place, place)


def of_operation(api: Api, operation: Operation, schemas: Schemas) -> list[Parameters]:
    """The parameters of an operation, and those of the path item that it stands in."""
    declared: dict[tuple[str, str], Node] = {}
    for node in (*operation.shared.get("parameters", ()), *operation.node.get("parameters", ())):
        parameter = mapping(api.resolve(node))
        place, name = str(parameter.get("in")), str(parameter.get("name"))
        name = name.lower() if place == "header" else name
        if place in STYLES and not (place == "header" and name in IGNORED):
            declared[place, name] = parameter
    found = []
    for place in STYLES:
        ours = {name: parameter for (where, name), parameter in declared.items() if where == place}
        if ours:
            found.append(of_place(api, operation, schemas, place, ours))
    return found


def of_place(
    api: Api, operation: Operation, schemas: Schemas, place: str, declared: Mapping[str, Node]
) -> Parameters:
    properties: dict[str, Any] = {}
    reads: dict[str, Read] = {}
    components: dict[str, Any] = {}
    deep: list[str] = []
    for name, parameter in declared.items():
        where = f"{api.file}: {operation}: {place} parameter {name}"
        content = mapping(parameter.get("content"))
        if content:
            media = mapping(api.resolve(next(iter(content.values()))))
            schema, reads[name] = media.get("schema", True), as_json
        else:
            schema = parameter.get("schema", True)
            style = str(parameter.get("style", STYLES[place][0]))
            if style not in STYLES[place]:
                raise ConfigError(Problem(f"{where}: the style {style} is not known here"))
            explode = parameter.get("explode", style in ("form", "deepObject"))
            types = types_of(schema, api.resolve)
            if style == "deepObject":
                deep.append(name)
                inner = mapping(mapping(api.resolve(schema)).get("properties"))
                reads |= {f"{name}[{key}]": reader(each, api.resolve) for key, each in inner.items()}
            elif "object" in types:
                hint = "say `style: deepObject`, or `content` with application/json"
                raise ConfigError(Problem(f"{where}: no object is read in the style {style}", hint=hint))
            else:
                separator = "" if explode and style == "form" else SEPARATORS[style]
                reads[name] = reader(schema, api.resolve, separator=separator)
        made = schemas.whole(schema)
        if isinstance(made, dict):
            components |= mapping(made.pop("components", {})).get("schemas", {})
        properties[name] = made
    required = [name for name, parameter in declared.items() if parameter.get("required") or place == "path"]
    schema = {"type": "object", "properties": properties, "required": required}
    if components:
        schema["components"] = {"schemas": components}
    return Parameters(place, schema, reads, f"{api.file}: {operation}", deep=deep)
