"""Whether two services answer alike: status, fields and body."""

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from asgi_gateway.asgi import Headers, Message, header, is_stream
from asgi_gateway.config.model import Model
from asgi_gateway.mistake import mistake
from asgi_gateway.units import Size

from ..fields import HeaderName

ANY = "*"


def read_pointer(text: str) -> str:
    """RFC 6901, where `*` stands for every key and every index."""
    if not text.startswith("/"):
        raise mistake(f"{text!r} is not a JSON pointer", "as in /meta/time, or /items/*/id", text)
    return text


Pointer = Annotated[str, AfterValidator(read_pointer)]


class Compare(Model):
    """What of both answers is compared."""

    status: bool = True
    """The status."""
    headers: tuple[HeaderName, ...] = ()
    """These header fields, all their values."""
    body: bool = True
    """The body: JSON by what it says, anything else byte by byte."""
    ignore: tuple[Pointer, ...] = ()
    """Places in JSON that may differ, as JSON pointers (RFC 6901); `*` stands for every key or index."""
    max_body: Annotated[Size, Field(ge=1)] = 256 * 1024
    """Answers with a larger body are not compared."""
    reports: Annotated[int, Field(ge=0)] = 10
    """Differences that are written into the log in a minute; the rest is counted."""

    @model_validator(mode="after")
    def says_something(self) -> "Compare":
        if not (self.status or self.headers or self.body):
            raise mistake("nothing is compared", "one of status, headers, body")
        return self


class Answer:
    """One answer, as far as it is compared."""

    __slots__ = ("_cap", "body", "complete", "headers", "incomparable", "status")

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self.status = 0
        self.headers: Headers = ()
        self.body = b""
        self.complete = False
        self.incomparable = False
        """It has no end, or is too large."""

    def add(self, message: Message) -> None:
        if self.incomparable:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = tuple(message.get("headers", ()))
            self.incomparable = is_stream(self.headers)
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)
            if len(self.body) > self._cap:
                self.incomparable, self.body = True, b""

    @property
    def is_json(self) -> bool:
        kind = (header(self.headers, b"content-type") or b"").partition(b";")[0].strip().lower()
        coded = header(self.headers, b"content-encoding") is not None
        return not coded and (kind == b"application/json" or kind.endswith(b"+json"))


class Comparison:
    """Compares by the options of one mirror."""

    def __init__(self, options: Compare) -> None:
        self._options = options
        self._names = [name.encode() for name in options.headers]
        self._ignored = [steps(pointer) for pointer in options.ignore]

    def difference(self, one: Answer, other: Answer) -> str:
        """Where the first differs from the second, or nothing. Shows no value of a field or a body."""
        if self._options.status and one.status != other.status:
            return f"status {one.status}, then {other.status}"
        for name in self._names:
            if values(one, name) != values(other, name):
                return f"field {name.decode()}"
        if self._options.body and one.body != other.body:
            return self.bodies(one, other)
        return ""

    def bodies(self, one: Answer, other: Answer) -> str:
        if one.is_json and other.is_json:
            try:
                return differs(self.read(one), self.read(other))
            except (ValueError, RecursionError):
                pass  # it is no JSON that can be compared
        pairs = zip(one.body, other.body, strict=False)
        shorter = min(len(one.body), len(other.body))
        return f"body at byte {next((at for at, (a, b) in enumerate(pairs) if a != b), shorter)}"

    def read(self, answer: Answer) -> Any:
        document = json.loads(answer.body)
        for pointer in self._ignored:
            forget(document, pointer)
        return document


def values(answer: Answer, name: bytes) -> list[bytes]:
    return [value for key, value in answer.headers if key == name]


def steps(pointer: str) -> tuple[str, ...]:
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/"))


def forget(document: Any, pointer: Sequence[str]) -> None:
    """Take everything at a place out of a document."""
    step, *rest = pointer
    if isinstance(document, dict):
        keys: Iterable[Any] = list(document) if step == ANY else [step] if step in document else []
    elif isinstance(document, list):
        keys = range(len(document)) if step == ANY else [int(step)] if is_index(step, document) else []
    else:
        return
    for key in keys:
        if rest:
            forget(document[key], rest)
        else:
            document[key] = None


def is_index(step: str, document: Sequence[Any]) -> bool:
    return step.isascii() and step.isdigit() and len(step) < 9 and int(step) < len(document)


def differs(one: Any, other: Any, place: str = "") -> str:
    """Where two documents differ first, or nothing."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in (*one, *(key for key in other if key not in one)):
            inside = f"{place}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in one or key not in other:
                return f"body at {inside[:200]!a}"
            if where := differs(one[key], other[key], inside):
                return where
        return ""
    if isinstance(one, list) and isinstance(other, list):
        for index, (mine, its) in enumerate(zip(one, other, strict=False)):
            if where := differs(mine, its, f"{place}/{index}"):
                return where
        return (
            ""
            if len(one) == len(other)
            else f"body at {place[:200]!a}: lengths {len(one)}, then {len(other)}"
        )
    # In Python, true is 1.
    same = one == other and isinstance(one, bool) is isinstance(other, bool)
    return "" if same else f"body at {place[:200]!a}"
