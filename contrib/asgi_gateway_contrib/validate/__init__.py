"""Checks requests against JSON Schema or an OpenAPI document, and answers, too. The extra is `validate`."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.config.model import UrlPath
from asgi_gateway.exchange import EXCHANGE, Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.stage import Stage
from asgi_gateway.units import Size
from asgi_gateway_plugins.openapi import Api, Operation, Operations, mapping

from .answers import Answers, Watching
from .body import Body, Limits, Media
from .parameters import Parameters, of_operation, of_schema
from .schemas import Checker, Fault, Schemas


def read_schema(value: object) -> object:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else None
        except ValueError:
            raise mistake("must be a mapping", "a JSON Schema, as in {type: object}") from None
    if value is None:
        return ""
    if not isinstance(value, Mapping | bool):
        raise mistake("must be a mapping", "a JSON Schema, as in {type: object}")
    try:
        return json.dumps(value if isinstance(value, bool) else dict(value), sort_keys=True)
    except TypeError as error:
        raise mistake(str(error), "a schema holds what JSON can say") from None


Schema = Annotated[
    str,
    BeforeValidator(read_schema),
    PlainSerializer(lambda text: json.loads(text) if text else None),
    WithJsonSchema({"type": ["object", "boolean", "null"]}),
]
"""A JSON Schema as canonical JSON: that is hashable. Empty: none."""


class Validate(
    Component,
    name="validate",
    stage=Stage.TRANSFORM,
    rank=-13,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Refuses requests that do not fit JSON Schemas, or the operation of an OpenAPI document."""

    openapi: str = ""
    """A file with an OpenAPI document (3.0, 3.1), JSON or YAML: its operations say what fits."""
    base_path: UrlPath = ""
    """What stands in front of all paths of the document."""
    unknown: Literal["refuse", "pass"] = "refuse"
    """What happens to requests for which the document has no operation: 404 or 405, or they pass."""
    path: Schema = ""
    """A JSON Schema of 2020-12, or the one that its `$schema` names, for the variables of the path."""
    query: Schema = ""
    """The same for the parameters of the query: an object; what is there several times is an array."""
    headers: Schema = ""
    """The same for the header fields, with names in lower case."""
    body: Schema = ""
    """The same for the body, which has to be JSON. A request without one is refused."""
    max_body: Size = 1024 * 1024
    """The largest body that is checked; it is held in memory. More is refused with 413."""
    max_errors: Annotated[int, Field(ge=1, le=100)] = 10
    """How many mistakes the caller is told at most."""
    status: Annotated[int, Field(ge=400, le=499)] = 400
    """The status of a request that does not fit."""
    answers: bool = False
    """Whether the answers of the upstream are checked against the document, too; they pass in any case."""
    max_answer: Size = 1024 * 1024
    """The largest answer that is checked; a copy is held in memory while it passes."""

    @model_validator(mode="after")
    def has_one_source(self) -> "Validate":
        schemas = self.path or self.query or self.headers or self.body
        if bool(self.openapi) == bool(schemas):
            raise mistake(
                "checks against one source", "say `openapi`, or schemas for path, query, headers and body"
            )
        if self.answers and not self.openapi:
            raise mistake("`answers` are checked against a document", "say `openapi`")
        return self

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        limits = Limits(self.max_errors, self.max_body, self.status)
        if self.openapi:
            return self.by_document(app, build, limits)
        refuse, checks = build.refuse(app), self.own()

        async def validate(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            refusal, receive = await checks.refusal(scope, receive, exchange.raw_params, limits)
            if refusal is not None:
                await refuse(scope, receive, send, refusal)
            else:
                await app(scope, receive, send)

        return validate

    def own(self) -> "Checks":
        """What the schemas of the options check."""
        given = {"path": self.path, "query": self.query, "header": self.headers}
        parameters = [of_schema(place, json.loads(text)) for place, text in given.items() if text]
        body = None
        if self.body:
            checker = Checker.of(json.loads(self.body), "body")
            body = Body(Media({"application/json": checker, "application/*+json": checker}), required=True)
        return Checks(parameters, body)

    def by_document(self, app: ASGIApp, build: Build, limits: Limits) -> ASGIApp:
        api = Api.open(self.openapi, build)
        operations = build.keep((api, self.base_path), lambda: self.compile(api), shared=True)
        refuse, passes = build.refuse(app), self.unknown == "pass"
        largest = self.max_answer if self.answers else 0

        async def validate(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope[EXCHANGE]
            found = find(operations, scope, exchange)
            if found is None:
                if passes:
                    await app(scope, receive, send)
                else:
                    await refuse(scope, receive, send, unknown(operations, scope, exchange))
                return
            checks, params = found
            refusal, receive = await checks.refusal(scope, receive, params, limits)
            if largest and scope.get("method", "HEAD") != "HEAD":
                send = Watching(exchange, send, checks.answers, largest, limits.errors).send
            if refusal is not None:
                await refuse(scope, receive, send, refusal)
            else:
                await app(scope, receive, send)

        return validate

    def compile(self, api: Api) -> Operations:
        """The checks of all operations of the document."""
        sent, got = Schemas(api, "request"), Schemas(api, "response")
        found = {operation: of_document(api, operation, sent, got) for operation in api.operations()}
        sent.compile()
        got.compile()
        return Operations(found, self.base_path, self.openapi)


class Checks:
    """What the requests and answers of one operation have to be."""

    def __init__(
        self, parameters: Sequence[Parameters], body: Body | None, answers: Answers | None = None
    ) -> None:
        self._parameters = parameters
        self._body = body
        self.answers = answers or Answers({})

    async def refusal(
        self, scope: Scope, receive: Receive, params: Mapping[str, str], limits: Limits
    ) -> tuple[Refusal | None, Receive]:
        """Why a request is refused, if it is; and what gives its body to whoever comes next."""
        most, faults = limits.errors, list[Fault]()
        for parameters in self._parameters:
            faults += parameters.faults(scope, params, most - len(faults))
            if len(faults) >= most:
                break
        if self._body is not None and scope["type"] == "http" and len(faults) < most:
            refusal, more, receive = await self._body.check(scope, receive, scope[EXCHANGE], limits)
            if refusal is not None:
                return refusal, receive
            faults += more[: most - len(faults)]
        if not faults:
            return None, receive
        return told(faults, limits.status), receive


def told(faults: Sequence[Fault], status: int) -> Refusal:
    """The mistakes as a problem (RFC 9457)."""
    first = faults[0]
    place = first.get("name") or first.get("pointer") or ""
    detail = f"{first['in']} {place}".strip() + f": {first['detail']}"
    return Refusal(status, "invalid_request", (), detail, members=(("errors", tuple(faults)),))


def find(operations: Operations, scope: Scope, exchange: Exchange) -> tuple[Any, dict[str, str]] | None:
    """The checks of a request, and the variables of its path. HEAD is GET, and a handshake is, too."""
    method = scope.get("method", "GET")
    found = operations.find(method, exchange.path, scope)
    return operations.find("GET", exchange.path, scope) if found is None and method == "HEAD" else found


def unknown(operations: Operations, scope: Scope, exchange: Exchange) -> Refusal:
    if methods := operations.knows(exchange.path, scope):
        allow = ", ".join(sorted(methods)).encode()
        return Refusal(405, "unknown_operation", ((b"allow", allow),), "There is no such operation here.")
    return Refusal(404, "unknown_operation", (), "There is no such operation here.")


def of_document(api: Api, operation: Operation, sent: Schemas, got: Schemas) -> Checks:
    """The checks of an operation of a document."""
    parameters = of_operation(api, operation, sent)
    described = mapping(api.resolve(operation.node.get("requestBody")))
    body = None
    if content := mapping(described.get("content")):
        media = media_of(api, content, sent, f"{api.file}: {operation}: requestBody")
        body = Body(media, required=bool(described.get("required")))
    answers = {}
    for code, response in mapping(operation.node.get("responses")).items():
        content = mapping(mapping(api.resolve(response)).get("content"))
        answers[code.upper()] = media_of(api, content, got, f"{api.file}: {operation}: {code}")
    return Checks(parameters, body, Answers(answers))


def media_of(api: Api, content: Mapping[str, Any], schemas: Schemas, where: str) -> Media:
    """What checks the media types of a body."""
    types: dict[str, Checker | None] = {}
    for name, media in content.items():
        schema = mapping(api.resolve(media)).get("schema")
        types[name] = schemas.checker(schemas.convert(schema), where) if schema is not None else None
    return Media(types)
