"""The only place that puts environment variables and secret files into a document."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import PydanticCustomError

from ..files import read_whole
from ..mistake import Loc, mistake
from .yaml12 import DEPTH

REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
SECRET_SIZE = 1024 * 1024
"""Bytes that a secret file may have."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A string that holds what came from elsewhere: messages show what is written, never its meaning."""

    written: str
    value: str = field(repr=False)
    parts: tuple[str, ...] = field(repr=False)

    def is_told(self, text: str, least: int) -> bool:
        """Whether a text holds something of at least so many characters that came from elsewhere."""
        return any(len(part) >= least and part.lower() in text.lower() for part in self.parts)


@dataclass(slots=True)
class Interpolation:
    """Fills the strings of one document; collects what was filled, and what could not be."""

    environ: Mapping[str, str] = field(repr=False)
    filled: dict[Loc, Filled] = field(default_factory=dict)
    failed: list[tuple[Loc, PydanticCustomError]] = field(default_factory=list)

    def fill(self, data: Any, loc: Loc = ()) -> Any:
        """A copy with `${NAME}`, `${NAME:-default}` and `${file:/path}` replaced; `$${` is a plain `${`."""
        if isinstance(data, str):
            return self._string(data, loc) if "${" in data else data
        if isinstance(data, float) and not math.isfinite(data):
            self.failed.append((loc, mistake("must be a finite number")))
        elif isinstance(data, Mapping | list | tuple) and len(loc) > DEPTH:
            self.failed.append((loc[:1], mistake(f"values are nested more than {DEPTH} deep")))
        elif isinstance(data, Mapping):
            return {key: self.fill(item, (*loc, key)) for key, item in data.items()}
        elif isinstance(data, list | tuple):
            return [self.fill(item, (*loc, index)) for index, item in enumerate(data)]
        return data

    def _string(self, text: str, loc: Loc) -> str:
        parts: list[str] = []

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            parts.append(look_up(match[1], self.environ))
            return parts[-1]

        try:
            value = REFERENCE.sub(replace, text)
        except PydanticCustomError as error:
            self.failed.append((loc, error))
            return text
        if parts:
            self.filled[loc] = Filled(text, value, tuple(parts))
        return value


def look_up(reference: str | None, environ: Mapping[str, str]) -> str:
    """What stands between `${` and `}`, replaced. PydanticCustomError if there is nothing."""
    if reference is not None and reference.startswith("file:"):
        return read_secret(reference.removeprefix("file:"))
    found = NAME.fullmatch(reference or "")
    if not found:
        hint = "write ${NAME}, ${NAME:-default} or ${file:/path}; $${ is a plain ${"
        raise mistake("a ${ that refers to nothing", hint)
    name, default = found.groups()
    value = environ.get(name)
    if default is not None:
        return value or default
    if value is None:
        raise mistake(f"the environment variable {name} is not set", f"set it, or write ${{{name}:-default}}")
    return value


def read_secret(path: str) -> str:
    """The text of a file without its last line end."""
    try:
        content = read_whole(path, SECRET_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise mistake(f"the file {path} cannot be read: {reason}", "is the secret mounted?") from None
    if len(content) > SECRET_SIZE:
        raise mistake(f"the file {path} has more than {SECRET_SIZE:,} bytes", "is it the right one?")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise mistake(f"the file {path} is not UTF-8", "a secret is text") from None
