"""The only place that knows the formats of configuration files: YAML, JSON, TOML."""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import ConfigError, Problem
from ..mistake import Loc
from .yaml12 import read_yaml


def nowhere(loc: Iterable[int | str]) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says, and in which line."""

    data: Any
    file: str = ""
    find: Callable[[Iterable[int | str]], int] = nowhere
    """The line of a value, or of the nearest one around it that can be found; 0 if there is none."""


def parse_yaml(text: str) -> Document:
    written = read_yaml(text)
    return Document(written.data, find=written.find)


def parse_json(text: str) -> Document:
    """JSON, without keys that are there twice. Lines are found when they are asked for."""

    @cache
    def written() -> Callable[[Iterable[int | str]], int]:
        # Nearly all JSON is YAML; what is not has no lines.
        try:
            return read_yaml(text).find
        except ConfigError:
            return nowhere

    try:
        data = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ConfigError(Problem(f"not JSON: {error.msg}", line=error.lineno)) from None
    except KeyError as error:
        raise ConfigError(twice(text, error.args[0])) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(Problem(f"not JSON: {error}")) from None
    return Document(data, find=lambda loc: written()(loc))


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping; KeyError if a key is there twice."""
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data:
            raise KeyError(key)
        data[key] = value
    return data


def twice(text: str, key: str) -> list[Problem]:
    """What to say about keys that are there twice: with lines, where the text is YAML as well."""
    what = f"the key {key!r} is there twice"
    try:
        read_yaml(text)
    except ConfigError as error:
        if any(problem.what.startswith(what) for problem in error.problems):
            return list(error.problems)
    return [Problem(what)]


def parse_toml(text: str) -> Document:
    """TOML. Its parser keeps no lines: those of tables and keys are found when they are asked for."""

    @cache
    def lines() -> Mapping[Loc, int]:
        return toml_lines(text)

    def find(loc: Iterable[int | str]) -> int:
        place = tuple(loc)
        while place and place not in lines():
            place = place[:-1]
        return lines().get(place, 1)

    try:
        return Document(tomllib.loads(text), find=find)
    except RecursionError:
        raise ConfigError(Problem("values are nested too deep")) from None
    except ValueError as error:
        what, _, where = str(error).partition(" (at ")
        number = re.match("line ([0-9]+)", where)
        line = int(number[1]) if number else text.count("\n") + 1
        raise ConfigError(Problem(f"not TOML: {what}", line=line)) from None


WORD = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
DOTTED = rf"{WORD}(?:\s*\.\s*{WORD})*"
TOML_LINE = re.compile(rf"\s*(?:(\[\[?)\s*({DOTTED})\s*\]|({DOTTED})\s*=)")


def toml_lines(text: str) -> dict[Loc, int]:
    """The lines of tables and keys."""
    found: dict[Loc, int] = {}
    last: dict[Loc, int] = {}
    table: Loc = ()
    for number, line in enumerate(text.splitlines(), 1):
        match = TOML_LINE.match(line)
        if match is None:
            continue
        bracket, header, key = match.groups()
        if header is None:
            found.setdefault((*table, *words(key)), number)
            continue
        table = inside(words(header), last, new=bracket == "[[")
        found.setdefault(table, number)
    return found


def words(dotted: str) -> list[str]:
    return [word.strip("\"'") for word in re.findall(WORD, dotted)]


def inside(header: list[str], last: dict[Loc, int], new: bool) -> Loc:
    """The place of a table: inside of the last item of every array of tables on its way."""
    place: Loc = ()
    for word in header[:-1]:
        place = (*place, word)
        if place in last:
            place = (*place, last[place])
    place = (*place, header[-1])
    if new:
        last[place] = last.get(place, -1) + 1
        place = (*place, last[place])
    return place


FORMATS: Mapping[str, Callable[[str], Document]] = {
    ".yaml": parse_yaml,
    ".yml": parse_yaml,
    ".json": parse_json,
    ".toml": parse_toml,
}
