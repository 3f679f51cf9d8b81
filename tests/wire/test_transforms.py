"""What changes on its way through the gateway, over real sockets."""

import asyncio
import gzip
from typing import Any

import pytest

from tests.wire.conftest import OK, Behind, Front, Line, answering
from tests.wire.strict import Strict
from tests.wire.test_guards import handshake, with_components


def host_of(head: bytes) -> list[bytes]:
    lines = head.split(b"\r\n")[1:]
    return [line.partition(b": ")[2] for line in lines if line.lower().startswith(b"host:")]


@pytest.mark.parametrize("host", ["preserve", "target", "named.test"])
@pytest.mark.parametrize("transport", ["http1", "httpx"])
async def test_a_host_that_is_rewritten_counts_more_than_the_upstreams(
    transport: str, host: str, upstream: Behind, front: Front
) -> None:
    up = await upstream()
    route = with_components({"rewrite": {"path": "/v2/{*}", "host": "new.test:81"}})
    serving = await front(up, route=route, host=host, transport=transport)
    caller = await serving.caller()
    assert (await caller.ask("/a?b")).status == 200
    caller.writer.write(b"GET /old HTTP/1.0\r\n\r\n")
    assert (await caller.answer()).status == 200
    assert [host_of(head) for head in up.heads] == [[b"new.test:81"]] * 2
    assert up.heads[0].startswith(b"GET /v2/a?b HTTP/1.1\r\n")
    assert b"x-forwarded-host: gw.test\r\n" in up.heads[0].lower()


@pytest.mark.parametrize("host", ["preserve", "target"])
async def test_a_handshake_has_the_new_host_and_path(host: str, upstream: Behind, front: Front) -> None:
    up = await upstream()
    route = with_components({"rewrite": {"path": "/v2", "host": "new.test"}}, websocket=True)
    caller = await (await front(up, route=route, host=host)).caller()
    handshake(caller)
    assert (await caller.head()).status == 200
    assert up.heads[0].startswith(b"GET /v2 HTTP/1.1\r\n")
    assert host_of(up.heads[0]) == [b"new.test"]


@pytest.mark.parametrize("transport", ["http1", "httpx"])
async def test_a_method_that_wants_a_body_says_that_there_is_none(
    transport: str, upstream: Behind, front: Front
) -> None:
    up = await upstream()
    route = with_components({"rewrite": {"method": "POST", "host": "new.test"}})
    caller = await (await front(up, route=route, transport=transport)).caller()
    for method in ("GET", "HEAD"):
        assert (await caller.ask(method=method)).status == 200
    assert [head.lower().count(b"\r\ncontent-length: 0\r\n") for head in up.heads] == [1, 1]
    assert all(head.startswith(b"POST ") and host_of(head) == [b"new.test"] for head in up.heads)


@pytest.mark.parametrize(
    ("component", "status", "says"),
    [
        ({"redirect": {"to": "/v2/{*}"}}, 307, b""),
        ({"respond": {"status": 201, "body": "{}"}}, 201, b"{}"),
    ],
)
async def test_an_answer_of_the_gateways_own_leaves_no_bytes_of_a_body_behind(
    component: dict[str, Any], status: int, says: bytes, upstream: Behind, front: Front
) -> None:
    up = await upstream()
    component = {name: {**options, "when": {"path": "/a/*"}} for name, options in component.items()}
    caller = await (await front(up, route=with_components(component))).caller()
    inner = b"GET /inner HTTP/1.1\r\nHost: gw.test\r\n\r\n"
    for _ in range(2):
        answer = await caller.ask("/a/x", method="POST", body=inner)
        assert (answer.status, answer.body) == (status, says)
        assert (await caller.ask("/a/x", method="HEAD")).status == status
    assert (await caller.ask("/b")).status == 200
    assert len(up.heads) == 1


# Compression

TEXT = b"All work and no play makes Jack a dull boy. " * 200
COMPRESS = with_components({"compress": {"encodings": ["zstd", "br", "gzip"]}})


def text(body: bytes = TEXT, *fields: bytes, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    lines = [b"HTTP/1.1 200 OK", b"Content-Type: text/plain", b"Content-Length: %d" % length, *fields]
    return b"\r\n".join([*lines, b"", body])


async def test_an_answer_is_compressed_and_framed_anew(upstream: Behind, front: Front) -> None:
    serving = await front(await upstream(answering(text(TEXT, b'ETag: "1"'))), route=COMPRESS)
    answer = await (await serving.caller()).ask("/", "Accept-Encoding: gzip")
    assert gzip.decompress(answer.body) == TEXT
    assert answer.all(b"transfer-encoding") == [b"chunked"]
    assert answer.all(b"content-length") == []
    assert (answer.all(b"content-encoding"), answer.all(b"etag")) == ([b"gzip"], [b'W/"1"'])


async def test_a_caller_of_http_1_0_reads_until_the_end(upstream: Behind, front: Front) -> None:
    serving = await front(await upstream(answering(text())), route=COMPRESS)
    caller = await serving.caller()
    caller.writer.write(b"GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
    answer = await caller.answer()
    assert gzip.decompress(answer.body) == TEXT


@pytest.mark.parametrize("body", [gzip.compress(TEXT), b"not gzip at all" * 200])
async def test_what_is_coded_already_arrives_byte_for_byte(
    body: bytes, upstream: Behind, front: Front
) -> None:
    coded = text(body, b"Content-Encoding: gzip")
    answer = await (await (await front(await upstream(answering(coded)), route=COMPRESS)).caller()).ask(
        "/", "Accept-Encoding: gzip, br, zstd"
    )
    assert (answer.body, answer.all(b"content-encoding")) == (body, [b"gzip"])
    assert answer.all(b"content-length") == [b"%d" % len(body)]


async def test_head_has_no_body_and_does_not_hang(upstream: Behind, front: Front) -> None:
    serving = await front(await upstream(answering(text(b"", length=5000))), route=COMPRESS)
    answer = await (await serving.caller()).ask("/", "Accept-Encoding: gzip", method="HEAD")
    assert (answer.status, answer.all(b"content-length")) == (200, [b"5000"])


async def test_an_answer_that_breaks_is_cut_and_not_ended(upstream: Behind, front: Front) -> None:
    serving = await front(await upstream(answering(text(TEXT, length=len(TEXT) + 1))), route=COMPRESS)
    caller = await serving.caller()
    caller.say("/", "Accept-Encoding: gzip")
    assert (await caller.head()).status == 200
    sent = b""
    try:
        while piece := await caller.reader.read(65536):
            sent += piece
    except ConnectionError:
        pass
    assert not sent.endswith(b"0\r\n\r\n")


# Decompression


@pytest.mark.parametrize("transport", ["http1", "httpx"])
async def test_a_body_goes_on_decompressed_and_framed_anew(
    transport: str, upstream: Behind, front: Front
) -> None:
    strict = Strict()
    route = with_components({"decompress": {}})
    caller = await (await front(await upstream(strict), route=route, transport=transport)).caller()
    inner = b"".join(b"GET /%d HTTP/1.1\r\nHost: gw.test\r\n\r\n" % (index * 7919) for index in range(3000))
    answer = await caller.ask("/", "Content-Encoding: gzip", method="POST", body=gzip.compress(inner))
    assert answer.status == 200
    assert (await caller.ask("/last")).status == 200
    assert strict.targets == [b"/", b"/last"]


@pytest.mark.parametrize("transport", ["http1", "httpx"])
@pytest.mark.parametrize(
    ("body", "status"),
    [(gzip.compress(TEXT)[:-1], 400), (gzip.compress(bytes(10 << 20)) * 1000, 413), (b"GET / HTTP/1.1", 400)],
    ids=["truncated", "ten gigabytes", "corrupt"],
)
async def test_a_body_that_cannot_be_decompressed_leaves_nothing_behind(
    transport: str, body: bytes, status: int, upstream: Behind, front: Front
) -> None:
    strict = Strict()
    route = with_components({"decompress": {}})
    caller = await (await front(await upstream(strict), route=route, transport=transport)).caller()
    answer = await caller.ask("/", "Content-Encoding: gzip", method="POST", body=body)
    assert answer.status == status
    # What is left of the body was read, or the connection is closed: it is never taken for a request.
    last = await caller.ask("/last") if not answer.all(b"connection") else None
    assert last is None or last.status == 200
    assert set(strict.targets) <= {b"/", b"/last"}


# Validation

PET = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}


@pytest.mark.parametrize("transport", ["http1", "httpx"])
async def test_the_body_that_was_validated_is_the_body_forwarded(
    transport: str, upstream: Behind, front: Front
) -> None:
    arrived: list[bytes] = []
    more = b"".join(b"%d " % (index * 7919) for index in range(20_000))
    body = b'{ "id":1, "more": "' + more + b'" }\n '

    async def script(line: Line) -> None:
        head = await line.head()
        if b"content-length" in head.lower():
            arrived.append(await line.reader.readexactly(len(body)))
        else:
            piece = b""
            while size := int(await line.reader.readline(), 16):
                piece += await line.reader.readexactly(size)
                await line.reader.readline()
            await line.reader.readline()
            arrived.append(piece)
        line.say(OK)

    route = with_components({"validate": {"body": PET}}, "decompress")
    serving = await front(await upstream(script), route=route, transport=transport)
    for fields, sent in (((), body), (("Content-Encoding: gzip",), gzip.compress(body, 1))):
        caller = await serving.caller()
        answer = await caller.ask("/", "Content-Type: application/json", *fields, method="POST", body=sent)
        assert answer.status == 200
    assert arrived == [body, body]


@pytest.mark.parametrize(
    "body", [b'{"id": "x"}', b"[" * 100_000, b'{"id": 1, "id": 2}', b'{"id": 1}GET / HTTP/1.1']
)
async def test_a_body_that_does_not_fit_reaches_nobody(body: bytes, upstream: Behind, front: Front) -> None:
    up = await upstream()
    caller = await (await front(up, route=with_components({"validate": {"body": PET}}))).caller()
    for _ in range(2):
        answer = await caller.ask("/", "Content-Type: application/json", method="POST", body=body)
        assert (answer.status, b'"errors"' in answer.body) == (400, True)
    assert up.connections == 0


# Envelope and errors


def json_answer(body: bytes, status: bytes = b"200 OK", length: bool = True) -> bytes:
    frame = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    if not length:
        frame = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%b" % (status, frame)


@pytest.mark.parametrize("length", [True, False])
async def test_an_envelope_is_framed_anew(length: bool, upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            line.say(json_answer(b'{"id":1}', length=length))

    caller = await (await front(await upstream(script), route=with_components("envelope"))).caller()
    for _ in range(2):
        answer = await caller.ask("/")
        assert answer.body == b'{"code":0,"message":"ok","data":{"id":1}}'


async def test_the_connection_behind_an_error_that_is_replaced_serves_the_next(
    upstream: Behind, front: Front
) -> None:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            line.say(json_answer(b'{"trace": "secret"}', b"503 Down"))

    up = await upstream(script)
    route = with_components({"errors": {"upstream": ["5xx"], "format": "envelope"}})
    caller = await (await front(up, route=route)).caller()
    for _ in range(3):
        answer = await caller.ask("/")
        assert (answer.status, b"secret" in answer.body, b'"code":503' in answer.body) == (503, False, True)
    assert up.connections == 1


async def test_an_error_that_is_replaced_and_never_ends_is_cut(upstream: Behind, front: Front) -> None:
    gone = asyncio.Event()

    async def script(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 500 Odd\r\nContent-Type: text/plain\r\nContent-Length: 1000000000\r\n\r\n")
        line.say(b"x" * 200_000)
        try:
            await line.gone()
        finally:
            gone.set()

    up = await upstream(script)
    route = with_components({"errors": {"upstream": ["5xx"]}})
    caller = await (await front(up, route=route)).caller()
    answer = await caller.ask("/")
    assert (answer.status, b"upstream_error" in answer.body) == (500, True)
    await gone.wait()


async def test_what_is_no_request_is_told_in_the_format_of_all_routes(upstream: Behind, front: Front) -> None:
    config = {"components": [{"errors": {"format": "envelope"}}]}
    caller = await (await front(await upstream(), config=config)).caller()
    answer = await caller.ask("/a//b")
    assert (answer.status, b'"code":400' in answer.body) == (400, True)
