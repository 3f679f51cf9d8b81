import gzip
import re
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.config import Use
from asgi_gateway.errors import Aborted, ConfigError
from asgi_gateway.exchange import Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.replay import Replay
from asgi_gateway.stage import Stage
from asgi_gateway.testing import Upstream, gateway_around
from asgi_gateway.testing.messages import Response
from asgi_gateway_plugins.codings import brotli, compressor, decompressor, zstd
from asgi_gateway_plugins.decompress import Decompress
from tests.plugins.kit import Upstreams, document

ALL = Decompress(encodings=("gzip", "deflate", "br", "zstd"))
TEXT = b"".join(b'{"id": %d, "name": "name %d"}\n' % (index, index * 7919) for index in range(5000))


def bare(data: bytes) -> bytes:
    made = zlib.compressobj(6, zlib.DEFLATED, -15)
    return made.compress(data) + made.flush()


CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: bytes(brotli("").compress(data)),
    "zstd": lambda data: bytes(zstd("").compress(data)),
}


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
    yield b""


async def post(
    body: Any, coding: str, up: Any = None, component: Decompress | Use = ALL, headers: Any = ()
) -> Response:
    async with gateway_around(component, upstream=up or Upstream()) as caller:
        return await caller.post("/", body, headers=[("content-encoding", coding), *headers])


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("size", [1 << 20, 7919, 100])
async def test_the_upstream_gets_the_plain_body(coding: str, size: int) -> None:
    up = Upstream()
    answer = await post(pieces(CODERS[coding](TEXT), size), coding, up)
    assert answer.status == 200
    assert up.seen[0].body == TEXT
    names = {name for name, _ in up.seen[0].headers}
    assert not names & {b"content-encoding", b"content-length"}


async def test_a_length_and_digests_of_the_coded_body_are_gone() -> None:
    up = Upstream()
    # The coding is a part of the representation, too (RFC 9530 3).
    digests = [(name, "sha-256=:A=:") for name in ("content-digest", "repr-digest", "digest")]
    headers = [*digests, ("content-type", "application/json"), ("x-a", "1")]
    await post(gzip.compress(b"{}"), "gzip", up, headers=headers)
    names = {name for name, _ in up.seen[0].headers}
    assert (up.seen[0].body, names) == (b"{}", {b"host", b"content-type", b"x-a"})


@pytest.mark.parametrize("coding", ["GZip", "x-gzip", " gzip "])
async def test_spellings_of_gzip(coding: str) -> None:
    up = Upstream()
    await post(gzip.compress(b"plain"), coding, up)
    assert up.seen[0].body == b"plain"


async def test_deflate_without_its_envelope() -> None:
    up = Upstream()
    await post(pieces(bare(TEXT), 1), "deflate", up)
    assert up.seen[0].body == TEXT


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_several_members_are_one_body(coding: str) -> None:
    up = Upstream()
    code = CODERS[coding]
    await post(pieces(code(b"one") + code(b"") + code(b"two"), 5), coding, up)
    assert up.seen[0].body == b"onetwo"


@pytest.mark.parametrize("coding", ["identity", ""])
async def test_a_plain_body_passes_untouched(coding: str) -> None:
    up = Upstream()
    await post(b"plain", coding, up)
    assert (up.seen[0].body, up.seen[0].values("content-length")) == (b"plain", ["5"])


async def test_a_request_without_a_body_passes_untouched() -> None:
    up = Upstream()
    async with gateway_around(ALL, upstream=up) as caller:
        await caller.get("/", headers=[("content-encoding", "gzip")])
    assert up.seen[0].values("content-encoding") == ["gzip"]


async def test_an_empty_body_stays_empty() -> None:
    up = Upstream()
    assert (await post(pieces(b"", 1), "gzip", up)).status == 200
    assert up.seen[0].body == b""


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("size", [1 << 20, 1000])
async def test_a_truncated_body_is_refused(coding: str, size: int) -> None:
    up = Upstream()
    answer = await post(pieces(CODERS[coding](TEXT)[:-5], size), coding, up)
    assert answer.status == 400
    assert answer.json()["reason"] in ("truncated_body", "corrupt_body")
    assert TEXT.startswith(up.seen[0].body)


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("body", [b"not coded at all " * 50, b"\x00", b"\x1f\x8b\x08\xff" * 9, "behind"])
async def test_a_corrupt_body_is_refused(coding: str, body: Any) -> None:
    if body == "behind":
        body = CODERS[coding](b"plain") + b"something else behind it"
    answer = await post(body, coding)
    assert answer.status == 400
    assert answer.json()["component"] == "decompress"


async def test_a_check_sum_that_does_not_fit_is_refused() -> None:
    coded = bytearray(gzip.compress(TEXT))
    coded[-8] ^= 1
    answer = await post(bytes(coded), "gzip")
    assert (answer.status, answer.json()["reason"]) == (400, "corrupt_body")


@pytest.mark.parametrize(
    ("coding", "status"), [("compress", 415), ("gzip, br", 415), ("br", 415), ("*", 415)]
)
async def test_other_codings_are_refused_with_those_that_are_taken(coding: str, status: int) -> None:
    up = Upstream()
    answer = await post(b"x", coding, up, Decompress())
    assert (answer.status, answer.json()["reason"]) == (status, "unknown_coding")
    assert answer.values("accept-encoding") == ["gzip, deflate"]
    assert up.seen == []


def bomb(coding: str, size: int) -> bytes:
    """So many zeros, and nothing of that size in memory."""
    if coding == "deflate":
        return zlib.compress(bytes(size))
    made = compressor(coding, 9, "")()  # type: ignore[arg-type]
    whole = b"".join([made.piece(bytes(1 << 20)) for _ in range(size >> 20)])
    return whole + made.last(b"")


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("component", ["size", "ratio"])
async def test_a_bomb_is_cut_at_the_limit(coding: str, component: str) -> None:
    limits: Any = {"max_ratio": 10**9} if component == "size" else {"max_size": "100GiB"}
    options = {"encodings": [coding], "max_size": "1MiB", **limits}
    up = Upstream()
    body = bomb(coding, 16 << 20)
    began = time.process_time()
    answer = await post(pieces(body, 65536), coding, up, Decompress.model_validate(options))
    assert time.process_time() - began < 2
    assert (answer.status, answer.json()["reason"]) == (413, "body_too_large")
    if component == "size":
        assert len(up.seen[0].body) <= 1 << 20
    else:
        assert len(up.seen[0].body) <= max(100 * len(body), 65536) + 65536


@pytest.mark.parametrize("coding", CODERS)
def test_no_decoder_gives_much_more_than_it_was_asked_for(coding: str) -> None:
    made = decompressor(coding, "")()
    data, most, whole = bomb(coding, 8 << 20), 0, 0
    while data or made.waiting:
        piece = made.piece(data, 65536)
        data, most, whole = b"", max(most, len(piece)), whole + len(piece)
    assert (whole, made.finished) == (8 << 20, True)
    assert most <= 4 * 65536


async def test_a_window_larger_than_the_standard_asks_for_is_not_made() -> None:
    library = zstd("")
    made = library.ZstdCompressor(options={library.CompressionParameter.window_log: 27})
    body = made.compress(b"x" * 100, made.FLUSH_BLOCK) + made.flush()
    answer = await post(body, "zstd")
    assert (answer.status, answer.json()["reason"]) == (400, "corrupt_body")


async def test_so_many_members_and_no_more() -> None:
    answer = await post(gzip.compress(b"") * 1100, "gzip")
    assert (answer.status, answer.json()["reason"]) == (400, "corrupt_body")


async def test_nothing_is_held_back() -> None:
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["more_body"]:
            seen.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def body() -> AsyncIterator[bytes]:
        made = compressor("gzip", 5, "")()
        for count in range(4):
            assert len(seen) == count
            yield made.piece(b"piece %d" % count)
        yield made.last(b"")

    assert (await post(body(), "gzip", app)).status == 200
    assert seen == [b"piece 0", b"piece 1", b"piece 2", b"piece 3"]


async def test_an_answer_that_had_begun_is_cut() -> None:
    exchanges: list[Exchange] = []

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        exchanges.append(Exchange.of(scope))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (message := await receive())["more_body"]:
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with pytest.raises(Aborted):
        await post(pieces(gzip.compress(TEXT)[:-1], 1000), "gzip", echo)
    assert (exchanges[0].outcome, exchanges[0].cause) == ("aborted", "truncated_body")


async def test_an_application_that_hides_it_is_not_heard() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while (await receive())["more_body"]:
                pass
        except Exception:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    assert (await post(b"junk", "gzip", app)).status == 400


class Reads(Component, name="reads", stage=Stage.TRANSFORM, rank=-17):
    """Needs the whole body, as a signature does."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        async def reads(scope: Scope, receive: Receive, send: Send) -> None:
            exchange = Exchange.of(scope)
            replay = Replay.of(exchange, receive)
            assert await replay.read(1 << 20)
            exchange.tag("read", b"".join(replay.chunks))
            await app(scope, replay.reader(), send)

        return reads


class ReadsToo(Reads, name="reads_too", rank=0):
    """The same, behind it."""


@pytest.mark.parametrize("before", [True, False])
async def test_who_needs_the_body_gets_the_one_of_its_place(before: bool) -> None:
    up, body = Upstream(), gzip.compress(TEXT)
    others = (Reads(),) if before else ()
    async with gateway_around(ALL, *others, ReadsToo(), upstream=up) as caller:
        assert (await caller.post("/", body, headers=[("content-encoding", "gzip")])).status == 200
    assert up.seen[0].body == TEXT
    assert (Exchange.of(up.seen[0].scope).tags or {})["read"] == TEXT


REPORTING = Use(component=ALL, mode="report")


@pytest.mark.parametrize(
    ("body", "coding", "reasons"),
    [
        (gzip.compress(TEXT), "gzip", []),
        (gzip.compress(TEXT)[:-1], "gzip", ["truncated_body"]),
        (b"junk", "gzip", ["corrupt_body"]),
        (gzip.compress(bytes(20 << 20)), "gzip", ["body_too_large"]),
        (b"x", "compress", ["unknown_coding"]),
    ],
    ids=["good", "truncated", "corrupt", "bomb", "unknown"],
)
async def test_reporting_passes_the_body_as_it_came(body: bytes, coding: str, reasons: list[str]) -> None:
    up = Upstream()
    assert (await post(pieces(body, 1000), coding, up, REPORTING)).status == 200
    seen = up.seen[0]
    assert (seen.body, seen.values("content-encoding")) == (body, [coding])
    assert [refusal.reason for refusal in Exchange.of(seen.scope).reported or ()] == reasons


def test_without_the_library_the_start_says_what_to_install(
    upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "brotli", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'asgi-gateway[compress]'")):
        Gateway.parse(document({"decompress": {"encodings": ["br"]}}), plugins=[upstreams])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encodings": []}, "names no coding"),
        ({"encodings": ["br", "br"]}, "names a coding twice"),
        ({"encodings": ["compress"]}, "encodings"),
        ({"max_ratio": 0}, "max_ratio"),
        ({"max_size": 10}, "is not a size"),
    ],
)
def test_what_cannot_be_is_told_at_once(upstreams: Upstreams, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Gateway.parse(document({"decompress": options}), plugins=[upstreams])
