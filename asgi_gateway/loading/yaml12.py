"""The only place that reads YAML: the core schema of YAML 1.2, strictly, with the line of every value."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from ..errors import ConfigError, Problem
from .scalars import resolve

DEPTH = 100
"""How deep values may be nested."""
TOO_DEEP = f"values are nested more than {DEPTH} deep"
ALIASED = 100_000
"""How many values aliases may stand for; a short text could stand for billions."""

Beginning = yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent

HINTS = {
    "mapping values are not allowed": "look at the indentation; a value with ': ' in it needs quotes",
    "a tab character": "tabs do not indent",
    "cannot start any token": "tabs do not indent; a value that begins with @, ` or % needs quotes",
}


@dataclass(frozen=True, slots=True)
class Written:
    """Data, and the line of each item of each collection in it, by the identity of the collection."""

    data: Any
    line: int
    lines: Mapping[int, Sequence[int]]

    def find(self, loc: Iterable[int | str]) -> int:
        """The line of a value (of its key, if it has one), or of the nearest one around it."""
        data, line = self.data, self.line
        for part in loc:
            if isinstance(data, dict) and part in data:
                position = list(data).index(part)
            elif isinstance(data, list) and isinstance(part, int) and part < len(data):
                position = part
            else:
                break
            line = self.lines[id(data)][position]
            data = data[part]
        return line


def read_yaml(text: str) -> Written:
    """The one document of a text; its data is None if there is none. ConfigError has lines, but no file."""
    # Of PyYAML only the events are used: nodes cost five times as much, its types are those of YAML 1.1.
    loader = yaml.CSafeLoader(text)
    try:
        reader = Reader(loader)
        written = reader.document()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(syntax(error)) from None
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        raise ConfigError(Problem(f"not YAML: {error.reason}", line=line)) from None
    finally:
        loader.dispose()
    if reader.problems:
        raise ConfigError(reader.problems)
    return written


def syntax(error: yaml.MarkedYAMLError) -> Problem:
    """What the parser says, in a sentence."""
    marks = [mark for mark in (error.problem_mark, error.context_mark) if mark is not None]
    line = marks[0].line + 1 if marks else 0
    began = f" (it began in line {marks[1].line + 1})" if len(marks) > 1 and marks[1].line + 1 != line else ""
    what = ", ".join(part for part in (error.context, error.problem) if part)
    if "nesting depth" in what:
        # libyaml has a bound of its own, which it reaches first where it reads ahead.
        return Problem(TOO_DEEP, line=line)
    hint = next((hint for words, hint in HINTS.items() if words in what), "")
    return Problem(f"not YAML: {what}{began}", hint=hint, line=line)


@dataclass(slots=True)
class Anchored:
    """What an alias stands for. Until it is complete, nothing may stand for it."""

    value: Any = None
    size: int = 0
    height: int = 0
    complete: bool = False


class Reader:
    """Makes data out of the events of one text, and collects what is wrong."""

    def __init__(self, loader: yaml.CSafeLoader) -> None:
        self.problems: list[Problem] = []
        self._next: Callable[[], Any] = loader.get_event
        self._lines: dict[int, tuple[int, ...]] = {}
        self._anchors: dict[str, Anchored] = {}
        self._size = 0
        self._aliased = 0
        self._depth = 0
        self._height = 0

    def document(self) -> Written:
        """The data of the one document."""
        data, line = None, 0
        self._next()
        if isinstance(self._next(), yaml.DocumentStartEvent):
            event = self._next()
            line = line_of(event)
            data = self._value(event)
            self._next()
            if isinstance(event := self._next(), yaml.DocumentStartEvent):
                hint = "a configuration is one document"
                stop("a second document begins here", event, hint)
        return Written(data, line, self._lines)

    def _value(self, event: Beginning | yaml.AliasEvent) -> Any:
        """What an event begins; its height is left in `_height`."""
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._size += 1
        if not event.anchor:
            return self._unnamed(event)
        anchored = self._anchors[event.anchor] = Anchored()
        before = self._size
        anchored.value = self._unnamed(event)
        anchored.size, anchored.height = self._size - before + 1, self._height
        anchored.complete = True
        return anchored.value

    def _unnamed(self, event: Beginning) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            self._height = 0
            return self._scalar(event)
        if event.tag not in (None, "!", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            self._strange(event)
        self._depth += 1
        self._check_depth(event, 0)
        value = self._sequence() if isinstance(event, yaml.SequenceStartEvent) else self._mapping()
        self._depth -= 1
        return value

    def _alias(self, event: yaml.AliasEvent) -> Any:
        anchored = self._anchors.get(event.anchor or "")
        if anchored is None:
            stop(f"nothing is anchored as &{event.anchor}", event, "a value that begins with * needs quotes")
        if not anchored.complete:
            stop("an alias stands inside of what it stands for", event)
        self._size += anchored.size
        self._aliased += anchored.size
        if self._aliased > ALIASED:
            stop(f"aliases stand for more than {ALIASED:,} values", event)
        self._check_depth(event, anchored.height)
        self._height = anchored.height
        return anchored.value

    def _check_depth(self, event: yaml.Event, height: int) -> None:
        if self._depth + height > DEPTH:
            stop(TOO_DEEP, event)

    def _sequence(self) -> list[Any]:
        data, lines, height = [], [], 0
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            lines.append(line_of(event))
            data.append(self._value(event))
            height = max(height, self._height)
        self._height = height + 1
        self._lines[id(data)] = tuple(lines)
        return data

    def _mapping(self) -> dict[str, Any]:
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        height = 0
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._value(event)
            value = self._value(self._next())
            height = max(height, self._height)
            if self._is_key(key, event, lines):
                data[key] = value
                lines[key] = line_of(event)
        self._height = height + 1
        self._lines[id(data)] = tuple(lines.values())
        return data

    def _is_key(self, key: Any, event: yaml.Event, lines: Mapping[str, int]) -> bool:
        if not isinstance(key, str):
            text = getattr(event, "value", "this")
            self._problem(f"{text} is not a string", event, "every key is one: put it in quotes")
        elif key == "<<" and not getattr(event, "style", None):
            self._problem("YAML 1.2 has no merge keys", event, "share components with `policies`")
        elif key in lines:
            self._problem(f"the key {key!r} is there twice, first in line {lines[key]}", event)
        else:
            return True
        return False

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        try:
            return resolve(event.value, event.tag, event.implicit[0])
        except ValueError:
            self._strange(event)
            return None

    def _strange(self, event: Beginning) -> None:
        tag = (event.tag or "").replace("tag:yaml.org,2002:", "!!")
        self._problem(f"the tag {tag} means nothing here", event)

    def _problem(self, what: str, event: yaml.Event, hint: str = "") -> None:
        self.problems.append(Problem(what, hint=hint, line=line_of(event)))


def stop(what: str, event: yaml.Event, hint: str = "") -> NoReturn:
    """Raise a problem after which the rest of a text is not worth reading."""
    raise ConfigError(Problem(what, hint=hint, line=line_of(event)))


def line_of(event: yaml.Event) -> int:
    mark = event.start_mark
    return mark.line + 1 if mark else 0
