"""The only place that speaks with jsonschema-rs. Nothing is fetched, and every pattern takes linear time."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal, TypeVar

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
REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
ALTERNATIVES = {
    "anyOf": "the value is not valid under any of the schemas listed in the 'anyOf' keyword",
    "oneOf": "the value is not valid under exactly one of the schemas listed in the 'oneOf' keyword",
}
"""Keywords whose mistakes are told by one sentence."""
TWICE = frozenset({"allOf", "dependentSchemas", "patternProperties"})
"""Keywords that may look twice at the same place."""
DEEPEST = 10
"""Values inside of values in which mistakes are looked for with a schema that looks twice at each level."""
MANY = 1000
"""Values inside of a value in which all mistakes are looked for; in more of them only the first one is."""
LONGEST = 500
"""Characters of a name or a message that are told."""
UNFIT = "does not fit its schema"
BOUNDS = (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum"))


class Compiled:
    """A schema with a validator for it."""

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
        self.validator = validator_for(schema, mask="the value", **options)
        self.teller, self.deepest = self.validator, DEEPEST if doubles(schema) else None
        if refers(schema) and alternatives(schema):
            try:
                self.teller = validator_for(told_apart(schema), mask="the value", **options)
            except (ValidationError, ReferencingError, ValueError):
                # A reference into what was told apart.
                self.deepest = 0


class Checker:
    """What values of one kind have to be."""

    compiled: Compiled

    @classmethod
    def of(cls, schema: Any, where: str) -> "Checker":
        """The one for a schema that stands alone."""
        made = cls()
        made.bind(Compiled(schema, where))
        return made

    def bind(self, compiled: Compiled, key: str | None = None) -> None:
        """`key`: the property of the schema that counts. Many schemas are properties of one: what they all
        refer to is compiled once, and not once for each.
        """
        self.compiled = compiled
        self._key = key

    def accepts(self, value: Any) -> bool:
        return self.compiled.validator.is_valid(value if self._key is None else {self._key: value})

    def faults(self, value: Any, most: int) -> Iterator[tuple[list[str | int], str]]:
        """The first mistakes in a value that is not accepted: where, and what."""
        deepest, found = self.compiled.deepest, False
        if deepest is None or not deeper(value, deepest):
            for error in islice(self._errors(value), most):
                found = True
                path, what = tell(error)
                yield path if self._key is None else path[1:], what
        if not found:
            yield [], UNFIT

    def _errors(self, value: Any) -> Iterable[Any]:
        teller, given = self.compiled.teller, value if self._key is None else {self._key: value}
        if not larger(value, MANY):
            return teller.iter_errors(given)
        # To list the mistakes it makes all of them first, which takes a second for some ten thousand.
        from jsonschema_rs import ValidationError

        try:
            teller.validate(given)
        except ValidationError as error:
            return [error]
        return []


def tell(error: Any) -> tuple[list[str | int], str]:
    """Where a mistake is, and what it is."""
    from jsonschema_rs import ValidationErrorKind

    path, kind = [short(part) for part in error.instance_path], error.kind
    if isinstance(kind, ValidationErrorKind.Required):
        return [*path, kind.property], "is missing"
    if isinstance(kind, ValidationErrorKind.Constant) and isinstance(kind.expected_value, str):
        return path, MARKS.get(kind.expected_value, error.message)
    return path, short(error.message)


T = TypeVar("T", str, int)


def short(part: T) -> T:
    """Names that the caller made up stand in it: his own megabyte does not come back to him."""
    return part[:LONGEST] + "..." if isinstance(part, str) and len(part) > LONGEST else part


# Looking for mistakes takes the validator through all alternatives and, where these hold themselves, through
# those of each level: for a value of a hundred bytes that would take hours. Whether a value fits it finds out
# at once. So its mistakes are looked for with a schema that asks only that of alternatives.

MARKS = {f"\0{keyword}": sentence for keyword, sentence in ALTERNATIVES.items()}


def inside(schema: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas directly inside of a schema."""
    for key in MAPS:
        if isinstance(schema.get(key), Mapping):
            yield from schema[key].values()
    for key in LISTS:
        if isinstance(schema.get(key), list):
            yield from schema[key]
    for key in ONES:
        if key in schema:
            yield schema[key]
    yield from components(schema).values()


def components(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found = schema.get("components")
    found = found.get("schemas") if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def every(schema: Any) -> Iterator[Mapping[str, Any]]:
    """A schema, and all that stand in it."""
    stack = [schema]
    while stack:
        node = stack.pop()
        if isinstance(node, list):  # `items` before 2020-12
            stack += node
        elif isinstance(node, Mapping):
            yield node
            stack += inside(node)


def refers(schema: Any) -> bool:
    return any(not REFERENCES.isdisjoint(each) for each in every(schema))


def alternatives(schema: Any) -> bool:
    return any(not each.keys().isdisjoint(ALTERNATIVES) for each in every(schema))


def doubles(schema: Any) -> bool:
    """Whether one level of a schema that holds itself may look at the next one twice."""
    applies = {*MAPS, *ONES, *LISTS} - {"$defs", "definitions"}
    return refers(schema) and any(
        not TWICE.isdisjoint(each) or not (REFERENCES.isdisjoint(each) or applies.isdisjoint(each))
        for each in every(schema)
    )


def told_apart(schema: Any) -> Any:
    """A schema that says of alternatives no more than whether they fit."""
    if isinstance(schema, list):
        return [told_apart(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = dict(schema)
    for key in MAPS:
        if isinstance(made.get(key), Mapping):
            made[key] = {name: told_apart(each) for name, each in made[key].items()}
    for key in (*ONES, *LISTS):
        if key in made and key not in ALTERNATIVES:
            made[key] = told_apart(made[key])
    if found := components(made):
        made["components"] = {"schemas": {name: told_apart(each) for name, each in found.items()}}
    asked = [
        {"if": {key: made.pop(key)}, "else": {"const": f"\0{key}"}} for key in ALTERNATIVES if key in made
    ]
    if asked:
        made["allOf"] = [*made.get("allOf", ()), *asked]
    return made


def deeper(value: Any, most: int) -> bool:
    """Whether there are more than so many arrays and objects inside of each other."""
    level = containers([value])
    for _ in range(most):
        level = [each for found in level for each in containers(items(found))]
        if not level:
            return False
    return bool(level)


def larger(value: Any, most: int) -> bool:
    """Whether there are more than so many values inside of a value."""
    stack = containers([value])
    while stack and most >= 0:
        found = items(stack.pop())
        most -= len(found)
        stack += containers(found)
    return most < 0


def items(value: Any) -> Collection[Any]:
    return value.values() if isinstance(value, dict) else value


def containers(values: Iterable[Any]) -> list[Any]:
    return [each for each in values if isinstance(each, dict | list)]


def pointer(path: list[str | int]) -> str:
    """A JSON Pointer (RFC 6901) as the fragment of a URL."""
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


class Schemas:
    """The schemas of a document as JSON Schema of 2020-12, for what callers send or for what they get."""

    def __init__(self, api: Api, side: Side) -> None:
        self._api = api
        self._hidden = "readOnly" if side == "request" else "writeOnly"
        self._made: dict[str, Any] = {}
        self._given: list[tuple[Checker, Any, str]] = []

    def checker(self, made: Any, where: str) -> Checker:
        """What checks a schema that was converted, once all of them are compiled."""
        checker = Checker()
        self._given.append((checker, made, where))
        return checker

    def compile(self) -> None:
        """Compile all schemas together. ConfigError for the one that is wrong."""
        properties = {str(number): made for number, (_, made, _) in enumerate(self._given)}
        together = self.whole({"properties": properties})
        try:
            compiled = Compiled(together, self._api.file)
        except ConfigError:
            # One of them is wrong, or refers to itself as if it stood alone.
            for checker, made, where in self._given:
                checker.bind(Compiled(self.whole(made), where))
        else:
            for number, (checker, _, _) in enumerate(self._given):
                checker.bind(compiled, str(number))
        self._given.clear()

    def whole(self, made: Any) -> Any:
        """A schema that was converted, with everything that it refers to."""
        needed: dict[str, Any] = {}
        self._collect(made, needed)
        return {**made, "components": {"schemas": needed}} if needed else made

    def _component(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self.convert(self._api.find(COMPONENTS + name))
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

    def convert(self, schema: Any) -> Any:
        """The schema in the words of 2020-12. What are values in it, not schemas, stays as it is."""
        if not isinstance(schema, Mapping):
            return schema
        made = dict(schema)
        for key in MAPS:
            if isinstance(made.get(key), Mapping):
                made[key] = {name: self.convert(each) for name, each in made[key].items()}
        for key in ONES:
            if key in made:
                made[key] = self.convert(made[key])
        for key in LISTS:
            if isinstance(made.get(key), list):
                made[key] = [self.convert(each) for each in made[key]]
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
