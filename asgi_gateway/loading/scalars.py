"""The only place that knows the types of scalars in YAML 1.2 (its core schema, 10.3.2)."""

import re

TAG = "tag:yaml.org,2002:"
NULL = re.compile(r"null|Null|NULL|~|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
# Bounded: reading a number takes time that grows with the square of its length.
INT = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,400}|[0-9]{1,400}(?:\.[0-9]{0,400})?)(?:[eE][-+]?[0-9]{1,4})?")
INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

BASES = {"0o": 8, "0x": 16}
NUMERIC = frozenset("+-.0123456789")
WORDS = frozenset("nNtTfF~")

Scalar = str | int | float | bool | None


def resolve(text: str, tag: str | None, plain: bool) -> Scalar:
    """The value of a scalar. `plain`: it has neither quotes nor a tag. ValueError if its tag does not fit."""
    if not plain:
        return text if tag in (None, "!", f"{TAG}str") else tagged(text, tag or "")
    first = text[:1]
    if first in NUMERIC:
        return number(text, text)
    if not first or first in WORDS:
        if NULL.fullmatch(text):
            return None
        if BOOL.fullmatch(text):
            return text in ("true", "True", "TRUE")
    return text


def number(text: str, default: Scalar) -> Scalar:
    if INT.fullmatch(text):
        return int(text, BASES.get(text[:2], 10))
    if FLOAT.fullmatch(text):
        return float(text)
    if INFINITE.fullmatch(text):
        return float(text.lower().replace(".", ""))
    return default


def tagged(text: str, tag: str) -> Scalar:
    """A scalar whose type is written in front of it, as in `!!int 4`."""
    value = resolve(text, None, True)
    kind = {"int": int, "float": float, "bool": bool, "null": type(None)}.get(tag.removeprefix(TAG))
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{tag} does not fit")
    return value
