import asyncio
import gzip
import json
import os
import re
import sys
import zlib
from typing import Any

import pytest

from asgi_gateway.asgi import Message, Receive, Scope, Send
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Request, Upstream, gateway_around
from asgi_gateway.testing.harness import declare
from asgi_gateway.testing.messages import Response
from asgi_gateway_plugins.codings import brotli, zstd
from asgi_gateway_plugins.compress import Compress, best
from tests.plugins.kit import Upstreams, client, document, serving

ALL = Compress(encodings=("zstd", "br", "gzip"))
TEXT = json.dumps([{"id": index, "name": f"name {index}"} for index in range(500)]).encode()
JSON = (b"content-type", b"application/json; charset=utf-8")


def decode(coding: str, data: bytes) -> bytes:
    if coding == "gzip":
        return gzip.decompress(data)
    found: bytes = brotli("").decompress(data) if coding == "br" else zstd("").decompress(data)
    return found


def upstream(*chunks: bytes, headers: Any = (), **more: Any) -> Upstream:
    chunks = chunks or (TEXT,)
    length = (b"content-length", b"%d" % sum(map(len, chunks)))
    return Upstream(*chunks, headers=[JSON, length, *headers], **more)


async def ask(
    up: Any, accept: str | None = "gzip", component: Compress = ALL, method: str = "GET"
) -> Response:
    headers = [("accept-encoding", accept)] if accept is not None else []
    async with gateway_around(component, upstream=up) as caller:
        return await caller.request(method, "/", headers=headers)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("chunks", [(TEXT,), (TEXT[:10], b"", TEXT[10:], b""), (TEXT * 20, TEXT * 20)])
async def test_a_body_is_coded_as_the_caller_takes_it(coding: str, chunks: tuple[bytes, ...]) -> None:
    answer = await ask(upstream(*chunks), coding)
    assert answer.values("content-encoding") == [coding]
    assert answer.values("vary") == ["accept-encoding"]
    assert answer.values("content-length") == []
    assert decode(coding, answer.body) == b"".join(chunks)
    assert len(answer.body) * 3 < sum(map(len, chunks))


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, br;q=0.8, *;q=0.1", "gzip"),
        ("*", "zstd"),
        ("*;q=0.5, zstd;q=0", "br"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.000", None),
        ("br;q=0.2, gzip ; Q=0.3", "gzip"),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0, *;q=0", None),
        ("identity;q=0", None),
        ("deflate, compress", None),
        ("gzip;q=2", None),
        ("gzip;level=9", None),
        ("gzip, gzip;q=0", "gzip"),
        ("", None),
        (",,;", None),
    ],
)
def test_what_a_caller_takes(accept: str, coding: str | None) -> None:
    assert best(accept.encode(), ("zstd", "br", "gzip")) == coding


async def test_several_fields_are_one_list() -> None:
    async with gateway_around(ALL, upstream=upstream()) as caller:
        headers = [("accept-encoding", "gzip;q=0.1"), ("accept-encoding", "br")]
        answers = [await caller.get("/", headers=headers) for _ in range(2)]
    assert [answer.values("content-encoding") for answer in answers] == [["br"]] * 2


@pytest.mark.parametrize("accept", [None, "", "identity", "gzip;q=0"])
async def test_who_takes_no_coding_is_told_that_others_do(accept: str | None) -> None:
    answer = await ask(upstream(headers=[(b"etag", b'"1"'), (b"accept-ranges", b"bytes")]), accept)
    assert (answer.body, answer.values("content-encoding")) == (TEXT, [])
    assert answer.values("vary") == ["accept-encoding"]
    assert answer.values("etag") == ['"1"']
    assert answer.values("content-length") == [str(len(TEXT))]
    assert answer.values("accept-ranges") == ["bytes"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"content-encoding", b"br")], 200),
        ([(b"content-encoding", b"identity")], 200),
        ([(b"content-range", b"bytes 0-9/20")], 206),
        ([(b"cache-control", b"max-age=60, No-Transform")], 200),
        ([(b"content-digest", b"sha-256=:AAAA:")], 200),
        ([(b"repr-digest", b"sha-256=:AAAA:")], 200),
        ([], 206),
    ],
)
async def test_what_must_not_be_changed_is_left_alone(headers: Any, status: int) -> None:
    answer = await ask(upstream(headers=headers, status=status))
    assert answer.body == TEXT
    assert set(headers) <= set(answer.headers)
    assert answer.values("content-length") == [str(len(TEXT))]
    assert answer.values("vary") == []


@pytest.mark.parametrize("kind", ["image/png", "text/event-stream", "text/event-stream; charset=utf-8", ""])
async def test_other_types_are_left_alone(kind: str) -> None:
    everything = Compress(types=("*/*",)) if kind.startswith("text/event-stream") else ALL
    headers = [(b"content-type", kind.encode())] if kind else []
    answer = await ask(Upstream(TEXT, headers=headers), component=everything)
    assert (answer.body, answer.values("vary"), answer.values("content-encoding")) == (TEXT, [], [])


@pytest.mark.parametrize(
    ("types", "kind", "is_coded"),
    [
        ("*/*+json", "application/problem+json", True),
        ("*/*+json", "application/json", False),
        ("application/*", "application/pdf", True),
        ("application/pdf", "Application/PDF;x=y", True),
        ("application/a.b", "application/aXb", False),
        ("*/*", "font/woff2", True),
    ],
)
async def test_types_are_patterns(types: str, kind: str, is_coded: bool) -> None:
    headers = [(b"content-type", kind.encode())]
    answer = await ask(Upstream(TEXT, headers=headers), component=Compress(types=(types,)))
    assert answer.values("content-encoding") == (["gzip"] if is_coded else [])


async def test_small_bodies_are_left_alone() -> None:
    small = await ask(upstream(b"x" * 1023))
    large = await ask(upstream(b"x" * 1024))
    assert (small.values("content-encoding"), small.values("vary")) == ([], [])
    assert large.values("content-encoding") == ["gzip"]


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_are_left_alone(status: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"etag", b'"1"'), JSON]})
        await send({"type": "http.response.body", "body": b""})

    answer = await ask(app)
    assert (answer.status, answer.body, answer.headers) == (status, b"", [(b"etag", b'"1"'), JSON])


async def test_head_is_left_alone() -> None:
    answer = await ask(upstream(b"", headers=[(b"etag", b'"1"')]), method="HEAD")
    assert answer.values("etag") == ['"1"']
    assert answer.values("content-encoding") == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["accept-encoding"]),
        (["origin"], ["origin", "accept-encoding"]),
        (["origin, Accept-Encoding"], ["origin, Accept-Encoding"]),
        (["*"], ["*"]),
        (["x-accept-encoding"], ["x-accept-encoding", "accept-encoding"]),
    ],
)
@pytest.mark.parametrize("accept", ["gzip", None])
async def test_vary_says_it_once(before: list[str], after: list[str], accept: str | None) -> None:
    answer = await ask(upstream(headers=[(b"vary", text.encode()) for text in before]), accept)
    assert answer.values("vary") == after


@pytest.mark.parametrize(("before", "after"), [('"1"', 'W/"1"'), ('W/"1"', 'W/"1"')])
async def test_a_strong_validator_becomes_a_weak_one(before: str, after: str) -> None:
    answer = await ask(upstream(headers=[(b"etag", before.encode()), (b"accept-ranges", b"bytes")]))
    assert answer.values("etag") == [after]
    assert answer.values("accept-ranges") == []


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_nothing_is_held_back(coding: str) -> None:
    up = upstream(b"first", TEXT, b"third", waits="chunk")
    decoder: Any = (
        zlib.decompressobj(31)
        if coding == "gzip"
        else brotli("").Decompressor()
        if coding == "br"
        else zstd("").ZstdDecompressor()
    )
    read = getattr(decoder, "process" if coding == "br" else "decompress")
    headers = [("accept-encoding", coding)]
    async with (
        gateway_around(ALL, upstream=up) as caller,
        caller.stream("GET", "/", headers=headers) as stream,
    ):
        for chunk in (b"first", TEXT, b"third"):
            found = b""
            while len(found) < len(chunk):
                found += read(await stream.chunk())
            assert found == chunk
            up.proceed()


async def test_two_of_them_code_once() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream()(scope, receive, send)

    async with gateway_around(ALL, Compress(), upstream=app) as caller:
        answer = await caller.get("/", headers=[("accept-encoding", "zstd, gzip;q=0.5")])
    assert answer.values("content-encoding") == ["gzip"]
    assert gzip.decompress(answer.body) == TEXT


async def test_on_an_upstream(upstreams: Upstreams) -> None:
    upstreams.body, upstreams.answers = TEXT, [JSON]
    declared = document()
    declared["upstreams"]["main"]["components"] = [{"compress": {}}]
    gateway = Gateway.parse(declared, plugins=[upstreams])
    async with gateway.lifespan(), client(gateway) as http:
        coded = await http.get("/", headers={"accept-encoding": "gzip"})
        plain = await http.get("/", headers={"accept-encoding": "identity"})
    assert (coded.headers["content-encoding"], coded.content) == ("gzip", TEXT)
    assert "content-encoding" not in plain.headers
    assert coded.headers.get_list("vary") == plain.headers.get_list("vary") == ["accept-encoding"]


async def test_refusals_are_small_and_stay_as_they_are(upstreams: Upstreams) -> None:
    declared = document("key_auth", {"compress": {}})
    async with serving(upstreams, declared) as http:
        answer = await http.get("/", headers={"accept-encoding": "gzip"})
    assert answer.status_code == 401
    assert answer.json()["status"] == 401


async def test_files_take_no_way_around() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert "http.response.pathsend" not in scope["extensions"]
        assert "asgi_gateway" in scope["extensions"]
        await upstream()(scope, receive, send)

    component = Compress()
    request = Request(headers=[("accept-encoding", "gzip")])
    scope = request.scope()
    scope["extensions"]["http.response.pathsend"] = {}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    gateway = Gateway(declare([component], {"main": app}, {}))
    async with gateway.lifespan():
        await gateway(scope, receive, send)
    assert gzip.decompress(b"".join(message.get("body", b"") for message in sent)) == TEXT


async def test_a_caller_who_leaves_while_a_piece_is_compressed_leaves_nothing_behind() -> None:
    big = os.urandom(1 << 20) * 4
    up = upstream(big, big, waits="chunk")
    before = {*asyncio.all_tasks()}
    async with (
        gateway_around(Compress(gzip_level=9), upstream=up) as caller,
        caller.stream("GET", "/", headers=[("accept-encoding", "gzip")]) as stream,
    ):
        await stream.head()
        assert await stream.leave()
    assert up.seen[0].left
    assert {*asyncio.all_tasks()} == before


@pytest.mark.parametrize(
    ("coding", "modules"), [("br", ["brotli"]), ("zstd", ["compression.zstd", "backports.zstd"])]
)
def test_without_the_library_the_start_says_what_to_install(
    upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch, coding: str, modules: list[str]
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'asgi-gateway[compress]'")) as raised:
        Gateway.parse(document({"compress": {"encodings": [coding]}}), plugins=[upstreams])
    assert "route main: compress: encodings" in str(raised.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encodings": []}, "names no coding"),
        ({"encodings": ["gzip", "gzip"]}, "names a coding twice"),
        ({"encodings": ["deflate"]}, "encodings"),
        ({"types": ["text"]}, "'text' is not a media type"),
        ({"types": []}, "types"),
        ({"gzip_level": 10}, "gzip_level"),
        ({"min_size": 5}, "is not a size"),
    ],
)
def test_what_cannot_be_is_told_at_once(upstreams: Upstreams, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Gateway.parse(document({"compress": options}), plugins=[upstreams])
