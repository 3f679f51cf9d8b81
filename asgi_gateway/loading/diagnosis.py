"""The only place that says in words what is wrong with a document. It never shows what was interpolated."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from ..errors import Problem
from ..mistake import Loc
from ..places import place, spot
from ..plugins import Plugins, suggestion
from .formats import Document
from .interpolation import Filled
from .keys import keys_at

LIST, MAPPING = "must be a list", "must be a mapping"
WHOLE, NUMBER, BOOLEAN = "must be a whole number", "must be a number", "must be true or false"

WORDS = {
    "missing": "is missing",
    "extra_forbidden": "unknown key",
    "string_type": "must be a string",
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_parsing_size": WHOLE,
    "int_from_float": WHOLE,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": BOOLEAN,
    "bool_parsing": BOOLEAN,
    "tuple_type": LIST,
    "list_type": LIST,
    "set_type": LIST,
    "frozen_set_type": LIST,
    "dict_type": MAPPING,
    "mapping_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "none_required": "must be empty",
}
"""What pydantic's errors mean to somebody who writes a file. None of these texts shows a value."""

LONG = 4
"""Characters of a value that stands in a text not by accident, wherever in the document it was filled in."""
HIDDEN = "is not accepted; why is not shown, because it may tell what {written!r} stands for"


class Diagnosis:
    """Makes problems out of errors for one document."""

    def __init__(self, document: Document, filled: Mapping[Loc, Filled], plugins: Plugins) -> None:
        self._document = document
        self._filled = filled
        self._plugins = plugins

    def problem(self, loc: Loc, what: str, hint: str = "") -> Problem:
        """A problem with its place."""
        return Problem(what, place(loc), hint, self._document.file, self._document.find(loc))

    def mistakes(self, found: Iterable[tuple[Loc, PydanticCustomError]]) -> list[Problem]:
        """The problems of mistakes whose places are known."""
        return [self.problem(loc, *self._told(loc, fault.context or {})) for loc, fault in found]

    def errors(self, error: ValidationError, below: Loc = ()) -> list[Problem]:
        """The problems of what pydantic found; one for a place about which members of a union disagree."""
        found: dict[tuple[Loc, bool], tuple[str, str]] = {}
        short: list[Loc] = []
        for details in error.errors(include_url=False, include_input=False):
            kind = details["type"]
            at = spot((*below, *details["loc"]), self._document.data, kind == "missing")
            what, hint = self._text(at.loc, details)
            if at.is_key and kind in WORDS:
                what = f"the key {what}"
            if at.value is None and kind.endswith("_type"):
                hint = "nothing is written here"
            other = found.get((at.loc, at.is_key))
            found[at.loc, at.is_key] = (either(other[0], what) if other else what, hint)
            if kind == "too_short":
                short.append(at.loc)
        for loc in short:
            # Only what could be read was counted.
            if any(len(other) > len(loc) and other[: len(loc)] == loc for other, _ in found):
                del found[loc, False]
        return [self.problem(loc, *text) for (loc, _), text in found.items()]

    def _text(self, loc: Loc, error: ErrorDetails) -> tuple[str, str]:
        """What is wrong, and what to do about it."""
        kind, context = error["type"], error.get("ctx", {})
        if kind == "mistake":
            return self._told(loc, context)
        if kind in ("too_short", "string_too_short") and context["min_length"] == 1:
            return "must not be empty", ""
        if kind in WORDS:
            return WORDS[kind].format_map(context), self._keys(loc) if kind == "extra_forbidden" else ""
        # Somebody else's words: they may tell anything about the value.
        text = str(context["error"]) if isinstance(context.get("error"), Exception) else error["msg"]
        if loc in self._filled:
            return HIDDEN.format(written=self._filled[loc].written), ""
        return self._shown((), self._shown(loc, text), LONG), ""

    def _told(self, loc: Loc, context: Mapping[str, Any]) -> tuple[str, str]:
        """The words of a mistake, with what is written in the place of what it stands for."""
        what, hint, value = str(context["what"]), str(context["hint"]), context["value"]
        filled = self._filled.get(loc)
        if filled is None or value is None:
            return self._shown(loc, what), hint
        before, shown, after = what.partition(repr(value))
        rest = self._shown(loc, before + after)
        return (f"{before}{filled.written!r}{after}" if shown and rest == before + after else rest), hint

    def _shown(self, loc: Loc, text: str, least: int = 1) -> str:
        """The text, unless it holds what was filled in at `loc` or below (if that has `least` characters)."""
        for other, filled in self._filled.items():
            if other[: len(loc)] == loc and filled.is_told(text, least):
                return HIDDEN.format(written=filled.written)
        return text

    def _keys(self, loc: Loc) -> str:
        """Which key may have been meant."""
        known = keys_at(loc[:-1], self._plugins)
        return suggestion(str(loc[-1]), known) or (f"known: {', '.join(known)}" if known else "")


def masked(text: str, filled: Iterable[Filled]) -> str:
    """A text about a whole document, without what was filled in anywhere."""
    for each in filled:
        for part in sorted(each.parts, key=len, reverse=True):
            if len(part) >= LONG:
                text = text.replace(part, each.written)
        if each.is_told(text.replace(each.written, ""), LONG):
            return HIDDEN.format(written=each.written)
    return text


def either(first: str, second: str) -> str:
    """One sentence out of two about the same place."""
    if second in first:
        return first
    start = "must be "
    if first.startswith(start) and second.startswith(start):
        return f"{first} or {second.removeprefix(start)}"
    return f"{first}, or {second}"
