"""OpenAPI documents (3.0 and 3.1): their operations, by method and path."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from asgi_gateway.asgi import Scope
from asgi_gateway.component import Build
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.loading.formats import parse_json
from asgi_gateway.loading.yaml12 import read_yaml
from asgi_gateway.routing import Entry, Pattern, Table

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
VARIABLE = re.compile(r"(?<=/)\{([^{}/*]+)\}(?=/|\Z)")
DEEPEST = 32
"""References that lead to references."""

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation of a document."""

    method: str
    path: str
    """As the document has it, `/pets/{id}`."""
    node: Node
    shared: Node
    """The path item that it stands in: its parameters are the operation's, too."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Api:
    """A document. References lead only to places inside of it: nothing is fetched."""

    def __init__(self, data: Any, file: str) -> None:
        self.file = file
        version = str(data.get("openapi", "")) if isinstance(data, Mapping) else ""
        if not version.startswith(("3.0.", "3.1.")):
            raise ConfigError(Problem(f"{file} is not an OpenAPI document of version 3.0 or 3.1"))
        self.data: Node = data
        self.old = version.startswith("3.0.")
        """Whether its schemas are those of 3.0, which JSON Schema does not know in all points."""

    @classmethod
    def open(cls, file: str, build: Build) -> "Api":
        """The document in a file; ConfigError if it is none. A reload reads it only if it has changed."""
        try:
            found = Path(file).stat()
        except OSError as error:
            raise ConfigError(Problem(f"{file} cannot be read: {error.strerror}")) from None
        key = (cls.__name__, file, found.st_mtime_ns, found.st_size)
        return build.keep(key, lambda: cls(read(Path(file)), file), shared=True)

    def resolve(self, node: Any) -> Any:
        """What a reference leads to, or the node itself."""
        for _ in range(DEEPEST):
            if not isinstance(node, Mapping) or not isinstance(node.get("$ref"), str):
                return node
            node = self.find(node["$ref"])
        raise ConfigError(Problem(f"{self.file}: references lead in a circle: {node['$ref']}"))

    def find(self, reference: str) -> Any:
        """What stands at a place, `#/components/schemas/Pet`."""
        node: Any = self.data
        if not reference.startswith("#/"):
            hint = "bundle the document into one file"
            raise ConfigError(Problem(f"{self.file}: {reference!r} leads out of the document", hint=hint))
        for part in reference[2:].split("/"):
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping):
                node = node.get(key)
            elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
                node = node[int(key)]
            else:
                node = None
            if node is None:
                raise ConfigError(Problem(f"{self.file}: {reference!r} leads nowhere"))
        return node

    def operations(self) -> Iterator[Operation]:
        for path, item in mapping(self.data.get("paths")).items():
            shared = mapping(self.resolve(item))
            for method in METHODS:
                if isinstance(shared.get(method), Mapping):
                    yield Operation(method.upper(), str(path), shared[method], shared)


def read(path: Path) -> Any:
    """What a file says. In YAML many write `200:` for what is a string."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    try:
        if path.suffix.lower() in (".yaml", ".yml"):
            return read_yaml(text, any_key=True).data
        return parse_json(text).data
    except ConfigError as error:
        raise ConfigError(replace(problem, file=str(path)) for problem in error.problems) from None


def mapping(node: Any) -> Node:
    return node if isinstance(node, Mapping) else {}


class Operations:
    """Something for each operation of a document, found by the method and the path of a request."""

    def __init__(self, made: Mapping[Operation, Any], base_path: str, file: str) -> None:
        entries = []
        for operation, thing in made.items():
            path, names = named(operation.path)
            try:
                pattern = Pattern(base_path.rstrip("/") + path)
            except ValueError as error:
                raise ConfigError(Problem(f"{file}: {operation}: {error}")) from None
            entries.append(Entry(str(operation), pattern, (thing, names), frozenset({operation.method})))
        self._table: Table[Any] = Table(entries)

    def find(self, method: str, path: str, scope: Scope) -> tuple[Any, dict[str, str]] | None:
        """What was made for the operation, and the variables of the path, still encoded."""
        found = self._table.match(method, "", path, scope)
        if found is None:
            return None
        (thing, names), params = found[0].payload, found[1]
        return thing, {names.get(name, name): text for name, text in params.items()} if names else params

    def knows(self, path: str, scope: Scope) -> frozenset[str]:
        """The methods of the operations at a path."""
        return self._table.allowed("", path, scope)


def named(path: str) -> tuple[str, dict[str, str]]:
    """A path as routes have it, and the names of its variables that no route could have, as in `{pet-id}`."""
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        if found[1].isidentifier():
            return found[0]
        names[f"_{len(names)}"] = found[1]
        return f"{{_{len(names) - 1}}}"

    return VARIABLE.sub(name, path), names
