import json
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asgi_gateway.config import Use
from asgi_gateway.errors import ConfigError
from asgi_gateway.exchange import Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Upstream, gateway_around
from asgi_gateway.testing.messages import Response
from asgi_gateway_contrib import validate
from asgi_gateway_contrib.validate import Checks, Validate
from asgi_gateway_contrib.validate.body import Malformed, parse
from asgi_gateway_contrib.validate.schemas import Checker, Schemas
from asgi_gateway_plugins.openapi import Api, Operation
from tests.plugins.kit import Upstreams, document, serving

PETS = str(Path(__file__).with_name("pets.yaml"))
BY_DOCUMENT = Validate(openapi=PETS, base_path="/v1")
PET: Any = {
    "type": "object",
    "required": ["id", "name"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": "string", "pattern": "^(a+)+$"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
JSON = [("content-type", "application/json")]


def body_of(schema: Any, **options: Any) -> Validate:
    return Validate.model_validate({"body": schema, **options})


async def post(body: Any, component: Any, up: Upstream | None = None, headers: Any = JSON) -> Response:
    async with gateway_around(component, upstream=up or Upstream()) as caller:
        return await caller.post("/", body, headers=headers)


async def pieces(*texts: bytes) -> AsyncIterator[bytes]:
    for text in texts:
        yield text


async def test_a_body_that_fits_goes_on_byte_for_byte() -> None:
    up, text = Upstream(), b'{ "id": 1,\n"name" : "aaa" }  '
    assert (await post(text, body_of(PET), up)).status == 200
    assert (await post(pieces(text[:5], text[5:]), body_of(PET), up)).status == 200
    assert [seen.body for seen in up.seen] == [text, text]
    assert up.seen[0].values("content-length") == [str(len(text))]


async def test_mistakes_are_told_with_their_places() -> None:
    up = Upstream()
    answer = await post(b'{"id": "x", "tags": ["a", 1], "more": "secret"}', body_of(PET), up)
    problem = answer.json()
    assert (answer.status, problem["reason"], problem["component"]) == (400, "invalid_request", "validate")
    assert sorted(problem["errors"], key=str) == sorted(
        [
            {"in": "body", "pointer": "#/id", "detail": 'the value is not of type "integer"'},
            {"in": "body", "pointer": "#/name", "detail": "is missing"},
            {"in": "body", "pointer": "#/tags/1", "detail": 'the value is not of type "string"'},
            {
                "in": "body",
                "pointer": "#",
                "detail": "Additional properties are not allowed ('more' was unexpected)",
            },
        ],
        key=str,
    )
    assert problem["detail"].startswith("body #")
    assert b"secret" not in answer.body
    assert up.seen == []


async def test_only_the_first_mistakes_are_told() -> None:
    component = body_of({"type": "array", "items": {"type": "integer"}}, max_errors=3, status=422)
    answer = await post(json.dumps(["x"] * 500).encode(), component)
    assert (answer.status, len(answer.json()["errors"])) == (422, 3)
    # Of a body with a million mistakes the first one is found at once, all of them after seconds.
    answer = await post(json.dumps(["x"] * 10_000).encode(), component)
    assert answer.status == 422
    assert answer.json()["errors"] == [
        {"in": "body", "pointer": "#/0", "detail": 'the value is not of type "integer"'}
    ]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"id": 1, "id": 2}', "the same name twice"),
        (b'{"a": {"b": 1, "b": 1}}', "the same name twice"),
        (b"{} {}", "is not JSON: Extra data at line 1, column 4"),
        (b"{", "is not JSON"),
        (b"NaN", "NaN is no number"),
        (b"-Infinity", "-Infinity is no number"),
        (b"1e999", "a number that is too large"),
        (b"9" * 5000, "a number that is too long"),
        (b'"\xff"', "is not UTF-8"),
        ('"\u00e9"'.encode("utf-16"), "is not UTF-8"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b'"\x01"', "is not JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
    ],
)
def test_json_that_can_be_read_in_two_ways_is_none(body: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=re.escape(says)):
        parse(body)


@pytest.mark.parametrize("body", [b'"\\ud800"', b"[" * 900 + b"]" * 900, b'{"a": ' * 500 + b"1" + b"}" * 500])
async def test_what_the_validator_cannot_read_is_refused_or_passes_and_never_fails(body: bytes) -> None:
    assert (await post(body, body_of(True))).status in (200, 400)
    assert (await post(body, body_of({"type": "number"}))).status == 400


async def test_a_number_of_any_length_keeps_its_digits() -> None:
    up, text = Upstream(), b"123456789012345678901234567890"
    assert (await post(text, body_of({"type": "integer", "minimum": 10**29}), up)).status == 200
    assert up.seen[0].body == text


async def test_a_pattern_takes_linear_time() -> None:
    began = time.process_time()
    answer = await post(b'{"id": 1, "name": "%b!"}' % (b"a" * 50_000), body_of(PET))
    assert answer.status == 400
    assert time.process_time() - began < 1


@pytest.mark.parametrize("more", [False, {"type": "integer"}])
async def test_a_long_name_does_not_come_back(more: Any) -> None:
    component = body_of({"additionalProperties": more, "properties": {"tags": {"maxItems": 1}}})
    answer = await post(json.dumps({"n" * 100_000: "x"}).encode(), component)
    assert answer.status == 400
    assert len(answer.body) < 3000


TREE: Any = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "oneOf": [
                {
                    "properties": {"args": {"items": {"$ref": "#/$defs/node"}}, "op": {"const": op}},
                    "type": "object",
                }
                for op in ("and", "or", "not")
            ]
            + [{"type": "integer"}]
        }
    },
}
TWICE: Any = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "allOf": [{"$ref": "#/$defs/base"}, {"properties": {"args": {"items": {"$ref": "#/$defs/node"}}}}]
        },
        "base": {"properties": {"args": {"type": "array", "items": {"$ref": "#/$defs/node"}}}},
    },
}


@pytest.mark.parametrize(
    "schema", [TREE, TWICE, {**TREE, "$schema": "http://json-schema.org/draft-07/schema#"}]
)
@pytest.mark.parametrize("depth", [40, 100])
async def test_alternatives_inside_of_alternatives_take_linear_time(schema: Any, depth: int) -> None:
    began = time.process_time()
    good, bad = (b'{"op": "not", "args": [' * depth + leaf + b"]}" * depth for leaf in (b"1", b'{"args": 1}'))
    assert (
        await post(good if schema is not TWICE else bad.replace(b": 1", b": []"), body_of(schema))
    ).status == 200
    answer = await post(bad, body_of(schema))
    assert answer.status == 400
    assert len(answer.json()["errors"]) == 1
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"args": ["x"]}', "exactly one of the schemas listed in the 'oneOf' keyword"),
        (b'{"args": [], "op": "xor"}', "exactly one of the schemas listed in the 'oneOf' keyword"),
    ],
)
async def test_of_alternatives_it_is_told_that_none_fits(body: bytes, says: str) -> None:
    (error,) = (await post(body, body_of(TREE))).json()["errors"]
    assert error["pointer"] == "#"
    assert says in error["detail"]


WITHIN: Any = {"$defs": {"a": {"anyOf": [{"type": "null"}, {"type": "array"}]}}, "$ref": "#/$defs/a/anyOf/1"}
OLD: Any = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "null"}],
}


@pytest.mark.parametrize("schema", [WITHIN, OLD])
async def test_what_is_not_told_apart_is_told_in_general(schema: Any) -> None:
    assert (await post(b"[]", body_of(schema))).status == 200
    (error,) = (await post(b"{}", body_of(schema))).json()["errors"]
    assert error == {"in": "body", "pointer": "#", "detail": "does not fit its schema"}


@pytest.mark.parametrize("body", [b"", pieces(b"")])
async def test_a_body_that_is_asked_for_is_there(body: Any) -> None:
    answer = await post(body, body_of(PET))
    assert answer.json()["errors"] == [{"in": "body", "detail": "is missing"}]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ('application/json; v=1; charset="UTF-8"', 200),
        ("application/json; charset=big5", 415),
        ("application/json; charset=utf-8; Charset=utf-7", 415),
        ("application/vnd.pet+json", 200),
        ("text/plain", 415),
        ("application/x-json", 415),
        (None, 415),
    ],
)
async def test_the_body_is_json(content_type: str | None, status: int) -> None:
    headers = [("content-type", content_type)] if content_type else []
    answer = await post(b'{"id": 1, "name": "a"}', body_of(PET), headers=headers)
    assert answer.status == status
    if status == 415:
        assert answer.values("accept") == ["application/json, application/*+json"]


async def test_two_types_are_none() -> None:
    headers = [*JSON, ("content-type", "text/plain")]
    assert (await post(b'{"id": 1, "name": "a"}', body_of(PET), headers=headers)).status == 415


async def test_a_large_body_is_looked_at_beside_the_event_loop() -> None:
    component = body_of({"type": "array", "items": {"type": "integer"}})
    good, bad = json.dumps([1] * 50_000).encode(), json.dumps([1] * 50_000 + ["x"]).encode()
    assert (await post(good, component)).status == 200
    answer = await post(bad, component)
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/50000"]


async def test_a_coded_body_is_not_taken_for_json() -> None:
    answer = await post(b"{}", body_of(True), headers=[*JSON, ("content-encoding", "gzip")])
    assert (answer.status, answer.json()["reason"]) == (415, "coded_body")
    twice = [*JSON, ("content-encoding", "identity"), ("content-encoding", "br")]
    assert (await post(b"{}", body_of(True), headers=twice)).status == 415


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large_is_refused_before_all_of_it_is_read(announced: bool) -> None:
    read: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            read.append(1)
            yield b" " * 100

    headers = [*JSON, ("content-length", "10000")] if announced else JSON
    answer = await post(body(), body_of(True, max_body="1000B"), headers=headers)
    assert (answer.status, answer.json()["reason"]) == (413, "body_too_large")
    assert sum(read) <= 12


# Path, query and fields by schemas

QUERY = {
    "properties": {
        "page": {"type": "integer", "minimum": 1},
        "price": {"type": "number"},
        "all": {"type": "boolean"},
        "tag": {"type": "array", "items": {"type": "integer"}},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]},
    },
    "required": ["page"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("page=1", []),
        ("page=%31&price=-1.5e3&all=true&tag=1&tag=2&either=ab", []),
        ("page=1&either=123", []),
        ("page=1&&", []),
        ("", ["page"]),
        ("page=0", ["page"]),
        ("page=one", ["page"]),
        ("page=1.0", ["page"]),
        ("page=01", ["page"]),
        ("page=1&page=2", ["page"]),
        ("page=1&price=0x10&all=True", ["price", "all"]),
        ("page=1&tag=x", ["tag"]),
        ("page=1&either=abc", ["either"]),
        ("page=1&other=1", [None]),
        ("page=" + "9" * 60, ["page"]),
    ],
)
async def test_the_query_is_read_as_its_schema_says(query: str, wrong: list[str | None]) -> None:
    component = Validate.model_validate({"query": QUERY})
    async with gateway_around(component) as caller:
        answer = await caller.get(f"/?{query}")
    assert answer.status == (400 if wrong else 200)
    if wrong:
        assert {error.get("name") for error in answer.json()["errors"]} == set(wrong)
        assert {error["in"] for error in answer.json()["errors"]} == {"query"}


async def test_path_and_fields_are_checked(upstreams: Upstreams) -> None:
    options = {
        "path": {"properties": {"id": {"type": "integer"}}},
        "headers": {
            "required": ["X-Tenant"],
            "properties": {"X-Tenant": {"enum": ["a", "b"]}, "x-list": {"type": "array", "maxItems": 2}},
        },
    }
    async with serving(upstreams, document({"validate": options}, path="/orders/{id}")) as http:
        assert (await http.get("/orders/17", headers={"x-tenant": "a", "x-list": "1, 2"})).status_code == 200
        answer = await http.get("/orders/x", headers={"x-tenant": "c", "x-list": "1,2,3"})
    found = {(error["in"], error["name"]) for error in answer.json()["errors"]}
    assert found == {("path", "id"), ("header", "x-tenant"), ("header", "x-list")}


# By a document


async def ask(
    method: str, path: str, body: Any = b"", headers: Any = (), component: Any = BY_DOCUMENT
) -> Response:
    async with gateway_around(component) as caller:
        return await caller.request(method, path, body, headers=headers)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/pets", None, 200),
        ("HEAD", "/v1/pets", None, 200),
        ("GET", "/v1/pets?limit=100&tags=a&tags=b&ids=1,2,3&filter[age]=3&filter[name]=4&more=1", None, 200),
        ("GET", "/v1/pets/17", None, 200),
        ("DELETE", "/v1/pets/17", None, 200),
        ("POST", "/v1/pets", {"id": 1, "name": "Rex", "mother": {"id": 2, "name": "Ada"}}, 200),
        ("GET", "/v1/pets?limit=101", None, 400),
        ("GET", "/v1/pets?limit=", None, 400),
        ("GET", "/v1/pets?tags=a&tags=b&tags=c&tags=d", None, 400),
        ("GET", "/v1/pets?ids=1,x", None, 400),
        ("GET", "/v1/pets?filter[age]=old", None, 400),
        ("GET", "/v1/pets?filter[other]=1", None, 400),
        ("GET", "/v1/pets/0", None, 400),
        ("GET", "/v1/pets/x", None, 400),
        ("POST", "/v1/pets", {"id": 1, "name": "Rex", "mother": {"id": 2}}, 400),
        ("POST", "/v1/pets", {"id": 1, "name": "Rex", "born": "yesterday"}, 400),
        ("POST", "/v1/pets", None, 400),
        ("GET", "/v1/cats", None, 404),
        ("GET", "/pets", None, 404),
        ("PUT", "/v1/pets", None, 405),
    ],
)
async def test_an_operation_says_what_fits(method: str, path: str, body: Any, status: int) -> None:
    text = json.dumps(body).encode() if body is not None else b""
    answer = await ask(method, path, text, JSON if text else ())
    assert answer.status == status
    if status == 405:
        assert answer.values("allow") == ["GET, POST"]


async def test_the_parameters_of_a_path_item_count(upstreams: Upstreams) -> None:
    answer = await ask("POST", "/v1/pets", b'{"id": 0}', [*JSON, ("X-Tenant", "too long a name")])
    errors = {(error["in"], error.get("name", error.get("pointer"))) for error in answer.json()["errors"]}
    assert errors == {("header", "x-tenant"), ("body", "#/id"), ("body", "#/name")}


COLOR: Any = {
    "type": "object",
    "properties": {"R": {"type": "integer"}, "tag": {"type": "array", "items": {"type": "integer"}}},
    "required": ["R"],
    "additionalProperties": {"type": "boolean"},
}
MAYBE: Any = {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]}


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        # What FastAPI makes of `list[int] | None`.
        ({"schema": MAYBE}, ["", "a=1", "a=1&a=2"], ["a=x", "a=1&a=x"]),
        ({"schema": MAYBE, "explode": False}, ["a=1,2"], ["a=1,x"]),
        ({"schema": MAYBE, "style": "spaceDelimited", "explode": False}, ["a=1%202"], ["a=1,2"]),
        ({"schema": MAYBE, "style": "pipeDelimited", "explode": False}, ["a=1%7C2"], ["a=1%202"]),
        # Form and exploded is what an object is if nothing is said.
        (
            {"schema": COLOR},
            ["", "R=1", "R=1&tag=1&tag=2", "R=1&x=true", "R=1&b=5"],
            ["R=x", "tag=1", "R=1&tag=x", "R=1&x=1", "R=1&R=2"],
        ),
        ({"schema": COLOR, "required": True}, ["R=1"], ["", "b=5"]),
        ({"schema": {"allOf": [{"$ref": "#/components/schemas/Size"}]}}, ["", "w=1", "x=1"], ["w=x"]),
        ({"schema": {"type": "object"}, "required": True}, ["x=1"], [""]),
        (
            {"schema": COLOR, "explode": False},
            ["a=R,1", "a=R,1,x,true"],
            ["a=R,x", "a=R", "a=R,1,x", "a=x,true", "a=R,1,R,2", "a=R,1&a=R,2", "a="],
        ),
        ({"schema": COLOR, "style": "pipeDelimited", "explode": False}, ["a=R|1"], ["a=R,1"]),
        (
            {"schema": COLOR, "style": "deepObject"},
            ["", "a[R]=1", "a[R]=1&a[x]=true", "a[R]=1&a[tag]=1&a[tag]=2"],
            ["a[R]=x", "a[x]=true", "a[R]=1&a[x]=1"],
        ),
    ],
)
async def test_parameters_in_their_styles(
    tmp_path: Path, parameter: Any, good: list[str], bad: list[str]
) -> None:
    size = {"type": "object", "properties": {"w": {"type": "integer"}}}
    others = {"name": "b", "in": "query", "schema": {"type": "integer"}}
    component = of_parameters(tmp_path, {"name": "a", "in": "query", **parameter}, others, Size=size)
    async with gateway_around(component) as caller:
        assert [(await caller.get(f"/p?{query}")).status for query in good] == [200] * len(good)
        assert [(await caller.get(f"/p?{query}")).status for query in bad] == [400] * len(bad)


@pytest.mark.parametrize(("explode", "good", "bad"), [(False, "R,1", "R=1"), (True, "R=1, x=true", "R,1")])
async def test_objects_in_fields(tmp_path: Path, explode: bool, good: str, bad: str) -> None:
    parameter = {"name": "X-Color", "in": "header", "explode": explode, "schema": COLOR}
    async with gateway_around(of_parameters(tmp_path, parameter)) as caller:
        assert (await caller.get("/p", headers=[("x-color", good)])).status == 200
        assert (await caller.get("/p", headers=[("x-color", bad)])).status == 400


async def test_variables_may_have_names_that_routes_do_not_know(tmp_path: Path) -> None:
    numbers = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer"}}
        for name in ("pet-id", "x.y", "z")
    ]
    paths = {"/pets/{pet-id}/{x.y}/{z}": {"get": {"parameters": numbers}}}
    (tmp_path / "api.json").write_text(json.dumps({"openapi": "3.1.0", "paths": paths}))
    async with gateway_around(Validate(openapi=str(tmp_path / "api.json"))) as caller:
        assert (await caller.get("/pets/1/2/3")).status == 200
        answer = await caller.get("/pets/a/b/c")
        assert {error["name"] for error in answer.json()["errors"]} == {"pet-id", "x.y", "z"}


def of_parameters(folder: Path, *parameters: Any, **schemas: Any) -> Validate:
    (folder / "api.json").write_text(
        json.dumps(
            {
                "openapi": "3.1.0",
                "paths": {"/p": {"get": {"parameters": parameters}}},
                "components": {"schemas": schemas},
            }
        )
    )
    return Validate(openapi=str(folder / "api.json"))


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"page": {"type": "integer"}}, "properties": {"page": {"$ref": "#/$defs/page"}}},
        {"allOf": [{"properties": {"page": {"type": "integer"}}}, {"required": ["page"]}]},
        {"$defs": {"all": {"properties": {"page": {"type": "integer"}}}}, "$ref": "#/$defs/all"},
        {"additionalProperties": {"type": "integer"}},
    ],
)
async def test_numbers_are_read_wherever_the_schema_asks_for_them(schema: Any) -> None:
    async with gateway_around(Validate.model_validate({"query": schema})) as caller:
        assert (await caller.get("/?page=3")).status == 200
        assert (await caller.get("/?page=x")).status == 400


async def test_what_the_document_does_not_know_may_pass() -> None:
    component = Validate(openapi=PETS, base_path="/v1", unknown="pass")
    assert (await ask("GET", "/v1/cats", component=component)).status == 200
    assert (await ask("PUT", "/v1/pets", component=component)).status == 200
    assert (await ask("GET", "/v1/pets/x", component=component)).status == 400


@pytest.mark.parametrize(
    ("component", "path", "status"),
    [
        (BY_DOCUMENT, "/v1/pets?limit=3", 101),
        (BY_DOCUMENT, "/v1/pets?limit=many", 400),
        (BY_DOCUMENT, "/v1/cats", 404),
        (Validate.model_validate({"query": QUERY, "body": PET}), "/?page=1", 101),
        (Validate.model_validate({"query": QUERY, "body": PET}), "/?page=x", 400),
    ],
)
async def test_a_handshake_is_a_get_without_a_body(component: Validate, path: str, status: int) -> None:
    async with gateway_around(component) as caller, caller.websocket(path) as socket:
        assert socket.status == status


def api(version: str, **schemas: Any) -> Api:
    return Api({"openapi": version, "components": {"schemas": schemas}}, "api.yaml")


def test_schemas_of_openapi_3_0_are_read_in_their_sense() -> None:
    schema = {
        "type": "object",
        "required": ["id", "secret"],
        "properties": {
            "id": {"type": "integer", "readOnly": True},
            "secret": {"type": "string", "writeOnly": True},
            "name": {"type": "string", "nullable": True, "enum": ["a"]},
            "age": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            "next": {"nullable": True, "allOf": [{"$ref": "#/components/schemas/Node"}]},
        },
    }
    document = api("3.0.3", Node=schema, Other={"type": "string"})
    request = compiled(Schemas(document, "request"), {"$ref": "#/components/schemas/Node"})
    response = compiled(Schemas(document, "response"), {"$ref": "#/components/schemas/Node"})
    assert request.accepts({"secret": "x", "name": None, "age": 1, "next": None})
    assert request.accepts({"secret": "x", "name": "a", "next": {"secret": "y"}})
    assert not request.accepts({"id": 1})
    assert not request.accepts({"secret": "x", "age": 0})
    assert not request.accepts({"secret": "x", "name": "b"})
    assert response.accepts({"id": 1})
    assert not response.accepts({"secret": "x"})


def test_a_value_that_looks_like_a_schema_stays_a_value() -> None:
    checker = compiled(Schemas(api("3.0.3"), "request"), {"enum": [{"type": "string", "nullable": True}]})
    assert checker.accepts({"type": "string", "nullable": True})


def compiled(schemas: Schemas, schema: Any) -> Checker:
    checker = schemas.checker(schemas.convert(schema), "")
    schemas.compile()
    return checker


def test_what_schemas_refer_to_is_compiled_once() -> None:
    many = 150
    nodes: Any = {
        f"N{number}": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z]+$"},
                "one": {"oneOf": [{"$ref": f"#/components/schemas/N{number * 7 % many}"}, {"type": "null"}]},
                "next": {"$ref": f"#/components/schemas/N{(number + 1) % many}"},
            },
        }
        for number in range(many)
    }
    schemas, began = Schemas(api("3.1.0", **nodes), "request"), time.process_time()
    made = [{"$ref": f"#/components/schemas/{name}"} for name in nodes]
    checkers = [schemas.checker(schemas.convert(schema), "") for schema in made]
    schemas.compile()
    assert time.process_time() - began < 1
    assert len({id(checker.compiled) for checker in checkers}) == 1
    assert all(checker.accepts({"next": {"name": "a"}}) for checker in checkers)
    assert list(checkers[3].faults({"next": {"name": 1}}, 9)) == [
        (["next", "name"], 'the value is not of type "string"')
    ]


def test_a_schema_may_refer_to_itself_as_if_it_stood_alone() -> None:
    schemas = Schemas(api("3.1.0"), "request")
    alone = schemas.checker({"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"}, "")
    other = schemas.checker({"type": "integer"}, "")
    schemas.compile()
    assert (alone.accepts("x"), alone.accepts(1), other.accepts(1), other.accepts("x")) == (
        True,
        False,
        True,
        False,
    )


# Answers


@pytest.mark.parametrize(
    ("status", "content_type", "chunks", "reasons"),
    [
        (200, "application/json", (b'[{"id": 1,', b' "name": "Rex"}]'), []),
        (200, "application/json", (b'[{"id": 1,', b' "name": 2}]'), ["invalid_answer"]),
        (200, "application/json", (b"[",), ["invalid_answer"]),
        (200, "text/csv", (b"id,name",), []),
        (200, "text/html", (b"<p>",), ["unknown_answer"]),
        (418, "application/json", (b"{}",), ["unknown_answer"]),
        (200, "application/json", (b'["', b" " * 3000, b'"]'), []),
    ],
)
async def test_answers_pass_and_what_is_wrong_is_recorded(
    status: int, content_type: str, chunks: tuple[bytes, ...], reasons: list[str]
) -> None:
    up = Upstream(*chunks, status=status, headers=[(b"content-type", content_type.encode())])
    component = Validate.model_validate({"openapi": PETS, "answers": True, "max_answer": "2KiB"})
    async with gateway_around(component, upstream=up) as caller:
        answer = await caller.get("/pets")
    assert (answer.status, answer.body) == (status, b"".join(chunks))
    reported = Exchange.of(up.seen[0].scope).reported or ()
    assert [refusal.reason for refusal in reported] == reasons
    if reasons == ["invalid_answer"] and len(chunks) == 2:
        assert reported[0].detail == '#/0/name the value is not of type "string"'


async def test_a_refusal_is_no_answer_of_the_upstream() -> None:
    component = Validate(openapi=PETS, answers=True)
    assert (await ask("GET", "/pets?limit=0", component=component)).status == 400


# Report mode, mistakes in the file


async def test_reporting_records_all_and_lets_the_body_pass() -> None:
    up = Upstream()
    use = Use(component=body_of(PET, max_body="40B"), mode="report")
    async with gateway_around(use, upstream=up) as caller:
        for text in (b'{"id": "x"}', b'{"id": 1, "name": "a"}', b" " * 100):
            assert (await caller.post("/", pieces(text[:3], text[3:]), headers=JSON)).status == 200
            assert up.seen[-1].body == text
    reported = [Exchange.of(seen.scope).reported or () for seen in up.seen]
    assert [[refusal.reason for refusal in each] for each in reported] == [
        ["invalid_request"],
        [],
        ["body_too_large"],
    ]


def test_without_the_library_the_start_says_what_to_install(
    upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'asgi-gateway[validate]'")):
        Gateway.parse(document({"validate": {"body": PET}}), plugins=[upstreams])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "checks against one source"),
        ({"openapi": PETS, "body": PET}, "checks against one source"),
        ({"body": PET, "answers": True}, "`answers` are checked against a document"),
        ({"body": {"items": {"type": "strange"}}}, 'body: not a JSON Schema: #/items/type: "strange" is not'),
        ({"body": "no schema"}, "must be a mapping"),
        ({"body": {"$ref": "http://127.0.0.1:1/schema.json"}}, "nothing is fetched"),
        ({"body": {"$ref": "file:///etc/passwd"}}, "nothing is fetched"),
        ({"query": {"properties": {"a": {"pattern": "(?=a)b"}}}}, "patterns know no look-around"),
        ({"body": {"pattern": "(a{1000}){1000}"}}, "is not a"),
        ({"openapi": "nowhere.yaml"}, "nowhere.yaml cannot be read"),
        ({"body": PET, "status": 500}, "status"),
    ],
)
def test_what_cannot_be_checked_is_told_at_once(upstreams: Upstreams, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Gateway.parse(document({"validate": options}), plugins=[upstreams])


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        (
            {
                "parameters": [
                    {
                        "in": "query",
                        "name": "a",
                        "style": "pipeDelimited",
                        "explode": True,
                        "schema": {"type": "object"},
                    }
                ]
            },
            "GET /a: query parameter a: no object is read in the style pipeDelimited",
        ),
        (
            {"parameters": [{"in": "path", "name": "a", "style": "matrix", "schema": {}}]},
            "the style matrix is not known here (one of simple)",
        ),
        (
            {
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/X"}}}
                }
            },
            "'#/components/schemas/X' leads nowhere",
        ),
        (
            {"requestBody": {"content": {"application/json": {"schema": {"$ref": "other.yaml#/X"}}}}},
            "nothing is fetched",
        ),
        (
            {"requestBody": {"content": {"application/json": {"schema": {"type": "strange"}}}}},
            "api.json: GET /a: requestBody: not a JSON Schema: #/type",
        ),
    ],
)
def test_what_is_wrong_with_a_document(
    upstreams: Upstreams, tmp_path: Path, operation: Any, says: str
) -> None:
    file = tmp_path / "api.json"
    file.write_text(json.dumps({"openapi": "3.1.0", "paths": {"/a": {"get": operation}}}))
    with pytest.raises(ConfigError, match=re.escape(says)):
        Gateway.parse(document({"validate": {"openapi": str(file)}}), plugins=[upstreams])


async def test_a_reload_compiles_nothing_again(upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    make = validate.of_document

    def counted(api: Api, operation: Operation, *schemas: Schemas) -> Checks:
        compiled.append(str(operation))
        return make(api, operation, *schemas)

    monkeypatch.setattr(validate, "of_document", counted)
    gateway = Gateway.parse(document({"validate": {"openapi": PETS}}), plugins=[upstreams])
    async with gateway.lifespan():
        await gateway.reload(gateway.config)
    assert sorted(compiled) == ["DELETE /pets/{id}", "GET /pets", "GET /pets/{id}", "POST /pets"]
