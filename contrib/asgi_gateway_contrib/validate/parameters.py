"""The only place that reads parameters: out of text, the types that their schemas ask for."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

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

DEEPEST = 32
"""References that lead to references."""

Resolve = Callable[[Any], Any]
"""What a reference leads to, or the schema itself."""
Read = Callable[[list[str]], Any]
"""The value of a parameter out of all texts that were given for it."""


class Parameters:
    """The parameters of one place: how each is read, and what they have to be together."""

    def __init__(
        self,
        place: str,
        checker: Checker,
        reads: Mapping[str, Read],
        *,
        into: Mapping[str, tuple[str, str]] | None = None,
        deep: Mapping[str, Read] | None = None,
        rest: tuple[str, Read] | None = None,
    ) -> None:
        """`into`: what is a property of another parameter. `deep`: parameters that are objects, `name[key]`,
        and how properties are read that nobody described. `rest`: the parameter whose properties are
        those that nobody described; without a name they are parameters of their own.
        """
        self.place = place
        self._checker = checker
        self._reads = dict(reads)
        self._into = dict(into or {})
        self._deep = dict(deep or {})
        self._rest = rest

    def faults(self, scope: Scope, params: Mapping[str, str], most: int) -> list[Fault]:
        """The first mistakes in the parameters of a request."""
        values: dict[str, Any] = {}
        for name, texts in TEXTS[self.place](scope, params).items():
            if (read := self._reads.get(name)) is not None:
                self._put(values, name, read(texts))
            elif self._deep and (found := DEEP.fullmatch(name)) and found[1] in self._deep:
                values.setdefault(found[1], {})[found[2]] = self._deep[found[1]](texts)
            elif self._rest is not None:
                owner, read = self._rest
                (values.setdefault(owner, {}) if owner else values)[name] = read(texts)
        try:
            if self._checker.accepts(values):
                return []
            found_faults = list(self._checker.faults(values, most))
        except (ValueError, RecursionError):
            return [{"in": self.place, "detail": "cannot be read"}]
        return [fault(self.place, path, what) for path, what in found_faults]

    def _put(self, values: dict[str, Any], name: str, value: Any) -> None:
        owner = self._into.get(name)
        if owner is None:
            values[name] = value
        else:
            values.setdefault(owner[0], {})[owner[1]] = value


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


def parts(schema: Any, resolve: Resolve, depth: int = 0) -> Iterator[Node]:
    """A schema, and those that it is put together from."""
    schema = resolve(schema)
    if isinstance(schema, Mapping) and depth <= 8:
        yield schema
        for key in ("allOf", "anyOf", "oneOf"):
            for each in schema.get(key, ()):
                yield from parts(each, resolve, depth + 1)


def types_of(schema: Any, resolve: Resolve) -> frozenset[str]:
    """The types that a schema names, at whatever place."""
    types: set[str] = set()
    for part in parts(schema, resolve):
        kind = part.get("type", ())
        types |= {kind} if isinstance(kind, str) else {str(each) for each in kind}
        for value in (*part.get("enum", ()), *([part["const"]] if "const" in part else ())):
            name = {bool: "boolean", int: "integer", float: "number"}.get(type(value))
            types |= {name} if name else set()
    return frozenset(types)


def properties_of(schema: Any, resolve: Resolve) -> dict[str, Any]:
    """The properties that it names, at whatever place."""
    return {
        name: each
        for part in parts(schema, resolve)
        for name, each in mapping(part.get("properties")).items()
    }


def reader(schema: Any, resolve: Resolve, *, separator: str = "") -> Read:
    """How a parameter with this schema is read."""
    types = types_of(schema, resolve)
    if "array" not in types:
        return one(types)
    found = [types_of(part["items"], resolve) for part in parts(schema, resolve) if "items" in part]
    return several(frozenset[str]().union(*found), separator)


def others(schema: Any, resolve: Resolve) -> Read:
    """How properties are read that a schema does not name."""
    found = mapping(resolve(schema)).get("additionalProperties")
    return reader(found, resolve) if isinstance(found, Mapping) else plain


def keyed(schema: Any, resolve: Resolve, separator: str, *, explode: bool) -> Read:
    """An object in one text: `R,100,G,200`, or `R=100,G=200` where it explodes."""
    reads = {name: reader(each, resolve) for name, each in properties_of(schema, resolve).items()}
    other = others(schema, resolve)

    def read(texts: list[str]) -> Any:
        pieces = [piece.strip(" ") for piece in texts[0].split(separator)]
        if explode:
            pairs = [piece.partition("=") for piece in pieces if "=" in piece]
            names, values = [pair[0] for pair in pairs], [pair[2] for pair in pairs]
            if len(pairs) != len(pieces):
                return texts
        else:
            names, values = pieces[::2], pieces[1::2]
        # What is no list of pairs is no object either, nor is what says one thing twice.
        if len(texts) > 1 or len(names) != len(values) or len(set(names)) != len(names):
            return texts
        return {name: reads.get(name, other)([text]) for name, text in zip(names, values, strict=True)}

    return read


def local(schema: Any) -> Resolve:
    """What follows references inside of a schema that stands alone."""

    def resolve(node: Any) -> Any:
        for _ in range(DEEPEST):
            reference = node.get("$ref") if isinstance(node, Mapping) else None
            if not isinstance(reference, str):
                return node
            node = schema
            for part in reference.removeprefix("#").split("/")[1:]:
                key = unquote(part).replace("~1", "/").replace("~0", "~")
                # One that leads nowhere is told by the validator.
                node = node.get(key) if isinstance(node, Mapping) else None
        return None

    return resolve


# Out of schemas, and out of a document


def of_schema(place: str, schema: Any) -> Parameters:
    """The parameters of a place, as the properties of one object."""
    separator, resolve = "" if place == "query" else ",", local(schema)
    reads = {
        name.lower() if place == "header" else name: reader(each, resolve, separator=separator)
        for name, each in properties_of(schema, resolve).items()
    }
    other = others(schema, resolve)
    if place == "header" and isinstance(schema, Mapping):
        lower = {name.lower(): each for name, each in mapping(schema.get("properties")).items()}
        schema = {**schema, "properties": lower}
        if isinstance(schema.get("required"), list):
            schema["required"] = [name.lower() for name in schema["required"]]
    checker = Checker.of({"type": "object", **mapping(schema)}, option(place))
    return Parameters(place, checker, reads, rest=("", other))


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
    ways, properties = Ways(api, place), dict[str, Any]()
    for name, parameter in declared.items():
        schema = ways.add(name, parameter, f"{api.file}: {operation}: {place} parameter {name}")
        properties[name] = schemas.convert(schema)
    required = [name for name, parameter in declared.items() if parameter.get("required") or place == "path"]
    made = {"type": "object", "properties": properties, "required": required}
    checker = schemas.checker(made, f"{api.file}: {operation}")
    # A parameter with a name of its own comes before a property of another one.
    reads = {**ways.spread, **ways.reads}
    into = {name: owner for name, owner in ways.into.items() if name not in ways.reads}
    return Parameters(place, checker, reads, into=into, deep=ways.deep, rest=ways.rest)


class Ways:
    """How the parameters of one place are read, by their styles."""

    def __init__(self, api: Api, place: str) -> None:
        self._api = api
        self._place = place
        self.reads: dict[str, Read] = {}
        self.spread: dict[str, Read] = {}
        self.into: dict[str, tuple[str, str]] = {}
        self.deep: dict[str, Read] = {}
        self.rest: tuple[str, Read] | None = None

    def add(self, name: str, parameter: Node, where: str) -> Any:
        """Take a parameter in; its schema. ConfigError for a style that is not read."""
        resolve = self._api.resolve
        if content := mapping(parameter.get("content")):
            self.reads[name] = as_json
            return mapping(resolve(next(iter(content.values())))).get("schema", True)
        schema = parameter.get("schema", True)
        style = str(parameter.get("style", STYLES[self._place][0]))
        if style not in STYLES[self._place]:
            hint = f"one of {', '.join(STYLES[self._place])}"
            raise ConfigError(Problem(f"{where}: the style {style} is not known here", hint=hint))
        explode = bool(parameter.get("explode", style in ("form", "deepObject")))
        if style == "deepObject":
            self._in_brackets(name, schema)
        elif "object" not in types_of(schema, resolve):
            separator = "" if explode and style == "form" else SEPARATORS[style]
            self.reads[name] = reader(schema, resolve, separator=separator)
        elif style == "form" and explode:
            self._spread(name, schema)
        elif style in ("form", "simple") or not explode:
            self.reads[name] = keyed(schema, resolve, SEPARATORS[style], explode=explode)
        else:
            hint = "say `explode: false`, `style: deepObject`, or `content` with application/json"
            raise ConfigError(Problem(f"{where}: no object is read in the style {style}", hint=hint))
        return schema

    def _in_brackets(self, name: str, schema: Any) -> None:
        """`color[R]=100&color[G]=200`."""
        resolve = self._api.resolve
        self.deep[name] = others(schema, resolve)
        for key, each in properties_of(schema, resolve).items():
            text = f"{name}[{key}]"
            self.spread[text], self.into[text] = reader(each, resolve), (name, key)

    def _spread(self, name: str, schema: Any) -> None:
        """`R=100&G=200`: each property is a parameter."""
        resolve = self._api.resolve
        named = properties_of(schema, resolve)
        for key, each in named.items():
            self.spread[key], self.into[key] = reader(each, resolve), (name, key)
        if not named or mapping(resolve(schema)).get("additionalProperties"):
            self.rest = (name, others(schema, resolve))
