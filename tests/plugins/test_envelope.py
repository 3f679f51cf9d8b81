import gzip
import json
import re
from typing import Any

import pytest

from asgi_gateway.asgi import Receive, Scope, Send
from asgi_gateway.errors import Aborted, ConfigError
from asgi_gateway.exchange import Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Upstream, gateway_around
from asgi_gateway.testing.messages import Response
from asgi_gateway_plugins.compress import Compress
from asgi_gateway_plugins.envelope import Envelope
from asgi_gateway_plugins.errors import Errors
from asgi_gateway_plugins.key_auth import KeyAuth
from tests.plugins.kit import Upstreams, document

AIOMS = {"State": "code", "Data": "data", "Msg": "message", "Id": "request_id"}


def upstream(*chunks: bytes, kind: str = "application/json", headers: Any = (), **more: Any) -> Upstream:
    content_type = [(b"content-type", kind.encode())] if kind else []
    return Upstream(*chunks, headers=[*content_type, *headers], **more)


async def ask(up: Any, *components: Any, method: str = "GET", **options: Any) -> Response:
    component = Envelope.model_validate(options)
    async with gateway_around(component, *components, upstream=up) as caller:
        return await caller.request(method, "/", headers=[("accept-encoding", "gzip")])


@pytest.mark.parametrize("chunks", [(b'{"id":1}',), (b"", b'{"id"', b"", b":1}", b"")])
@pytest.mark.parametrize("length", [True, False])
async def test_json_is_put_into_an_envelope_byte_for_byte(chunks: tuple[bytes, ...], length: bool) -> None:
    size = sum(map(len, chunks))
    up = upstream(*chunks, headers=[(b"content-length", b"%d" % size)] if length else [])
    answer = await ask(up)
    assert answer.body == b'{"code":0,"message":"ok","data":{"id":1}}'
    assert answer.values("content-length") == ([str(len(answer.body))] if length else [])
    assert answer.values("content-type") == ["application/json"]
    assert up.seen[0].values("accept-encoding") == ["identity"]


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")]])
async def test_no_body_is_null(headers: Any) -> None:
    answer = await ask(upstream(b"", headers=headers))
    assert answer.json() == {"code": 0, "message": "ok", "data": None}
    assert answer.values("content-length") == ([str(len(answer.body))] if headers else [])


async def test_the_members_are_those_that_clients_know() -> None:
    up = upstream(b"[1.50]")
    answer = await ask(up, members=AIOMS, code="SUCCESS", message="gut \u00fc")
    identity = Exchange.of(up.seen[0].scope).id
    assert (
        answer.body.decode() == '{"State":"SUCCESS","Data":[1.50],"Msg":"gut \u00fc","Id":"' + identity + '"}'
    )


@pytest.mark.parametrize("always_ok", [True, False])
async def test_an_error_of_the_upstream_has_its_status_as_code(always_ok: bool) -> None:
    up = upstream(b'{"why":"x"}', kind="application/problem+json; charset=UTF-8", status=404)
    members = {"code": "code", "message": "message", "data": "data", "status": "status"}
    answer = await ask(up, always_ok=always_ok, members=members)
    status = 200 if always_ok else 404
    assert answer.status == status
    assert answer.json() == {"code": 404, "message": "Not Found", "data": {"why": "x"}, "status": status}
    assert answer.values("content-type") == ["application/json"]


@pytest.mark.parametrize(
    ("kind", "status", "headers"),
    [
        ("text/html", 200, []),
        ("", 200, []),
        ("text/event-stream", 200, []),
        ("application/x-ndjson", 200, []),
        ("application/json; charset=gbk", 200, []),
        ("application/json", 302, []),
        ("application/json", 206, [(b"content-range", b"bytes 0-1/9")]),
        ("application/json", 200, [(b"content-encoding", b"br")]),
    ],
)
async def test_everything_else_is_left_alone(kind: str, status: int, headers: Any) -> None:
    headers = [*headers, (b"content-length", b"5"), (b"etag", b'"1"')]
    answer = await ask(upstream(b"12345", kind=kind, status=status, headers=headers))
    assert answer.body == b"12345"
    assert set(headers) <= set(answer.headers)


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_stay_without(status: int) -> None:
    answer = await ask(upstream(b"", status=status))
    assert (answer.status, answer.body) == (status, b"")


async def test_head_says_what_get_would() -> None:
    headers = [(b"content-length", b"8"), (b"etag", b'"1"')]
    get = await ask(upstream(b'{"id":1}', headers=headers))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        head = [(b"content-type", b"application/json"), *headers]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b""})

    head = await ask(app, method="HEAD")
    assert (head.body, head.headers) == (b"", get.headers)
    assert get.values("etag") == ['W/"1"']


async def test_what_was_said_of_the_bytes_is_gone() -> None:
    gone = [(b"content-digest", b"sha-256=:A=:"), (b"accept-ranges", b"bytes")]
    answer = await ask(upstream(b"1", headers=[*gone, (b"etag", b'W/"1"'), (b"x-a", b"1")]))
    assert {name for name, _ in answer.headers} == {b"etag", b"x-a", b"content-type"}
    assert answer.values("etag") == ['W/"1"']


async def test_nothing_is_held_back() -> None:
    up = upstream(b'["first"', b',"second"]', waits="chunk")
    async with gateway_around(Envelope(), upstream=up) as caller, caller.stream("GET", "/") as stream:
        assert await stream.chunk() == b'{"code":0,"message":"ok","data":["first"'
        up.proceed()
        assert await stream.read() == b',"second"]}'


async def test_an_answer_that_breaks_is_cut() -> None:
    with pytest.raises(Aborted):
        await ask(upstream(b'["first"', fails="chunk"))


async def test_it_is_compressed_behind_it() -> None:
    answer = await ask(upstream(b"[" + b"1," * 2000 + b"1]"), Compress())
    assert answer.values("content-encoding") == ["gzip"]
    assert len(json.loads(gzip.decompress(answer.body))["data"]) == 2001


async def test_what_the_gateway_tells_is_the_business_of_errors() -> None:
    errors = Errors(format="envelope")
    async with gateway_around(Envelope(), errors, KeyAuth()) as caller:
        refused = await caller.get("/")
    assert refused.json() == {"code": 401, "message": "This request needs an API key.", "data": None}
    async with gateway_around(Envelope(), errors, upstream=upstream(b"{}", fails="head")) as caller:
        failed = await caller.get("/")
    assert failed.json() == {"code": 500, "message": "The upstream failed.", "data": None}
    async with gateway_around(Envelope(), upstream=upstream(b"{}", fails="head")) as caller:
        assert (await caller.get("/")).json()["reason"] == "raised"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"members": {"code": "code"}}, "holds no data"),
        ({"members": {"a": "data", "b": "data"}}, "names a member twice"),
        ({"members": {"": "data"}}, "an envelope has members with names"),
        ({"members": {"a": "body"}}, "members"),
        ({"code": True}, "code"),
    ],
)
def test_what_cannot_be_is_told_at_once(upstreams: Upstreams, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Gateway.parse(document({"envelope": options}), plugins=[upstreams])
