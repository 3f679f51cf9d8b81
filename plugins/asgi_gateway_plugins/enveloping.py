"""The unified answer of older micro service frameworks, `{"code": 0, "message": "ok", "data": ...}`."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from asgi_gateway.config import read_pairs
from asgi_gateway.mistake import mistake

Source = Literal["code", "message", "data", "reason", "status", "title", "request_id", "errors"]
"""What a member can be: `data` is the body of an answer, null where something went wrong."""


def read_code(code: int | str) -> int | str:
    if not code:
        raise mistake("says that nothing is wrong", "a code is a number other than 0, or a word")
    return code


Code = Annotated[int | str, AfterValidator(read_code)]
"""A number other than 0, or a word."""

DEFAULT: tuple[tuple[str, Source], ...] = (("code", "code"), ("message", "message"), ("data", "data"))


def read_members(members: tuple[tuple[str, Source], ...]) -> tuple[tuple[str, Source], ...]:
    if not members or any(not name for name, _ in members):
        raise mistake("an envelope has members with names", "as in {code: code, msg: message, data: data}")
    if len(members) != len(dict(members)) or [source for _, source in members].count("data") > 1:
        raise mistake("names a member twice")
    return members


Members = Annotated[
    tuple[tuple[str, Source], ...],
    BeforeValidator(read_pairs),
    AfterValidator(read_members),
    PlainSerializer(dict),
    WithJsonSchema({"type": "object", "additionalProperties": {"enum": list(get_args(Source))}}),
]
"""The names of the members in their order, and what each of them is."""


def around(members: tuple[tuple[str, Source], ...], values: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """What stands in front of `data` and behind it; all of it in front if there is no such member."""
    front, behind, parts = b"", b"", list[bytes]()
    for name, source in members:
        parts.append(as_json(name) + b":" + (b"" if source == "data" else as_json(values.get(source))))
        if source == "data":
            front, parts = b"{" + b",".join(parts), []
    if front:
        behind = b"".join([b"," + part for part in parts]) + b"}"
    else:
        front = b"{" + b",".join(parts) + b"}"
    return front, behind


def envelope(members: tuple[tuple[str, Source], ...], values: Mapping[str, Any]) -> bytes:
    """An envelope without data."""
    front, behind = around(members, values)
    return front + (b"null" if behind else b"") + behind


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")
