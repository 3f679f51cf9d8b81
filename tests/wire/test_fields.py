"""Header fields and bodies on their way: what is dropped, what cannot be forged, and what is kept."""

import asyncio
import gzip
import itertools
import random
import zlib
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_gateway.gateway import Gateway
from tests.wire.conftest import Answer, Behind, Front, Line, Serving, answering, raw, served
from tests.wire.strict import Strict

Fields = list[tuple[bytes, bytes]]

HOP_BY_HOP = [
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"Proxy-Authenticate: Basic",
    b"Proxy-Authorization: Basic YTpi",
    b"TE: trailers, gzip",
    b"Trailer: X-Sum",
    b"Upgrade: h2c",
]
NAMED = {
    "one": [b"Connection: X-Gone"],
    "list": [b"Connection: keep-alive,X-Gone , close-not"],
    "empty_field_first": [b"Connection:", b"Connection: x-gone"],
    "several_fields": [b"Connection: keep-alive", b"cOnNeCtIoN: X-GONE", b"Connection: x-other"],
    "empty_elements": [b"Connection: , ,\tX-gOnE,,"],
    "before_and_behind": [b"Connection: X-Gone", b"X-Middle: 1", b"Connection: x-nothing"],
}


def names(fields: Fields) -> set[bytes]:
    return {name for name, _ in fields}


@pytest.mark.parametrize("connection", NAMED.values(), ids=NAMED)
async def test_what_belongs_to_a_connection_goes_no_further_either_way(
    connection: list[bytes], upstream: Behind, front: Front
) -> None:
    strict = Strict()
    sent = [*connection, b"X-Gone: 1", b"x-GONE: 2", b"X-Kept: 3", *HOP_BY_HOP]
    caller = await (await front(await upstream(strict), forwarded="none")).caller()
    await caller.ask("/", *(field.decode() for field in sent))
    # The caller takes trailers, and the gateway passes them on: it says so for itself.
    own = {b"te", b"connection"}
    assert names(strict.requests[0].fields) <= {b"host", b"x-kept", b"x-middle"} | own
    assert [strict.requests[0].all(name) for name in (b"te", b"connection")] == [[b"trailers"], [b"te"]]
    assert strict.requests[0].all(b"x-kept") == [b"3"]
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(field + b"\r\n" for field in sent)
    up = await upstream(answering(head + b"Content-Length: 2\r\n\r\nok"))
    answer = await (await (await front(up)).caller()).ask()
    assert names(answer.headers) <= {b"x-kept", b"x-middle", b"content-length", b"date"}
    assert (answer.all(b"x-kept"), answer.body) == ([b"3"], b"ok")


async def test_connection_takes_away_nothing_that_frames_or_addresses(upstream: Behind, front: Front) -> None:
    named = "Connection: host, content-length, transfer-encoding, x-forwarded-for, x-forwarded-host"
    key, gone = "x-api-key: k-1", "Connection: x-request-id, x-consumer"
    strict = Strict()
    config = {"consumers": [{"name": "acme", "keys": ["k-1"]}], "components": ["key_auth", "request_id"]}
    caller = await (await front(await upstream(strict), config=config)).caller()
    # A key that Connection names is gone before anybody looks: that refuses, and lets nobody in.
    answer = await caller.ask("/", named, key, gone + ", x-api-key", method="POST", body=b"hello")
    assert (answer.status, strict.requests) == (401, [])
    assert (await caller.ask("/", named, key, gone, method="POST", body=b"hello")).status == 200
    (request,) = strict.requests
    assert request.body == b"hello"
    assert request.all(b"x-forwarded-for") == [b"127.0.0.1"]
    assert request.all(b"x-forwarded-host") == request.all(b"host") == [b"gw.test"]
    assert request.all(b"x-consumer") == [b"acme"]
    assert len(request.all(b"x-request-id")) == 1


def spelled(name: str) -> list[str]:
    """A name with dashes and underscores in each place, in several cases."""
    parts = name.split("-")
    woven = [
        "".join(itertools.chain(*zip(parts, (*signs, ""), strict=True)))
        for signs in itertools.product("-_", repeat=len(parts) - 1)
    ]
    return [write(each) for each in woven for write in (str.lower, str.upper, str.title)]


OWN = {
    "x-forwarded-for": b"127.0.0.1",
    "x-forwarded-proto": b"http",
    "x-forwarded-host": b"gw.test",
    "x-forwarded-port": None,
    "x-forwarded-prefix": None,
    "x-real-ip": None,
    "forwarded": None,
    "x-consumer": None,
    "x-request-id": None,
    "x-user": None,
}
"""What an upstream believes of the gateway, and what it says on a route without authentication."""


@pytest.mark.parametrize("route", ["/open", "/key", "/none"])
async def test_nothing_that_the_gateway_says_can_be_forged(
    route: str, upstream: Behind, stack: AsyncExitStack
) -> None:
    strict = Strict()
    user = {"headers": {"request": {"set": {"x-user": "{consumer}"}}}}
    up = await upstream(strict)
    document: dict[str, Any] = {
        "consumers": [{"name": "acme", "keys": ["k-1"]}],
        "upstreams": {"up": {"targets": [up.url]}},
        "routes": [
            {"name": "open", "path": "/open", "upstream": "up", "components": [user, "request_id"]},
            {"name": "key", "path": "/key", "upstream": "up", "components": ["key_auth", user, "request_id"]},
            {"name": "none", "path": "/none", "upstream": "up", "components": [user]},
        ],
    }
    serving = await stack.enter_async_context(served(Gateway.parse(document)))
    caller = await serving.caller()
    forged = [f"{each}: forged" for name in OWN for each in spelled(name)]
    for some in (forged[n : n + 90] for n in range(0, len(forged), 90)):
        for more in ((), (f"Connection: {', '.join(OWN)}",)):
            assert (await caller.ask(route, *some, "x-api-key: k-1", *more)).status == 200
    wanted: dict[str, bytes | None] = dict(OWN)
    if route == "/key":
        wanted |= {"x-consumer": b"acme", "x-user": b"acme"}
    for request in strict.requests:
        seen: dict[str, list[bytes]] = {}
        for name, value in request.fields:
            seen.setdefault(name.decode().replace("_", "-"), []).append(value)
        ids = seen.pop("x-request-id", [])
        # Where nobody makes an id, that field is one like any other.
        assert route == "/none" or (len(ids) == 1 and ids != [b"forged"])
        for name, value in wanted.items():
            assert seen.get(name, []) == ([value] if value else []), name
    assert strict.breaches == []


async def test_what_frames_or_belongs_to_a_connection_has_no_copy_with_underscores(
    upstream: Behind, front: Front
) -> None:
    strict = Strict()
    caller = await (await front(await upstream(strict), forwarded="none")).caller()
    copies = [
        f"{name}: forged"
        for name in ("Content_Length", "transfer_encoding", "KEEP_ALIVE", "Proxy_Connection")
    ]
    assert (await caller.ask("/", *copies, "X_Other: kept", method="POST", body=b"hello")).status == 200
    assert names(strict.requests[0].fields) == {b"host", b"content-length", b"x_other"}


async def test_five_cookies_stay_five_and_the_date_is_one(upstream: Behind, front: Front) -> None:
    cookies = [b"a=1", b"b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT", b"a=1", b"c=", b'd="x,y"']
    lines = b"".join(b"Set-Cookie: %b\r\n" % cookie for cookie in cookies)
    own = b"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\nServer: up/1\r\n"
    for more, date, server in ((own, b"Mon, 01 Jan 2024 00:00:00 GMT", [b"up/1"]), (b"", None, [])):
        up = await upstream(answering(b"HTTP/1.1 200 OK\r\n" + lines + more + b"Content-Length: 2\r\n\r\nok"))
        answer = await (await (await front(up)).caller()).ask()
        assert answer.all(b"set-cookie") == cookies
        assert answer.all(b"server") == server
        assert len(answer.all(b"date")) == 1
        assert date in (None, *answer.all(b"date"))


FRAMINGS = {
    "length": b"Content-Length: 8\r\n\r\nabcdefgh",
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nX-Sum: 1\r\n\r\n",
    "close": b"\r\nabcdefgh",
}


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_old_caller_never_gets_chunks_whatever_the_upstream_sends(
    framing: bytes, version: str, upstream: Behind, front: Front
) -> None:
    up = await upstream(answering(b"HTTP/1.1 200 OK\r\n" + framing))
    caller = await (await front(up)).caller()
    caller.writer.write(f"GET / HTTP/{version}\r\nHost: gw.test\r\n\r\n".encode())
    answer = await caller.answer()
    assert answer.body == b"abcdefgh"
    known = framing is FRAMINGS["length"]
    assert answer.all(b"content-length") == ([b"8"] if known else [])
    assert answer.all(b"transfer-encoding") == ([] if known or version == "1.0" else [b"chunked"])
    assert answer.all(b"connection") == ([b"close"] if version == "1.0" else [])
    assert not answer.all(b"x-sum")


NOISE = random.Random(5).randbytes(300_000)
CODINGS = {
    "gzip": gzip.compress(NOISE[:100_000]),
    "deflate": zlib.compress(b"a" * 100_000),
    "br": NOISE[:70_000],
    "zstd": b"\x28\xb5\x2f\xfd" + NOISE[:1000],
    "x-unknown, gzip": NOISE,
    "identity": bytes(range(256)) * 300,
    "": b"\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
}


async def test_bodies_are_the_same_bytes_both_ways_in_any_coding(upstream: Behind, front: Front) -> None:
    strict = Strict()

    async def echo(line: Line) -> None:
        """Sends back what came, as it came: with the same coding and the same framing."""
        while True:
            request = strict.read(await line.head())
            body = await strict.body(request, line.reader)
            (coding,) = request.all(b"content-encoding")
            line.say(b'HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nETag: "x"\r\n' % coding)
            if request.all(b"content-length"):
                line.say(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            else:
                line.say(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
            await line.writer.drain()

    caller = await (await front(await upstream(echo))).caller()
    for coding, body in CODINGS.items():
        for accepts in ("gzip, br", "identity", "*;q=0"):
            fields = (f"Content-Encoding: {coding}", f"Accept-Encoding: {accepts}")
            answer = await caller.ask("/", *fields, method="POST", body=body)
            assert (answer.body == body, answer.all(b"content-encoding")) == (True, [coding.encode()])
            caller.say("/", *fields, "Transfer-Encoding: chunked", method="POST")
            for piece in (body[:1], body[1:70_000], body[70_000:]):
                if piece:
                    caller.writer.write(b"%X\r\n" % len(piece) + piece + b"\r\n")
            caller.writer.write(b"0\r\n\r\n")
            answer = await caller.answer()
            assert (answer.body == body, answer.all(b"etag")) == (True, [b'"x"'])
    assert strict.breaches == []


TOKEN = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=12)
KNOWN = ["Accept", "Cookie", "Set-Cookie", "Via", "Vary", "ETag", "Range", "Authorization", "X-A"]
DROPPED = ["Keep-Alive", "TE", "Trailer", "Proxy-Connection", "Upgrade", "Forwarded", "X-Forwarded-For"]
DROPPED += ["X_Real-IP", "x_forwarded_for"]
SIGN = st.just("\t") | st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f")
VALUE = st.text(SIGN, max_size=40).map(lambda text: text.strip(" \t"))
ONE = st.tuples(TOKEN | st.sampled_from(KNOWN) | st.sampled_from(DROPPED), VALUE)
NEVER = {"host", "content-length", "transfer-encoding", "connection", "expect", "date"}
SETS = st.lists(ONE.filter(lambda field: field[0].lower() not in NEVER), max_size=25)
PICKS = st.lists(st.integers(0, 24), max_size=3)


def kept(fields: list[tuple[str, str]], gone: set[str], dropped: set[str]) -> Fields:
    """What is left: order and repetitions stay."""
    return [
        (name.lower().encode(), value.encode("latin-1"))
        for name, value in fields
        if name.lower() not in gone and name.lower().replace("_", "-") not in dropped
    ]


def test_any_other_field_is_kept_both_ways_in_order_and_number() -> None:
    hops = {"keep-alive", "te", "trailer", "proxy-connection", "upgrade"}
    forwarding = {"x-forwarded-for", "x-real-ip", "forwarded"}
    strict, said = Strict(), [b""]

    async def script(line: Line) -> None:
        while True:
            strict.requests.append(strict.read(await line.head()))
            line.say(b"HTTP/1.1 200 OK\r\n" + said[0] + b"Content-Length: 0\r\n\r\n")

    async def start(stack: AsyncExitStack) -> Serving:
        up = await stack.enter_async_context(raw(script))
        document = {
            "upstreams": {"up": {"targets": [up.url], "forwarded": "none"}},
            "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
        }
        return await stack.enter_async_context(served(Gateway.parse(document)))

    async def ask(serving: Serving, fields: list[str]) -> Answer:
        caller = await serving.caller()
        answer = await caller.ask("/", *fields)
        caller.leave()
        return answer

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        serving = runner.run(start(stack))

        @settings(max_examples=300, deadline=None)
        @given(SETS, SETS, PICKS)
        def check(up: list[tuple[str, str]], down: list[tuple[str, str]], picks: list[int]) -> None:
            taken = [[fields[n][0].lower() for n in picks if n < len(fields)] for fields in (up, down)]
            gone = [{name for name in names if name not in ("upgrade", "close")} for names in taken]
            lines = [f"{name}: {value}" for name, value in up]
            said[0] = b"".join(f"{name}:\t{value} \r\n".encode("latin-1") for name, value in down)
            if gone[1]:
                said[0] += b"Connection: " + ", ".join(gone[1]).encode() + b"\r\n"
            if gone[0]:
                lines.insert(0, "Connection: " + ", ".join(gone[0]))
            strict.requests.clear()
            answer = runner.run(ask(serving, lines))
            assert answer.status == 200
            assert strict.requests[0].fields == [(b"host", b"gw.test"), *kept(up, gone[0], hops | forwarding)]
            frame = [field for field in answer.headers if field[0] not in (b"content-length", b"date")]
            assert frame == [field for field in kept(down, gone[1], set()) if field[0].decode() not in hops]

        check()
        runner.run(stack.aclose())
    assert strict.breaches == []
