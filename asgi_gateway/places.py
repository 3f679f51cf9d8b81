"""The only place that knows how the place of a value in a document is written, and finds it again."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .mistake import Loc

OWNER = re.compile(r"(route|upstream) ([^:]+)(?:: ([^:]+))?.*", re.DOTALL)


def place(loc: Loc) -> str:
    """A place as people write it: `routes[3].components[0].rate_limit.limit`."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if part and part.isprintable() else repr(part)
            text += f".{name}" if text else name
    return text


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a document, and what is written there: `...` if nothing is."""

    loc: Loc
    value: Any
    is_key: bool = False
    """Whether the key is meant, not the value."""


def spot(loc: Loc, data: Any, missing: bool = False) -> Spot:
    """What pydantic means by `loc`, without its own parts. `missing`: the last part is not there."""
    found: list[int | str] = []
    parts = list(loc)
    is_key = parts[-1:] == ["[key]"]
    while parts:
        part = parts.pop(0)
        key = key_of(data, part)
        if key is not None:
            found.append(key)
            data = data[key]
            if key != part:
                # A mapping that is kept as pairs: after the number of the pair, 0 is its key, 1 its value.
                is_key = parts[:1] == [0]
                parts = parts[1:]
        elif isinstance(data, str) and part == data:
            found.append(part)  # a name alone: what is wrong is wrong with its options
        elif missing and not parts:
            found.append(part)
            data = ...
    return Spot(tuple(found), data, is_key)


def key_of(data: Any, part: int | str) -> int | str | None:
    """The key or index that a part of a location means here, or None."""
    if isinstance(data, Mapping):
        if part in data:
            return part
        if isinstance(part, int) and part < len(data):
            return str(list(data)[part])
    if isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
        return part
    return None


def find_place(where: str, data: Any) -> Loc:
    """The place that a problem names, as `place` writes it or by its owner: `route orders: rate_limit`."""
    if isinstance(data, Mapping) and (owner := OWNER.fullmatch(where)):
        return of_owner(owner[1], owner[2], owner[3], data)
    found: list[int | str] = []
    while where:
        key = next_key(where, data)
        if key is None:
            break
        found.append(key)
        data = data[key]
        where = where[len(f"[{key}]") if isinstance(key, int) else len(key) :].removeprefix(".")
    return tuple(found)


def next_key(where: str, data: Any) -> int | str | None:
    """The key or index with which a place begins: the longest key that fits, for names may have dots."""
    if isinstance(data, Mapping):
        keys = [key for key in map(str, data) if re.match(re.escape(key) + r"(?:[.\[]|$)", where)]
        return max(keys, key=len, default=None)
    index = re.match(r"\[([0-9]+)\]", where)
    if index and isinstance(data, list | tuple) and int(index[1]) < len(data):
        return int(index[1])
    return None


def of_owner(kind: str, name: str, component: str | None, data: Any) -> Loc:
    """The place of a route or an upstream, or of one of its keys or components."""
    loc: Loc = ()
    if kind == "upstream":
        loc = ("upstreams", name)
    else:
        routes = data.get("routes") or ()
        named = (index for index, route in enumerate(routes) if spot(("name",), route).value == name)
        loc = ("routes", *islice(named, 1))
    owner = spot(loc, data).value
    if component is not None and isinstance(owner, Mapping) and component in owner:
        return (*loc, component)
    entries = owner.get("components") or () if isinstance(owner, Mapping) else ()
    for index, entry in enumerate(entries):
        if component is not None and (
            entry == component or (isinstance(entry, Mapping) and component in entry)
        ):
            return (*loc, "components", index)
    return loc
