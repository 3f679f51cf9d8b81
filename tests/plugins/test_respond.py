import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway_plugins.examples import sample
from asgi_gateway_plugins.openapi import Api
from tests.plugins.kit import Upstreams, client, document, handshake, serving

PETS = str(Path(__file__).with_name("pets.yaml"))
TWO = [{"id": 1, "name": "Rex"}, {"id": 2, "name": "Tom"}]
MOCK = {"respond": {"openapi": PETS, "base_path": "/v1/"}}


async def test_the_same_answer_for_everybody(upstreams: Upstreams) -> None:
    options = {
        "status": 410,
        "body": '{"gone": "{id}"}',
        "content_type": "application/vnd.gone+json",
        "headers": {"x-order": "{id}", "x-nobody": "{consumer}"},
    }
    async with serving(upstreams, document({"respond": options}, path="/orders/{id}")) as http:
        answer = await http.post("/orders/17")
    assert (answer.status_code, answer.text) == (410, '{"gone": "{id}"}')
    assert answer.headers["content-type"] == "application/vnd.gone+json"
    assert answer.headers["x-order"] == "17"
    assert "x-nobody" not in answer.headers
    assert upstreams.seen == []


@pytest.mark.parametrize("status", [204, 304, 200])
async def test_an_answer_without_a_body(upstreams: Upstreams, status: int) -> None:
    async with serving(upstreams, document({"respond": {"status": status}})) as http:
        answer = await http.get("/")
    assert (answer.status_code, answer.content) == (status, b"")
    assert "content-type" not in answer.headers
    assert answer.headers.get("content-length") == ("0" if status == 200 else None)


async def test_a_handshake_is_denied_with_the_answer(upstreams: Upstreams) -> None:
    declared = document({"respond": {"status": 426, "body": "{}"}}, route={"websocket": True})
    start, body = await handshake(Gateway.parse(declared, plugins=[upstreams]))
    assert (start["status"], body["body"]) == (426, b"{}")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "content_type", "body"),
    [
        (
            "GET",
            "/v1/pets",
            {},
            200,
            "application/json",
            [{"id": 1, "name": "Rex"}, {"id": 2, "name": "Tom"}],
        ),
        ("GET", "/v1/pets", {"prefer": "example=empty"}, 200, "application/json", []),
        ("GET", "/v1/pets", {"prefer": "example=unknown, code=999"}, 200, "application/json", ...),
        ("GET", "/v1/pets", {"accept": "text/*;q=0.5, image/png"}, 200, "text/csv", "id,name\n1,Rex\n"),
        ("GET", "/v1/pets", {"accept": "image/png, */*"}, 200, "application/json", ...),
        ("GET", "/v1/pets", {"accept": "image/png"}, 200, "application/json", ...),
        ("POST", "/v1/pets", {}, 201, "application/json", ...),
        ("GET", "/v1/pets/17", {}, 200, "application/json", ...),
        (
            "GET",
            "/v1/pets/17",
            {"prefer": 'respond-async, code="404"'},
            404,
            "application/problem+json",
            {"title": "Not Found"},
        ),
        ("DELETE", "/v1/pets/17", {}, 204, None, ""),
    ],
)
async def test_a_document_says_what_is_answered(
    upstreams: Upstreams,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
    content_type: str | None,
    body: Any,
) -> None:
    async with serving(upstreams, document(MOCK)) as http:
        answer = await http.request(method, path, headers={"accept": "*/*"} | headers)
    assert (answer.status_code, answer.headers.get("content-type")) == (status, content_type)
    if body is not ...:
        assert (answer.text if isinstance(body, str) else answer.json()) == body
    assert upstreams.seen == []


async def test_fields_of_a_response_with_an_example_are_there(upstreams: Upstreams) -> None:
    async with serving(upstreams, document(MOCK)) as http:
        assert (await http.get("/v1/pets")).headers["x-total"] == "2"
        head = await http.head("/v1/pets")
    assert (head.status_code, head.headers["x-total"]) == (200, "2")


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/cats"), ("PUT", "/v1/pets"), ("GET", "/pets")])
async def test_what_the_document_does_not_know_goes_on(upstreams: Upstreams, method: str, path: str) -> None:
    async with serving(upstreams, document(MOCK)) as http:
        assert (await http.request(method, path)).status_code == 200
    assert upstreams.labels == ["main"]


async def test_a_handshake_is_none_of_the_operations(upstreams: Upstreams) -> None:
    declared = document(MOCK, route={"websocket": True})
    start, *_ = await handshake(Gateway.parse(declared, plugins=[upstreams]), "/v1/pets")
    assert start["type"] == "websocket.accept"


def api(**schemas: Any) -> Api:
    return Api({"openapi": "3.1.0", "components": {"schemas": schemas}}, "api.yaml")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "minLength": 9}, "string..."),
        ({"type": "string", "minLength": 10**9}, "string".ljust(1000, ".")),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "integer", "minimum": 7}, 7),
        ({"type": "integer", "exclusiveMinimum": 7}, 8),
        ({"type": ["null", "number"]}, 0),
        ({"type": "number", "minimum": 1, "exclusiveMinimum": True}, 1),
        ({"type": "boolean"}, True),
        ({"enum": [3, 4]}, 3),
        ({"const": "x"}, "x"),
        ({"default": 5}, 5),
        ({"type": "string", "examples": ["a", "b"]}, "a"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, ["string", "string"]),
        ({"properties": {"a": {"const": 1}}}, {"a": 1}),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, 1),
        (
            {
                "allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}],
                "properties": {"c": {"const": 3}},
            },
            {"a": 1, "b": 2, "c": 3},
        ),
        ({"allOf": [{"type": "string"}]}, "string"),
        ({}, None),
        (True, None),
    ],
)
def test_a_value_is_made_up_for_a_schema(schema: Any, value: Any) -> None:
    assert sample(api(), schema) == value


def test_a_schema_that_holds_itself_comes_to_an_end() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}
    found = sample(api(Node=node), {"$ref": "#/components/schemas/Node"})
    assert json.dumps(found).count("next") == 9


def test_schemas_that_know_each_other_make_no_large_example() -> None:
    many, began = 20, time.process_time()
    nodes = {
        f"N{number}": {
            "type": "object",
            "properties": {
                f"p{each}": {"$ref": f"#/components/schemas/N{(number + each) % many}"} for each in range(8)
            },
        }
        for number in range(many)
    }
    found = sample(api(**nodes), {"$ref": "#/components/schemas/N0"})
    assert set(found) == {f"p{each}" for each in range(8)}
    assert len(json.dumps(found)) < 50_000
    rows: Any = {"type": "integer"}
    for _ in range(3):
        rows = {"type": "array", "minItems": 1000, "items": rows}
    assert len(json.dumps(sample(api(), rows))) < 20_000
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"status": 204, "body": "x"}, "status 204 has no body"),
        ({"status": 100}, "must be at least 200"),
        ({"headers": {"content-length": "1"}}, "content-length does not stand here"),
        ({"headers": {"content_length": "1"}}, "content_length does not stand here"),
        ({"openapi": PETS, "body": "x"}, "leave out status, body and headers"),
        ({"openapi": "nowhere.yaml"}, "nowhere.yaml cannot be read"),
        ({"content_type": "a\nb"}, "content_type"),
    ],
)
def test_what_cannot_be_answered_is_told_at_once(upstreams: Upstreams, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Gateway.parse(document({"respond": options}), plugins=[upstreams])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "is not an OpenAPI document"),
        ("swagger: '2.0'", "is not an OpenAPI document"),
        ("a: {b", "not YAML"),
        ("openapi: 3.0.3\npaths: {/a: {get: {}}}", "GET /a has no responses"),
        ("openapi: 3.0.3\npaths: {'/a.{b}': {get: {responses: {'200': {}}}}}", "is not a variable"),
        ("openapi: 3.0.3\npaths: {/a: {get: {responses: {ok: {}}}}}", "GET /a: 'ok' is not a status"),
        ("openapi: 3.0.3\npaths: {/a: {get: {responses: {'600': {}}}}}", "GET /a: '600' is not a status"),
        ("openapi: 3.0.3\npaths: {/a: {get: {responses: {1XX: {}}}}}", "GET /a has no responses"),
        (
            "openapi: 3.0.3\npaths: {/a: {get: {responses: {'200': {headers: {a b: {example: c}}}}}}}",
            "'a b' is not the name of a field",
        ),
        (
            "openapi: 3.0.3\npaths: {/a: {get: {responses: {'200': {$ref: 'b.yaml'}}}}}",
            "leads out of the document (bundle",
        ),
        (
            "openapi: 3.0.3\npaths: {/a: {get: {responses: {'200': {$ref: '#/components/x'}}}}}",
            "'#/components/x' leads nowhere",
        ),
        (
            "openapi: 3.0.3\na: {$ref: '#/a'}\npaths: {/a: {get: {responses: {'200': {$ref: '#/a'}}}}}",
            "references lead in a circle",
        ),
    ],
)
def test_what_is_wrong_with_a_document(upstreams: Upstreams, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "api.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)):
        Gateway.parse(document({"respond": {"openapi": str(file)}}), plugins=[upstreams])


async def test_extensions_and_interim_answers_are_no_answers(upstreams: Upstreams, tmp_path: Path) -> None:
    file = tmp_path / "api.yaml"
    file.write_text(
        "openapi: 3.0.3\npaths: {/a: {get: {responses: {x-note: {a: 1}, '100': {}, default: {}, 4XX: {}}}}}"
    )
    async with serving(upstreams, document({"respond": {"openapi": str(file)}})) as http:
        assert (await http.get("/a")).status_code == 200
        assert (await http.get("/a", headers={"prefer": "code=400"})).status_code == 400
        assert (await http.get("/a", headers={"prefer": "code=100"})).status_code == 200


async def test_a_reload_reads_a_document_that_has_changed(upstreams: Upstreams, tmp_path: Path) -> None:
    file = tmp_path / "api.yaml"

    def write(text: str) -> None:
        paths = {"/a": {"get": {"responses": {"200": {"content": {"text/plain": {"example": text}}}}}}}
        file.write_text(json.dumps({"openapi": "3.1.0", "paths": paths}))

    write("before")
    declared = document({"respond": {"openapi": str(file)}})
    gateway = Gateway.parse(declared, plugins=[upstreams])
    async with gateway.lifespan(), client(gateway) as http:
        assert (await http.get("/a")).text == "before"
        write("and after")
        await gateway.reload(gateway.config)
        assert (await http.get("/a")).text == "and after"
