"""Answers itself: always the same, or with the examples of an OpenAPI document."""

import json
import re
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, model_validator

from asgi_gateway.asgi import ASGIApp, Header, Headers, Receive, Scope, Send, answer, header
from asgi_gateway.component import Build, Component
from asgi_gateway.config.model import UrlPath
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage

from .examples import examples_of, sample
from .fields import TOKEN, is_framing, value, values
from .headers import Values, filled, made
from .openapi import Api, Operation, Operations, mapping
from .template import path_variables

BODILESS = frozenset({204, 205, 304})
PREFERENCE = re.compile(rb"\b(code|example)=\"?([A-Za-z0-9._-]{1,64})")
STATUS = re.compile(r"[1-5](?:[0-9]{2}|XX)", re.IGNORECASE)
LONGEST = 1024
"""Bytes of Accept and Prefer that are looked at."""


class Respond(
    Component, name="respond", stage=Stage.TRANSFORM, rank=-10, serves=frozenset({"http", "websocket"})
):
    """Answers itself: always the same, or as a mock with the examples of an OpenAPI document."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    """The status of the fixed answer."""
    body: Annotated[str, Field(max_length=1024 * 1024)] = ""
    """Its body, as it is."""
    content_type: Annotated[str, Field(pattern=r"^[\x21-\x7e][\x20-\x7e]*$")] = "application/json"
    """What the body is."""
    headers: Values = ()
    """More fields of it, which may hold the variables that `headers` knows."""
    openapi: str = ""
    """A file with an OpenAPI document (3.0, 3.1), JSON or YAML: its operations are answered with examples."""
    base_path: UrlPath = ""
    """What stands in front of all paths of the document."""

    @model_validator(mode="after")
    def is_possible(self) -> "Respond":
        if self.openapi and (self.body or self.status != 200 or self.headers):
            raise mistake("the document says what is answered", "leave out status, body and headers")
        if self.body and self.status in BODILESS:
            raise mistake(f"an answer with status {self.status} has no body")
        for name, _ in self.headers:
            if is_framing(name) or name == "content-type":
                raise mistake(f"{name} does not stand here", "the gateway says how it is framed")
        return self

    def variables(self) -> Iterable[str]:
        for _, template in self.headers:
            yield from path_variables(template)

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        if self.openapi:
            return mock(app, self.mocks(build))
        status, body, content_type = self.status, self.body.encode(), self.content_type.encode()
        fields = made(self.headers)

        def respond(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            return answer(scope, send, status, body, filled(fields, scope[EXCHANGE]), content_type)

        return respond

    def mocks(self, build: Build) -> Operations:
        """What is answered to each operation of the document."""
        api = Api.open(self.openapi, build)
        found = {operation: Mock(api, operation) for operation in api.operations()}
        return Operations(found, self.base_path, self.openapi)


def mock(app: ASGIApp, operations: Operations) -> ASGIApp:
    """Answers the operations of a document, and lets everything else pass."""

    def respond(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Exchange = scope[EXCHANGE]
        method = scope.get("method", "")
        found = operations.find("GET" if method == "HEAD" else method, exchange.path, scope)
        if found is None:
            return app(scope, receive, send)
        example: Example = found[0].choose(scope)
        return answer(scope, send, example.status, example.body, example.headers, example.content_type)

    return respond


@dataclass(frozen=True, slots=True)
class Example:
    """One answer that a document knows."""

    status: int
    name: str
    content_type: bytes
    body: bytes
    headers: Headers


class Mock:
    """The answers of one operation, those for success first."""

    def __init__(self, api: Api, operation: Operation) -> None:
        responses = mapping(operation.node.get("responses"))
        self._examples = [
            example
            for code in sorted(map(str, responses), key=success_first)
            if is_final(api, operation, code)
            for example in read_response(api, code, mapping(api.resolve(responses[code])))
        ]
        if not self._examples:
            raise ConfigError(Problem(f"{api.file}: {operation} has no responses"))

    def choose(self, scope: Scope) -> Example:
        """The one that the caller prefers: `Prefer: code=404, example=empty` (RFC 7240), and Accept."""
        found = self._examples
        wishes = {key: wish.decode() for key, wish in PREFERENCE.findall(values(scope, b"prefer")[:LONGEST])}
        if code := wishes.get(b"code"):
            found = [each for each in found if str(each.status) == code] or found
        else:
            found = [each for each in found if each.status == found[0].status]
        if name := wishes.get(b"example"):
            found = [each for each in found if each.name == name] or found
        accept = header(scope["headers"], b"accept")
        if accept is not None and len(found) > 1:
            ranges = [part.partition(b";")[0].strip().lower() for part in accept[:LONGEST].split(b",")]
            return next(
                (each for wanted in ranges for each in found if fits(each.content_type, wanted)), found[0]
            )
        return found[0]


def fits(content_type: bytes, wanted: bytes) -> bool:
    """Whether a media type is in a media range of Accept."""
    kind = content_type.partition(b";")[0].strip().lower()
    return wanted in (b"*/*", kind) or (wanted[-2:] == b"/*" and kind.startswith(wanted[:-1]))


def is_final(api: Api, operation: Operation, code: str) -> bool:
    """Whether this is a whole answer: neither an extension (`x-...`) nor an interim one. ConfigError for what
    is no status.
    """
    if code.startswith("x-") or code == "default":
        return code == "default"
    if not STATUS.fullmatch(code):
        raise ConfigError(
            Problem(f"{api.file}: {operation}: {code!r} is not a status", hint="as in 200, 4XX")
        )
    return code[0] != "1"


def success_first(code: str) -> tuple[int, str]:
    return (0 if code[:1] == "2" else 1 if code == "default" else 2, code)


def read_response(api: Api, code: str, response: Mapping[str, Any]) -> Iterator[Example]:
    """The examples of one response: one for each media type and name."""
    status = int(code.upper().replace("X", "0")) if code != "default" else 200
    headers = tuple(read_headers(api, mapping(response.get("headers"))))
    content = mapping(response.get("content"))
    if not content or status in BODILESS:
        yield Example(status, "", b"", b"", headers)
        return
    for media_type, media in content.items():
        for name, found in examples_of(api, mapping(api.resolve(media))):
            is_text = isinstance(found, str) and "json" not in media_type
            body = found if is_text else json.dumps(found, ensure_ascii=False, default=str)
            yield Example(status, name, value(media_type), body.encode(errors="replace"), headers)


def read_headers(api: Api, declared: Mapping[str, Any]) -> Iterator[Header]:
    """The fields of a response that have an example."""
    for name, node in declared.items():
        field = mapping(api.resolve(node))
        lower = name.lower()
        if not re.fullmatch(TOKEN, name):
            raise ConfigError(Problem(f"{api.file}: {name!r} is not the name of a field"))
        if is_framing(lower) or lower == "content-type":
            continue
        found = field.get("example", sample(api, field.get("schema")))
        if isinstance(found, str | int | float):
            text = str(found).lower() if isinstance(found, bool) else str(found)
            yield lower.encode(), value(text)
